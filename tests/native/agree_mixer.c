/* agree_mixer.c: the byte model's mixer, alone and with all of the model around it. */
#include "agree.h"

#include <string.h>

#include "../../csrc/entropy/byte_model.h"

#ifdef __aarch64__
#include "../../csrc/entropy/byte_mix_neon.h"

static int32_t weigh_plainly(const int32_t *inputs, const int32_t *weights) {
    int32_t sum = 0;
    for (unsigned i = 0; i < INPUTS; i++)
        sum += inputs[i] * weights[i];
    return sum;
}

static void learn_plainly(const int32_t *inputs, int32_t *weights, int32_t error, unsigned shift) {
    for (unsigned i = 0; i < INPUTS; i++) {
        int32_t step = bspi_shift_down(inputs[i] * error + (1 << (shift - 1)), shift);
        weights[i] = BSPI_MAX(BSPI_MIN(weights[i] + step, WEIGHT_MAX), -WEIGHT_MAX);
    }
}

static int32_t within(dice *d, int32_t most) {
    int32_t edges[] = {0, 1, -1, most, -most, most - 1};
    uint64_t choice = pick(d, 10);
    return choice < 6 ? edges[choice] : (int32_t)pick(d, 2 * (uint64_t)most + 1) - most;
}

static unsigned alone(void) {
    dice d = {UINT64_C(0xA11)};
    unsigned rounds = 200000;
    for (unsigned round = 0; round < rounds; round++) {
        int32_t inputs[INPUTS] = {0}, plain[INPUTS], quick[INPUTS];
        uint64_t given = pick(&d, INPUTS);
        bool extreme = pick(&d, 8) == 0; /* the largest sum there can be */
        for (unsigned i = 0; i < INPUTS; i++) {
            if (i < given || (extreme && i + 1 < INPUTS))
                inputs[i] = extreme ? BSPI_STRETCH_MAX : within(&d, BSPI_STRETCH_MAX);
            plain[i] = extreme ? (round & 1 ? -1 : 1) * WEIGHT_MAX
                               : within(&d, WEIGHT_MAX);
        }
        memcpy(quick, plain, sizeof plain);
        if (weigh_plainly(inputs, plain) != weigh(inputs, quick))
            DIFFER("sum of round %u", round);
        int32_t error = within(&d, 65536);
        unsigned shift = 14 + (unsigned)pick(&d, 3);
        learn_plainly(inputs, plain, error, shift);
        learn_weights(inputs, quick, error, shift);
        if (memcmp(plain, quick, sizeof plain) != 0)
            DIFFER("weights of round %u", round);
    }
    return rounds;
}
#endif

#define BYTES 6000u

static uint8_t some_byte(dice *d, unsigned kind, const uint8_t *before) {
    switch (kind) {
    case 0:
        return (uint8_t)roll(d); /* noise drives the weights down */
    case 1:
        return 0; /* and certainty up */
    case 2:
        return (uint8_t)("the quick brown fox "[pick(d, 20)]);
    default:
        return pick(d, 30) == 0 ? (uint8_t)roll(d) : before[-64 + (int)(before[-1] & 3)];
    }
}

static void contexts_of(const uint8_t *before, uint32_t contexts[BSPI_BYTE_CONTEXTS]) {
    for (uint32_t i = 0; i < BSPI_BYTE_CONTEXTS; i++)
        contexts[i] = before[-1 - (int)i] * UINT32_C(2654435761) + before[-1] * (i + 1) + i;
}

/* Encodes in one way, with every eighth byte only learnt, and decodes in the other. */
static void round_trip(const bspi_byte_options *options, const uint8_t *bytes, bool plain_first) {
    bspi_heap heap;
    bspi_heap_init(&heap, 0);
    bspi_buffer codes[2] = {{.heap = &heap}, {.heap = &heap}};
    uint32_t contexts[BSPI_BYTE_CONTEXTS];
    for (unsigned way = 0; way < 2; way++) {
        bspi_byte_model *model = bspi_byte_model_new(&heap, options);
        bspi_encoder encoder;
        NEEDED(model != NULL);
        if ((way == 0) == plain_first)
            bspi_byte_model_use_no_vectors(model);
        bspi_encoder_init(&encoder, &codes[way]);
        for (unsigned i = 0; i < BYTES; i++) {
            contexts_of(bytes + i, contexts);
            if (i % 8 == 7)
                bspi_byte_train(model, contexts, i >> 10, bytes[i]);
            else
                bspi_byte_encode(model, &encoder, contexts, i >> 10, bytes[i]);
        }
        NEEDED(bspi_encoder_flush(&encoder));
        bspi_byte_model_free(model);
    }
    if (codes[0].len != codes[1].len || memcmp(codes[0].data, codes[1].data, codes[0].len) != 0)
        DIFFER("%u contexts, %zu bytes and %zu", options->contexts, codes[0].len, codes[1].len);
    bspi_byte_model *model = bspi_byte_model_new(&heap, options);
    bspi_decoder decoder;
    NEEDED(model != NULL);
    if (!plain_first)
        bspi_byte_model_use_no_vectors(model);
    bspi_decoder_init(&decoder, codes[0].data, codes[0].len);
    for (unsigned i = 0; i < BYTES; i++) {
        contexts_of(bytes + i, contexts);
        if (i % 8 == 7)
            bspi_byte_train(model, contexts, i >> 10, bytes[i]);
        else if (bspi_byte_decode(model, &decoder, contexts, i >> 10) != bytes[i])
            DIFFER("%u contexts, byte %u decoded", options->contexts, i);
    }
    NEEDED(bspi_decoder_done(&decoder));
    bspi_byte_model_free(model);
    bspi_buffer_free(&codes[0]);
    bspi_buffer_free(&codes[1]);
    NEEDED(heap.in_use == 0);
}

void agree_mixer(void) {
    static uint8_t bytes[64 + BYTES];
    dice d = {UINT64_C(0xC0DE)};
    unsigned streams = 0;
#ifdef __aarch64__
    printf("mixer: %u sums and steps\n", alone());
#endif
    for (uint32_t contexts = 1; contexts <= BSPI_BYTE_CONTEXTS; contexts++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            bspi_byte_options options = {.contexts = contexts, .selectors = 1 + contexts % 4,
                                         .table_bits = 4 + 4 * (kind & 1) + contexts,
                                         .match_bits = kind & 2 ? 10 + contexts : 0};
            for (unsigned i = 0; i < BYTES; i++)
                bytes[64 + i] = some_byte(&d, i < BYTES / 2 ? (kind + i / 700) & 3 : kind,
                                          bytes + 64 + i);
            round_trip(&options, bytes + 64, kind & 1);
            streams++;
        }
    }
    printf("byte model: %u streams of %u bytes\n", streams, BYTES);
}
