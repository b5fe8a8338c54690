/* int_model.h: adaptive coding of whole numbers, 0 to 2^64 - 1, in a small
 * number of contexts.  docs/entropy.md describes the code bit by bit.
 *
 * A number is coded as its count of significant bits, then those bits below
 * the highest, each bit mixed from what the context, all contexts together, the
 * size of the context's last number and its last two numbers foretell.  Columns
 * that nearly always hold the same number, small numbers, multiples of a power
 * of two and numbers like their predecessors all come out cheap without the
 * caller saying which they are; contexts are worth having where they differ.
 *
 * Coding is total: every string of bytes decodes to some numbers, none beyond
 * 64 bits, so decoding has no status and range checks are the caller's.
 *
 * A model serves one direction of one stream; both sides start from init and
 * must make the same calls in the same order with the same contexts.  Signed and
 * unsigned calls may be mixed.
 */
#ifndef BSPI_INT_MODEL_H
#define BSPI_INT_MODEL_H

#include "range_coder.h"

typedef struct bspi_int_context bspi_int_context;
typedef struct bspi_int_shared bspi_int_shared;

typedef struct bspi_int_model {
    bspi_heap *heap;
    bspi_int_context *contexts;
    bspi_int_shared *shared;
    uint32_t context_count;
} bspi_int_model;

/* contexts: 1 or more; each takes 7 KB, the model itself 18 KB more.  False when memory is refused,
 * and then nothing needs freeing.  Free with bspi_int_model_free, which also
 * takes a zeroed model. */
BSP_MUST_CHECK bool bspi_int_model_init(bspi_int_model *model, bspi_heap *heap, uint32_t contexts);
void bspi_int_model_free(bspi_int_model *model);

/* A context beyond the last counts as the last. */
void bspi_int_encode(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                     uint64_t value);
uint64_t bspi_int_decode(bspi_int_model *model, bspi_decoder *decoder, uint32_t context);
/* The price of encoding value next, in 1/256 bits; the model stays as it is.  A
 * close estimate: what coding learns within one long number is left out. */
uint32_t bspi_int_cost(const bspi_int_model *model, uint32_t context, uint64_t value);

/* Signed numbers: zero or not, sign, magnitude.  INT64_MIN is fine.  On most
 * columns this beats coding bspi_zigzag(value) by a little. */
void bspi_int_encode_signed(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                            int64_t value);
int64_t bspi_int_decode_signed(bspi_int_model *model, bspi_decoder *decoder, uint32_t context);
uint32_t bspi_int_cost_signed(const bspi_int_model *model, uint32_t context, int64_t value);

#endif
