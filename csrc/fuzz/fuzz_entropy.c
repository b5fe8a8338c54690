/* fuzz_entropy.c: any bytes decode to something, and encoding that gives it back.
 *
 * The first four bytes choose the shape; the rest is decoded once as numbers
 * and once as bytes.  What came out is encoded again, which must decode to
 * the same. */
#include "../common/bytes.h"
#include "../entropy/byte_model.h"
#include "../entropy/int_model.h"
#include "fuzz.h"

#define ITEMS 600u

static uint64_t number(bspi_int_model *model, bspi_decoder *decoder, uint32_t i) {
    if (i % 3 == 0)
        return (uint64_t)bspi_int_decode_signed(model, decoder, i % 5);
    return bspi_int_decode(model, decoder, i % 5);
}

static void numbers(bspi_heap *heap, const uint8_t *data, size_t size, uint32_t contexts) {
    uint64_t values[ITEMS];
    bspi_int_model model;
    bspi_decoder decoder;
    CHECK(bspi_int_model_init(&model, heap, contexts));
    bspi_decoder_init(&decoder, data, size);
    for (uint32_t i = 0; i < ITEMS; i++)
        values[i] = number(&model, &decoder, i);
    bspi_int_model_free(&model);

    bspi_buffer out = {.heap = heap};
    bspi_encoder encoder;
    CHECK(bspi_int_model_init(&model, heap, contexts));
    bspi_encoder_init(&encoder, &out);
    for (uint32_t i = 0; i < ITEMS; i++) {
        if (i % 3 == 0)
            bspi_int_encode_signed(&model, &encoder, i % 5, (int64_t)values[i]);
        else
            bspi_int_encode(&model, &encoder, i % 5, values[i]);
    }
    CHECK(bspi_encoder_flush(&encoder));
    bspi_int_model_free(&model);

    CHECK(bspi_int_model_init(&model, heap, contexts));
    bspi_decoder_init(&decoder, out.data, out.len);
    for (uint32_t i = 0; i < ITEMS; i++)
        CHECK(number(&model, &decoder, i) == values[i]);
    CHECK(bspi_decoder_done(&decoder));
    bspi_int_model_free(&model);
    bspi_buffer_free(&out);
}

static void contexts_of(const uint8_t *before, uint32_t *contexts) {
    for (uint32_t i = 0; i < BSPI_BYTE_CONTEXTS; i++)
        contexts[i] = i == 0 ? 0 : (bspi_load32(before) >> (8 * (i & 3))) * 31 + i;
}

static void bytes(bspi_heap *heap, const uint8_t *data, size_t size,
                  const bspi_byte_options *options) {
    uint8_t values[4 + ITEMS] = {0}, again[4 + ITEMS] = {0};
    uint32_t contexts[BSPI_BYTE_CONTEXTS];
    bspi_decoder decoder;
    bspi_byte_model *model = bspi_byte_model_new(heap, options);
    if (model == NULL)
        return;
    bspi_decoder_init(&decoder, data, size);
    for (uint32_t i = 0; i < ITEMS; i++) {
        contexts_of(values + i, contexts);
        values[4 + i] = bspi_byte_decode(model, &decoder, contexts, i & 7);
    }
    bspi_byte_model_free(model);

    bspi_buffer out = {.heap = heap};
    bspi_encoder encoder;
    model = bspi_byte_model_new(heap, options);
    CHECK(model != NULL);
    bspi_encoder_init(&encoder, &out);
    for (uint32_t i = 0; i < ITEMS; i++) {
        contexts_of(values + i, contexts);
        bspi_byte_encode(model, &encoder, contexts, i & 7, values[4 + i]);
    }
    CHECK(bspi_encoder_flush(&encoder));
    bspi_byte_model_free(model);

    model = bspi_byte_model_new(heap, options);
    CHECK(model != NULL);
    bspi_decoder_init(&decoder, out.data, out.len);
    for (uint32_t i = 0; i < ITEMS; i++) {
        contexts_of(again + i, contexts);
        again[4 + i] = bspi_byte_decode(model, &decoder, contexts, i & 7);
    }
    CHECK(memcmp(values, again, sizeof values) == 0);
    CHECK(bspi_decoder_done(&decoder));
    bspi_byte_model_free(model);
    bspi_buffer_free(&out);
}

FUZZ_TARGET(entropy) {
    if (size < 4)
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, 0);
    bspi_byte_options options = {
        .contexts = data[0] % 10u,
        .selectors = data[1] % 6u,
        .table_bits = 4u + data[2] % 8u,
        .match_bits = data[3] % 11u,
    };
    numbers(&heap, data + 4, size - 4, 1 + data[0] % 4u);
    bytes(&heap, data + 4, size - 4, &options);
    CHECK(heap.in_use == 0);
    return 0;
}
