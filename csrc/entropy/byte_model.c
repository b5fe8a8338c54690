/* byte_model.c: coding of bytes, bit by bit, by logistic mixing of contexts. */
#include "byte_bits.h"

/* First weights, where k contexts know anything: FIRST / (k + SPREAD); 65536 is 1.0. */
#define WEIGHT_FIRST 120000
#define WEIGHT_SPREAD 3

#define REFINE_BITS 12u  /* at most, log2 of the curves chosen by a context */
#define REFINE_CONTEXT 1u
/* Adaptive words start as if seen this often and slow down until seen LIMIT times. */
#define REFINE_COUNT 6u
#define MAP_COUNT 6u

/* The mixer learns four times and twice as fast for the first bytes. */
#define FAST_UNTIL 2048u
#define BRISK_UNTIL 32768u

#define MATCH_MIN 6u       /* bytes that must agree before a match is believed */
#define MATCH_VERIFY 40u   /* bytes compared at most when one is found */
/* An entry of the index: a place in the ring, and above it other bits of the hash. */
#define PLACE_BITS 24u
#define CHECK_BITS 8u
#define INDEX_BITS_MOST 22u

/* --- set-up --- */

bspi_byte_options bspi_byte_options_for(uint32_t contexts, uint32_t selectors, uint64_t len) {
    uint32_t bits = 4;
    while (bits < 24 && (UINT64_C(1) << bits) < len)
        bits++;
    return (bspi_byte_options){
        .contexts = contexts,
        .selectors = selectors,
        .table_bits = BSPI_MIN(bits, 17),
        .match_bits = BSPI_MAX(bits, 8),
    };
}

static bool valid(const bspi_byte_options *options) {
    return options->contexts >= 1 && options->contexts <= BSPI_BYTE_CONTEXTS &&
           options->selectors >= 1 && options->selectors <= BSPI_BYTE_SELECTORS &&
           options->table_bits >= 4 && options->table_bits <= 22 &&
           (options->match_bits == 0 ||
            (options->match_bits >= 8 && options->match_bits <= 24));
}

static uint32_t index_bits(const bspi_byte_model *model) {
    return model->options.match_bits - 2;
}

static void init_curves(const bspi_byte_model *model, bspi_adaptive *cells, size_t curves) {
    for (size_t i = 0; i < curves * REFINE_CELLS; i++) {
        int32_t x = ((int32_t)(i % REFINE_CELLS) - BSPI_STRETCH_MAX / 128) * 128;
        cells[i] = bspi_adaptive_of((uint16_t)bspi_squash(&model->logistic, x), REFINE_COUNT);
    }
}

static void init_maps(bspi_byte_model *model) {
    for (unsigned s = 0; s < 256; s++) {
        uint32_t zeros = model->histories.zeros[s], ones = model->histories.ones[s];
        uint32_t p = ((ones * 5 + 2) << 16) / ((zeros + ones) * 5 + 4);
        for (uint32_t i = 0; i < model->slots; i++)
            model->maps[i][s] = bspi_adaptive_of((uint16_t)p, MAP_COUNT);
    }
    for (uint32_t i = 0; i < model->slots; i++)
        model->maps[i][0] = NOTHING;
    for (unsigned i = 0; i < 256; i++)
        model->rates[i] = bspi_rates[i];
    for (unsigned i = 0; i < MATCH_CLASSES; i++)
        model->match_map[i] = bspi_adaptive_of(45875, 0); /* 0.7 */
}

static bool allocate(bspi_byte_model *model) {
    const bspi_byte_options *options = &model->options;
    size_t sets = (size_t)options->selectors * (model->slots + 1) * 3;
    size_t curves = (size_t)options->selectors * 512;
    size_t lines = (size_t)1 << options->table_bits;
    size_t total = lines * options->contexts + ((size_t)1 << model->expected_bits);
    model->block = bspi_alloc(model->heap, total + 4, sizeof(line), true);
    if (model->block == NULL)
        return false;
    bspi_large_pages(model->block, (total + 4) * sizeof(line));
    uintptr_t past_edge = (uintptr_t)model->block & 63;
    line *first = (line *)((uint8_t *)model->block + (past_edge != 0 ? 64 - past_edge : 0));
    for (uint32_t i = 0; i < model->slots; i++)
        model->tables[i] = first + i * lines;
    model->weights = bspi_alloc(model->heap, sets * INPUTS, sizeof(int32_t), false);
    model->refine_selector =
        bspi_alloc(model->heap, curves * REFINE_CELLS, sizeof(uint32_t), false);
    model->refine_context = bspi_alloc(
        model->heap, REFINE_CELLS * ((size_t)1 << model->refine_bits), sizeof(uint32_t), false);
    if (model->weights == NULL || model->refine_selector == NULL || model->refine_context == NULL)
        return false;
    for (size_t i = 0; i < sets * INPUTS; i++) {
        /* The fewer contexts know anything, the more each is believed. */
        int32_t known = (int32_t)(i / (3 * INPUTS) % (model->slots + 1));
        model->weights[i] = WEIGHT_FIRST / (known + WEIGHT_SPREAD);
    }
    init_curves(model, model->refine_selector, curves);
    init_curves(model, model->refine_context, (size_t)1 << model->refine_bits);
    if (options->match_bits == 0)
        return true;
    model->past = bspi_alloc(model->heap, (size_t)1 << options->match_bits, 1, true);
    model->index = bspi_alloc(model->heap, (size_t)1 << index_bits(model), 4, true);
    if (model->past == NULL || model->index == NULL)
        return false;
    bspi_large_pages(model->past, (size_t)1 << options->match_bits);
    bspi_large_pages(model->index, (size_t)4 << index_bits(model));
    return true;
}

bspi_byte_model *bspi_byte_model_new(bspi_heap *heap, const bspi_byte_options *options) {
    if (!valid(options))
        return NULL;
    bspi_byte_model *model = bspi_alloc(heap, 1, sizeof *model, true);
    if (model == NULL)
        return NULL;
    model->heap = heap;
    model->code_bits = bspi_byte_bits_avx2();
    if (model->code_bits == NULL)
        model->code_bits = bspi_byte_bits_neon();
    if (model->code_bits == NULL)
        model->code_bits = bspi_byte_bits_plainly;
    model->options = *options;
    model->slots = options->contexts + 1;
    model->expected_bits = BSPI_MIN(options->table_bits, 14);
    model->refine_bits = BSPI_MIN(options->table_bits, REFINE_BITS);
    bspi_logistic_init(&model->logistic);
    bspi_histories_init(&model->histories);
    init_maps(model);
    if (!allocate(model)) {
        bspi_byte_model_free(model);
        return NULL;
    }
    return model;
}

void bspi_byte_model_use_no_vectors(bspi_byte_model *model) {
    model->code_bits = bspi_byte_bits_plainly;
}

void bspi_byte_model_free(bspi_byte_model *model) {
    if (model == NULL)
        return;
    bspi_free(model->heap, model->block);
    bspi_free(model->heap, model->weights);
    bspi_free(model->heap, model->refine_selector);
    bspi_free(model->heap, model->refine_context);
    bspi_free(model->heap, model->past);
    bspi_free(model->heap, model->index);
    bspi_free(model->heap, model);
}

/* --- the match --- */

static uint32_t ring_mask(const bspi_byte_model *model) {
    return (UINT32_C(1) << model->options.match_bits) - 1;
}

/* How many bytes before `place` and before the next byte agree. */
static uint32_t common_length(const bspi_byte_model *model, uint32_t place) {
    uint32_t mask = ring_mask(model), len = 0;
    while (len < MATCH_VERIFY && model->past[(place - 1 - len) & mask] ==
                                     model->past[(model->place - 1 - len) & mask])
        len++;
    return len;
}

/* Whether the bytes before an entry's place may agree with the last ones: looking at them
 * costs a cache miss.  Only what was never overwritten is sure to be what was hashed. */
static inline bool worth_a_look(const bspi_byte_model *model, uint32_t had, uint32_t check) {
    bool as_hashed = had != 0 && model->coded <= ring_mask(model);
    return !as_hashed || (had ^ check) >> PLACE_BITS == 0;
}

/* Where the index is to be looked at once the byte just coded is taken in. */
static ALWAYS_INLINE uint32_t *index_entry(const bspi_byte_model *model, uint32_t *check) {
    uint64_t last_six = model->recent & UINT64_C(0xFFFFFFFFFFFF);
    uint64_t hash = last_six * UINT64_C(0x9E3779B97F4A7C15);
    *check = (uint32_t)(hash >> (64 - INDEX_BITS_MOST - CHECK_BITS)) << PLACE_BITS;
    return &model->index[hash >> (64 - index_bits(model))];
}

/* Takes in the byte just coded: follows the match over it, or finds another. */
static void advance_match(bspi_byte_model *model, uint8_t byte) {
    uint32_t mask = ring_mask(model);
    if (model->matching) {
        bool hit = model->past[model->match_place] == byte;
        model->match_len = hit ? BSPI_MIN(model->match_len + 1, 65535) : 0;
        model->misses = model->misses << 1 | !hit;
        model->match_place = (model->match_place + 1) & mask;
        if ((model->misses & 255) == 255)
            model->matching = false;
    }
    model->past[model->place] = byte;
    model->place = (model->place + 1) & mask;
    if (model->coded < MATCH_MIN)
        return;
    uint32_t check, *entry = index_entry(model, &check);
    uint32_t had = *entry, place = had & ((UINT32_C(1) << PLACE_BITS) - 1);
    if ((!model->matching || model->match_len < MATCH_MIN) && place != model->place &&
        !(model->matching && place == model->match_place) && worth_a_look(model, had, check)) {
        uint32_t len = common_length(model, place);
        if (len >= MATCH_MIN) {
            model->matching = true;
            model->match_place = place;
            model->match_len = len;
            model->misses = 0;
        }
    }
    *entry = model->place | check;
}

/* The row of match_map that fits the match's record. */
static uint32_t match_class(const bspi_byte_model *model) {
    uint32_t len = model->match_len, misses = model->misses & 255;
    uint32_t length = len < 16 ? len : 16 + BSPI_MIN((len - 16) >> 3, 15);
    if (misses == 0)
        return length * 9;
    uint32_t many = 0;
    for (uint32_t m = misses; m != 0; m &= m - 1)
        many++;
    return length * 9 + 1 + (misses & 3) + (many > 2 ? 4 : 0);
}

/* --- one byte --- */

static uint8_t code_byte(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                         const uint32_t *contexts, uint32_t selector, uint8_t byte) {
    uint32_t count = model->options.contexts;
    pass->selector = BSPI_MIN(selector, model->options.selectors - 1);
    pass->expected = 0;
    pass->match_class = 0;
    pass->shift = model->coded < FAST_UNTIL ? 14 : model->coded < BRISK_UNTIL ? 15 : 16;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t hash = scramble(contexts[i] + i * UINT32_C(0x3D4D51CB));
        hash ^= hash >> 15;
        pass->hashes[i] = hash;
        PREFETCH(model->tables[i] + ((hash ^ hash >> 13) >> (32 - model->options.table_bits)));
    }
    /* The last byte is taken in only now, while the lines are on their way. */
    if (model->options.match_bits != 0 && model->coded != 0)
        advance_match(model, (uint8_t)model->recent);
    uint32_t foretold = 0x10000u | (uint32_t)(model->recent & 255);
    if (model->matching) {
        uint32_t len = model->match_len;
        pass->expected = 256u + model->past[model->match_place];
        pass->match_class = match_class(model);
        foretold = pass->expected << 4 | (len < 16 ? len >> 1 : len < 32 ? 8 : 9);
    }
    foretold |= pass->selector << 20;
    uint32_t hash = scramble(foretold + count * UINT32_C(0x3D4D51CB));
    pass->hashes[count] = hash ^ hash >> 15;
    pass->refine_hash = scramble(pass->hashes[BSPI_MIN(REFINE_CONTEXT, count - 1)]);

    byte = (uint8_t)model->code_bits(model, pass, mode, byte);
    model->coded++;
    model->recent = model->recent << 8 | byte;
    if (model->options.match_bits != 0) {
        uint32_t unused;
        PREFETCH(index_entry(model, &unused));
    }
    return byte;
}

void bspi_byte_encode(bspi_byte_model *model, bspi_encoder *encoder, const uint32_t *contexts,
                      uint32_t selector, uint8_t byte) {
    byte_pass pass = {.encoder = encoder};
    code_byte(model, &pass, ENCODE, contexts, selector, byte);
}

uint8_t bspi_byte_decode(bspi_byte_model *model, bspi_decoder *decoder, const uint32_t *contexts,
                         uint32_t selector) {
    byte_pass pass = {.decoder = decoder};
    return code_byte(model, &pass, DECODE, contexts, selector, 0);
}

void bspi_byte_train(bspi_byte_model *model, const uint32_t *contexts, uint32_t selector,
                     uint8_t byte) {
    byte_pass pass = {.encoder = NULL};
    code_byte(model, &pass, LEARN, contexts, selector, byte);
}
