/* int_model.c: adaptive coding of whole numbers as a walk over learnt bits. */
#include "int_model.h"

#define TOP_BITS 3u

struct bspi_int_context {
    bspi_bit zero;
    bspi_bit negative;
    bspi_bit bucket[64];                    /* a tree over (significant bits - 1), node 1 is its root */
    bspi_bit top[64][1u << TOP_BITS];       /* by bucket, a tree over the bits below the highest */
    bspi_bit rest[64];                      /* by position from the lowest bit */
};

/* One pass over a number's bits, in one of three modes.  The same walk encodes,
 * decodes and prices, so that the three cannot drift apart. */
typedef struct pass {
    bspi_encoder *encoder; /* encoding */
    bspi_decoder *decoder; /* decoding */
    uint32_t cost;         /* neither: pricing */
} pass;

static unsigned step(pass *pass, bspi_bit *model, unsigned bit) {
    if (pass->encoder != NULL)
        bspi_bit_encode(model, pass->encoder, bit);
    else if (pass->decoder != NULL)
        bit = bspi_bit_decode(model, pass->decoder);
    else
        pass->cost += bspi_bit_cost(bspi_bit_p(model), bit);
    return bit;
}

static unsigned significant_bits(uint64_t value) {
    unsigned bits = 0;
    while (value != 0) {
        value >>= 1;
        bits++;
    }
    return bits;
}

/* A number of 1 or more; `value` is ignored while decoding. */
static uint64_t walk_positive(pass *pass, bspi_int_context *context, uint64_t value) {
    unsigned wanted = significant_bits(value) - 1;
    unsigned node = 1;
    for (unsigned i = 6; i-- > 0;)
        node = node << 1 | step(pass, &context->bucket[node], wanted >> i & 1);
    unsigned below = node & 63; /* bits below the highest */

    uint64_t known = 1;
    node = 1;
    for (unsigned i = below; i-- > 0;) {
        unsigned bit = value >> i & 1;
        if (below - i <= TOP_BITS) {
            bit = step(pass, &context->top[below][node], bit);
            node = node << 1 | bit;
        } else {
            bit = step(pass, &context->rest[i], bit);
        }
        known = known << 1 | bit;
    }
    return known;
}

static uint64_t walk(pass *pass, bspi_int_context *context, uint64_t value) {
    if (step(pass, &context->zero, value != 0) == 0)
        return 0;
    return walk_positive(pass, context, value);
}

static int64_t walk_signed(pass *pass, bspi_int_context *context, int64_t value) {
    if (step(pass, &context->zero, value != 0) == 0)
        return 0;
    unsigned negative = step(pass, &context->negative, value < 0);
    /* A negative number is coded as -1 - value, plus 1: 1 to 2^63. */
    uint64_t magnitude = value < 0 ? ~(uint64_t)value + 1 : (uint64_t)value;
    magnitude = walk_positive(pass, context, magnitude);
    return (int64_t)(negative ? ~magnitude + 1 : magnitude);
}

static bspi_int_context *at(const bspi_int_model *model, uint32_t context) {
    return &model->contexts[BSPI_MIN(context, model->context_count - 1)];
}

static void init_bits(bspi_bit *bits, size_t count) {
    for (size_t i = 0; i < count; i++)
        bspi_bit_init(&bits[i], 32768, BSPI_BIT_LIMIT);
}

bool bspi_int_model_init(bspi_int_model *model, bspi_heap *heap, uint32_t contexts) {
    model->heap = heap;
    model->context_count = contexts;
    model->contexts = bspi_alloc(heap, contexts, sizeof *model->contexts, false);
    if (model->contexts == NULL)
        return false;
    for (uint32_t i = 0; i < contexts; i++) {
        bspi_int_context *context = &model->contexts[i];
        init_bits(&context->zero, 1);
        init_bits(&context->negative, 1);
        init_bits(context->bucket, 64);
        for (unsigned b = 0; b < 64; b++)
            init_bits(context->top[b], 1u << TOP_BITS);
        init_bits(context->rest, 64);
    }
    return true;
}

void bspi_int_model_free(bspi_int_model *model) {
    bspi_free(model->heap, model->contexts);
    model->contexts = NULL;
}

void bspi_int_encode(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                     uint64_t value) {
    pass pass = {.encoder = encoder};
    walk(&pass, at(model, context), value);
}

uint64_t bspi_int_decode(bspi_int_model *model, bspi_decoder *decoder, uint32_t context) {
    pass pass = {.decoder = decoder};
    return walk(&pass, at(model, context), 0);
}

uint32_t bspi_int_cost(const bspi_int_model *model, uint32_t context, uint64_t value) {
    pass pass = {.cost = 0};
    walk(&pass, at(model, context), value);
    return pass.cost;
}

void bspi_int_encode_signed(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                            int64_t value) {
    pass pass = {.encoder = encoder};
    walk_signed(&pass, at(model, context), value);
}

int64_t bspi_int_decode_signed(bspi_int_model *model, bspi_decoder *decoder, uint32_t context) {
    pass pass = {.decoder = decoder};
    return walk_signed(&pass, at(model, context), 0);
}

uint32_t bspi_int_cost_signed(const bspi_int_model *model, uint32_t context, int64_t value) {
    pass pass = {.cost = 0};
    walk_signed(&pass, at(model, context), value);
    return pass.cost;
}
