/* byte_model.c: coding of bytes, bit by bit, by logistic mixing of contexts. */
#include "byte_model.h"

#include <string.h>

#include "bit_history.h"

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

/* Beside the caller's contexts: the byte that the match foretells is one more
 * context, the match itself one more input, and a constant the last. */
#define INPUTS 12u /* one more, so that they fill whole vectors */
#define BIAS 64
/* First weights, where k contexts know anything: FIRST / (k + SPREAD); 65536 is 1.0. */
#define WEIGHT_FIRST 120000
#define WEIGHT_SPREAD 3
#define WEIGHT_MAX 131071  /* so that the mixer's sum stays within 32 bits */

#define REFINE_CELLS 24u /* knots of a refinement curve, 128 stretched units apart */
#define REFINE_BITS 12u  /* at most, log2 of the curves chosen by a context */
#define REFINE_CONTEXT 1u
/* Adaptive words start as if seen this often and slow down until seen LIMIT times. */
#define REFINE_COUNT 6u
#define REFINE_LIMIT 127u
#define MAP_COUNT 6u
#define MAP_LIMIT 255u

/* The mixer learns four times and twice as fast for the first bytes. */
#define FAST_UNTIL 2048u
#define BRISK_UNTIL 32768u

#define MATCH_MIN 6u       /* bytes that must agree before a match is believed */
#define MATCH_VERIFY 40u   /* bytes compared at most when one is found */
#define MATCH_LONG 16u
#define MATCH_CLASSES 288u /* 32 lengths times 9 records of misses */

/* The histories of the 15 partial nibbles of one context. */
typedef struct line {
    uint8_t check;
    uint8_t states[15];
} line;

struct bspi_byte_model {
    bspi_heap *heap;
    bspi_byte_options options;
    uint32_t slots;          /* contexts + 1 */
    uint32_t expected_bits;  /* lines of the foretold byte's table, log2 */
    uint32_t refine_bits;    /* curves of the second refinement, log2 */
    bspi_logistic logistic;
    bspi_histories histories;
    bspi_adaptive maps[BSPI_BYTE_CONTEXTS + 1][256]; /* what each history was followed by */
    bspi_adaptive match_map[MATCH_CLASSES];          /* how often a match was right */
    void *block;             /* of the tables */
    line *tables[BSPI_BYTE_CONTEXTS + 1]; /* aligned to four lines */
    int32_t *weights;        /* by selector, contexts known, kind of match */
    bspi_adaptive *refine_selector;
    bspi_adaptive *refine_context;
    uint8_t *past;           /* ring of 2^match_bits bytes */
    uint32_t *index;         /* hash of the last bytes -> place in the ring */
    uint32_t place;          /* in the ring, of the next byte */
    uint32_t match_place;    /* of the byte foretold */
    uint32_t match_len;      /* bytes that agreed since the last miss */
    uint32_t misses;         /* one bit a byte, the latest lowest */
    bool matching;
    uint64_t coded;          /* bytes so far */
    uint64_t recent;         /* the last eight of them */
};

static inline uint32_t scramble(uint32_t hash) {
    return hash * UINT32_C(0x9E3779B1);
}

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
    return model->past != NULL && model->index != NULL;
}

bspi_byte_model *bspi_byte_model_new(bspi_heap *heap, const bspi_byte_options *options) {
    if (!valid(options))
        return NULL;
    bspi_byte_model *model = bspi_alloc(heap, 1, sizeof *model, true);
    if (model == NULL)
        return NULL;
    model->heap = heap;
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
    uint64_t last_six = model->recent & UINT64_C(0xFFFFFFFFFFFF);
    uint32_t *entry = &model->index[last_six * UINT64_C(0x9E3779B97F4A7C15) >>
                                    (64 - index_bits(model))];
    if ((!model->matching || model->match_len < MATCH_MIN) && *entry != model->place &&
        !(model->matching && *entry == model->match_place)) {
        uint32_t len = common_length(model, *entry);
        if (len >= MATCH_MIN) {
            model->matching = true;
            model->match_place = *entry;
            model->match_len = len;
            model->misses = 0;
        }
    }
    *entry = model->place;
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

/* What stays the same for all bits of a byte, and where its parts are. */
typedef struct byte_pass {
    bspi_encoder *encoder; /* encoding; neither: learning */
    bspi_decoder *decoder; /* decoding */
    uint32_t selector;
    uint32_t hashes[BSPI_BYTE_CONTEXTS + 1];
    line *lines[BSPI_BYTE_CONTEXTS + 1];
    uint32_t expected;     /* the foretold byte plus 256, 0 once it failed */
    uint32_t match_class;
    uint32_t refine_hash;
} byte_pass;

/* Finds the line of each context for the nibble that starts after `partial`,
 * or makes room for it in place of the least used of three neighbours. */
static void find_lines(bspi_byte_model *model, byte_pass *pass, uint32_t partial) {
    uint32_t slots = model->slots;
    uint32_t hashes[BSPI_BYTE_CONTEXTS + 1];
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t bits = i + 1 < slots ? model->options.table_bits : model->expected_bits;
        uint32_t hash = pass->hashes[i];
        if (partial != 1)
            hash = scramble(hash + partial * UINT32_C(0x2545F491));
        hash ^= hash >> 13;
        hashes[i] = hash;
        pass->lines[i] = model->tables[i] + (hash >> (32 - bits));
        PREFETCH(pass->lines[i]);
    }
    for (uint32_t i = 0; i < slots; i++) {
        size_t at = (size_t)(pass->lines[i] - model->tables[i]);
        uint8_t check = (uint8_t)hashes[i];
        line *best = NULL;
        for (unsigned n = 0; n < 3; n++) {
            line *candidate = model->tables[i] + (at ^ n);
            if (candidate->check == check) {
                best = candidate;
                break;
            }
        }
        if (best == NULL) {
            unsigned least = 256;
            for (unsigned n = 0; n < 3; n++) {
                line *candidate = model->tables[i] + (at ^ n);
                unsigned used = model->histories.total[candidate->states[0]];
                if (used < least) {
                    least = used;
                    best = candidate;
                }
            }
            memset(best, 0, sizeof *best);
            best->check = check;
        }
        pass->lines[i] = best;
    }
}

/* One bit of one refinement curve: its opinion, and the cell to teach. */
static inline uint32_t refine(bspi_adaptive *curve, int32_t x, bspi_adaptive **cell) {
    uint32_t at = (uint32_t)(x + BSPI_STRETCH_MAX);
    uint32_t knot = at >> 7, part = at & 127;
    *cell = &curve[knot + (part >= 64)];
    return ((curve[knot] >> 16) * (128 - part) + (curve[knot + 1] >> 16) * part) >> 7;
}

static unsigned code_bit(bspi_byte_model *model, byte_pass *pass, uint32_t partial,
                         uint32_t node, unsigned place, unsigned bit) {
    uint32_t slots = model->slots;
    const bspi_logistic *logistic = &model->logistic;
    int32_t inputs[INPUTS] = {0};
    uint8_t *states[BSPI_BYTE_CONTEXTS + 1];
    uint32_t known = 0;
    for (uint32_t i = 0; i < slots; i++) {
        states[i] = &pass->lines[i]->states[node];
        if (*states[i] != 0) {
            inputs[i] = bspi_stretch(logistic, model->maps[i][*states[i]] >> 16);
            known++;
        }
    }
    unsigned match_kind = 0, expected_bit = 0;
    if (pass->expected >> (8 - place) == partial) {
        expected_bit = pass->expected >> (7 - place) & 1;
        int32_t x = bspi_stretch(logistic, model->match_map[pass->match_class] >> 16);
        inputs[slots] = expected_bit ? x : -x;
        match_kind = model->match_len < MATCH_LONG ? 1 : 2;
    } else {
        pass->expected = 0;
    }
    inputs[slots + 1] = BIAS;

    int32_t *weights = model->weights + INPUTS * ((pass->selector * (slots + 1) + known) * 3 +
                                                  match_kind);
    int32_t sum = 0;
    for (unsigned i = 0; i < INPUTS; i++)
        sum += inputs[i] * weights[i];
    int32_t x = bspi_shift_down(sum, 16);
    x = BSPI_MAX(BSPI_MIN(x, BSPI_STRETCH_MAX), -BSPI_STRETCH_MAX);
    uint32_t mixed = bspi_squash(logistic, x);

    bspi_adaptive *cells[2];
    uint32_t curve = (pass->selector * 2 + (match_kind == 2)) * 256 + partial;
    uint32_t hashed = (pass->refine_hash ^ scramble(partial)) >> (32 - model->refine_bits);
    uint32_t p = 2 * mixed + refine(model->refine_selector + curve * REFINE_CELLS, x, &cells[0]);
    p += refine(model->refine_context + hashed * REFINE_CELLS, x, &cells[1]);
    p = BSPI_MAX(BSPI_MIN(p >> 2, 65535), 1);

    if (pass->encoder != NULL)
        bspi_encoder_bit(pass->encoder, (uint16_t)p, bit);
    else if (pass->decoder != NULL)
        bit = bspi_decoder_bit(pass->decoder, (uint16_t)p);

    int32_t error = (int32_t)(bit << 16) - (int32_t)mixed;
    unsigned shift = model->coded < FAST_UNTIL ? 14 : model->coded < BRISK_UNTIL ? 15 : 16;
    for (unsigned i = 0; i < INPUTS; i++) {
        int32_t step = bspi_shift_down(inputs[i] * error + (1 << (shift - 1)), shift);
        weights[i] = BSPI_MAX(BSPI_MIN(weights[i] + step, WEIGHT_MAX), -WEIGHT_MAX);
    }
    for (uint32_t i = 0; i < slots; i++) {
        bspi_adapt(&model->maps[i][*states[i]], bit, MAP_LIMIT);
        *states[i] = model->histories.next[*states[i]][bit];
    }
    if (match_kind != 0)
        bspi_adapt(&model->match_map[pass->match_class], bit == expected_bit, MAP_LIMIT);
    bspi_adapt(cells[0], bit, REFINE_LIMIT);
    bspi_adapt(cells[1], bit, REFINE_LIMIT);
    return bit;
}

static uint8_t code_byte(bspi_byte_model *model, byte_pass *pass, const uint32_t *contexts,
                         uint32_t selector, uint8_t byte) {
    uint32_t count = model->options.contexts;
    pass->selector = BSPI_MIN(selector, model->options.selectors - 1);
    pass->expected = 0;
    pass->match_class = 0;
    uint32_t foretold = 0x10000u | (uint32_t)(model->recent & 255);
    if (model->matching) {
        uint32_t len = model->match_len;
        pass->expected = 256u + model->past[model->match_place];
        pass->match_class = match_class(model);
        foretold = pass->expected << 4 | (len < 16 ? len >> 1 : len < 32 ? 8 : 9);
    }
    foretold |= pass->selector << 20;
    for (uint32_t i = 0; i <= count; i++) {
        uint32_t context = i < count ? contexts[i] : foretold;
        uint32_t hash = scramble(context + i * UINT32_C(0x3D4D51CB));
        pass->hashes[i] = hash ^ hash >> 15;
    }
    pass->refine_hash = scramble(pass->hashes[BSPI_MIN(REFINE_CONTEXT, count - 1)]);

    uint32_t partial = 1;
    for (unsigned place = 0; place < 8; place++) {
        if (place == 0 || place == 4)
            find_lines(model, pass, partial);
        uint32_t first = 1u << (place & 3); /* node of this depth in the nibble's tree */
        uint32_t node = (first | (partial & (first - 1))) - 1;
        unsigned bit = code_bit(model, pass, partial, node, place, byte >> (7 - place) & 1);
        partial = partial << 1 | bit;
    }
    byte = (uint8_t)partial;
    model->coded++;
    model->recent = model->recent << 8 | byte;
    if (model->options.match_bits != 0)
        advance_match(model, byte);
    return byte;
}

void bspi_byte_encode(bspi_byte_model *model, bspi_encoder *encoder, const uint32_t *contexts,
                      uint32_t selector, uint8_t byte) {
    byte_pass pass = {.encoder = encoder};
    code_byte(model, &pass, contexts, selector, byte);
}

uint8_t bspi_byte_decode(bspi_byte_model *model, bspi_decoder *decoder, const uint32_t *contexts,
                         uint32_t selector) {
    byte_pass pass = {.decoder = decoder};
    return code_byte(model, &pass, contexts, selector, 0);
}

void bspi_byte_train(bspi_byte_model *model, const uint32_t *contexts, uint32_t selector,
                     uint8_t byte) {
    byte_pass pass = {.encoder = NULL};
    code_byte(model, &pass, contexts, selector, byte);
}
