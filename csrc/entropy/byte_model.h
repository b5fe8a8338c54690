/* byte_model.h: coding of bytes by mixing what several contexts foretell.
 *
 * The caller knows what a byte may depend on (the bytes before it, its place
 * in an instruction, what the prediction holds there) and gives a 32-bit hash
 * for each such context; the model learns how far to trust each.  By itself it
 * also follows the longest earlier occurrence of the last bytes of its stream,
 * across single differing bytes.  docs/entropy.md describes every step.
 *
 * Coding is total: every string of bytes decodes to some bytes.  A model
 * serves one direction of one stream; both sides start from the same options
 * and must make the same calls with the same contexts and selectors.
 *
 * Advice.  Put the most telling byte first (the opcode byte of an instruction)
 * by feeding words with their bytes reversed; include the place within the
 * word in every context; six contexts are a good number, time grows with them.
 */
#ifndef BSPI_BYTE_MODEL_H
#define BSPI_BYTE_MODEL_H

#include "logistic.h"
#include "range_coder.h"

#define BSPI_BYTE_CONTEXTS 8u
#define BSPI_BYTE_SELECTORS 64u

typedef struct bspi_byte_options {
    uint32_t contexts;   /* 1 to BSPI_BYTE_CONTEXTS, hashes per byte */
    uint32_t selectors;  /* 1 to BSPI_BYTE_SELECTORS, sets of mixer weights; 50 KB each */
    uint32_t table_bits; /* 4 to 22: each context has 2^table_bits lines of 16 bytes */
    uint32_t match_bits; /* 8 to 24: 2^match_bits bytes are remembered, and as many again
                            serve to find them; 0 turns the match model off */
} bspi_byte_options;

typedef struct bspi_byte_model bspi_byte_model;

/* table_bits and match_bits that suit a stream of `len` bytes: under half
 * a megabyte for a tiny one, 2 MB a context and 4 bytes a byte for a long one. */
bspi_byte_options bspi_byte_options_for(uint32_t contexts, uint32_t selectors, uint64_t len);

/* NULL when memory is refused or an option is out of its range. */
bspi_byte_model *bspi_byte_model_new(bspi_heap *heap, const bspi_byte_options *options);
void bspi_byte_model_free(bspi_byte_model *model); /* NULL is fine */

/* Codes with what every machine has from now on, for tests: nothing else changes. */
void bspi_byte_model_use_no_vectors(bspi_byte_model *model);

/* contexts: options.contexts hashes, of which every bit counts.  A selector
 * beyond the last counts as the last. */
void bspi_byte_encode(bspi_byte_model *model, bspi_encoder *encoder, const uint32_t *contexts,
                      uint32_t selector, uint8_t byte);
uint8_t bspi_byte_decode(bspi_byte_model *model, bspi_decoder *decoder, const uint32_t *contexts,
                         uint32_t selector);
/* Learns a byte that both sides know already, without coding it. */
void bspi_byte_train(bspi_byte_model *model, const uint32_t *contexts, uint32_t selector,
                     uint8_t byte);

#endif
