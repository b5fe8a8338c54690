/* range_coder.h: the binary arithmetic coder under every modelled stream, and
 * the adaptive bit, the smallest model.  docs/entropy.md is its contract.
 *
 * A probability is a uint16_t: the chance, in 1/65536, that the bit is 1; it is
 * never 0.  Integer arithmetic only, so both sides agree on every machine.
 *
 * Thread safety: none, one coder belongs to one thread.
 */
#ifndef BSPI_RANGE_CODER_H
#define BSPI_RANGE_CODER_H

#include "../common/memory.h"

/* The interval is kept at least this wide, so that the rarest bit (2^-16) still
 * gets a part of it and rounding costs nothing that can be measured. */
#define BSPI_RANGE_MIN (UINT32_C(1) << 24)

/* Prices are in 1/256 of a bit. */
#define BSPI_COST_BIT 256u

/* Appends to `out`, which the caller owns and may have bytes in already.  A
 * refused allocation sticks in `failed`; calls after it do nothing. */
typedef struct bspi_encoder {
    bspi_buffer *out;
    size_t start; /* where in out this code begins */
    uint32_t low;
    uint32_t range;
    bool failed;
} bspi_encoder;

void bspi_encoder_init(bspi_encoder *encoder, bspi_buffer *out);
void bspi_encoder_bit(bspi_encoder *encoder, uint16_t p, unsigned bit);
/* `bits` (0 to 64) equally likely bits of value, the highest first. */
void bspi_encoder_raw(bspi_encoder *encoder, uint64_t value, unsigned bits);
/* Ends the code with the fewest bytes that decode to the same bits when zeros
 * follow.  A code whose every bit was 0 takes none at all.  False when memory
 * was refused at any time since init. */
BSP_MUST_CHECK bool bspi_encoder_flush(bspi_encoder *encoder);
/* What the bits so far have cost, in 1/65536 bits; never falls. */
uint64_t bspi_encoder_spent(const bspi_encoder *encoder);

/* Reads [data, data + len); sees zero bytes behind the end.  Never fails: every
 * string of bytes decodes to some bits.  How many bits to ask for must come
 * from elsewhere, with a limit. */
typedef struct bspi_decoder {
    const uint8_t *data;
    size_t len;
    size_t pos;       /* bytes taken of data */
    uint64_t overrun; /* zero bytes seen behind the end; up to 4 are usual, more are sound */
    uint32_t code;
    uint32_t range;
} bspi_decoder;

void bspi_decoder_init(bspi_decoder *decoder, const uint8_t *data, size_t len);
unsigned bspi_decoder_bit(bspi_decoder *decoder, uint16_t p);
/* Takes in bytes until the interval is wide enough again. */
void bspi_decoder_widen(bspi_decoder *decoder);
/* As bspi_decoder_bit, for inner loops. */
static inline unsigned bspi_decoder_bit_inline(bspi_decoder *decoder, uint16_t p) {
    uint32_t range = decoder->range;
    uint32_t zero = (uint32_t)((uint64_t)range * (65536u - p) >> 16);
    unsigned bit = decoder->code >= zero;
    uint32_t ones = 0u - bit;
    decoder->code -= zero & ones;
    decoder->range = range = zero + ((range - 2 * zero) & ones);
    if (range < BSPI_RANGE_MIN)
        bspi_decoder_widen(decoder);
    return bit;
}
uint64_t bspi_decoder_raw(bspi_decoder *decoder, unsigned bits);
/* Once the last bit is decoded: true when every byte was used and the code
 * has no superfluous zero byte at its end, as bspi_encoder_flush leaves it. */
bool bspi_decoder_done(const bspi_decoder *decoder);

/* What coding `bit` at probability p costs, in 1/256 bits. */
uint32_t bspi_bit_cost(uint16_t p, unsigned bit);

/* 65536 / (n + 1.5), rounded. */
extern const uint16_t bspi_rates[256];

/* A probability that is learnt: the chance of a 1 in its high 24 bits, how often
 * it was corrected in its low 8.  The nth observation moves the estimate by
 * 1/(n + 1.5) of the error, until n reaches a limit, where the rate stays.  A
 * high limit suits what never changes, a low one what does. */
typedef uint32_t bspi_adaptive;

#define BSPI_ADAPTIVE_HALF (UINT32_C(1) << 31) /* knows nothing */

static inline bspi_adaptive bspi_adaptive_of(uint16_t p, uint8_t count) {
    return (uint32_t)p << 16 | count;
}

static inline uint16_t bspi_adaptive_p(bspi_adaptive word) {
    uint32_t p = word >> 16;
    return (uint16_t)(p == 0 ? 1 : p);
}

static inline void bspi_adapt(bspi_adaptive *word, unsigned bit, uint32_t limit) {
    uint32_t count = *word & 255, rate = bspi_rates[count];
    /* The chance of the other bit shrinks.  Bits are hard to foresee for a
     * processor too: no branch. */
    uint32_t flip = (0u - bit) & 0xFFFFFF;
    uint32_t other = *word >> 8 ^ flip;
    other -= (uint32_t)((uint64_t)other * rate >> 16);
    *word = (other ^ flip) << 8 | (count + (count < limit));
}

/* A flag with such a probability.  One that hardly ever changes costs next to
 * nothing: some 0.00002 bits in the long run. */
typedef struct bspi_bit {
    bspi_adaptive word;
    uint8_t limit;
} bspi_bit;

#define BSPI_BIT_LIMIT 255u

/* p: the first guess; 32768 when nothing is known. */
void bspi_bit_init(bspi_bit *model, uint16_t p, uint8_t limit);
uint16_t bspi_bit_p(const bspi_bit *model);
void bspi_bit_encode(bspi_bit *model, bspi_encoder *encoder, unsigned bit);
unsigned bspi_bit_decode(bspi_bit *model, bspi_decoder *decoder);

#endif
