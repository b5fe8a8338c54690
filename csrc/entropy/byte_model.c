/* byte_model.c: coding of bytes, bit by bit, by logistic mixing of contexts. */
#include "byte_model.h"

#include <string.h>

#include "bit_history.h"

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)0)
#define ALWAYS_INLINE inline
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
/* An entry of the index: a place in the ring, and above it other bits of the hash. */
#define PLACE_BITS 24u
#define CHECK_BITS 8u
#define INDEX_BITS_MOST 22u
#define MATCH_CLASSES 288u /* 32 lengths times 9 records of misses */

/* The histories of the 15 partial nibbles of one context. */
typedef struct line {
    uint8_t check;
    uint8_t states[15];
} line;

/* What a pass does with a bit. */
typedef enum pass_mode { LEARN, ENCODE, DECODE } pass_mode;

typedef struct byte_pass byte_pass;
typedef uint32_t code_byte_bits(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                uint8_t byte);

struct bspi_byte_model {
    bspi_heap *heap;
    code_byte_bits *code_bits; /* the best way of this processor */
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
    uint32_t *index;         /* hash of the last bytes -> place in the ring, check bits */
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

static code_byte_bits *best_way(void);

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
    model->code_bits = best_way();
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

/* Whether the bytes before an entry's place may agree with the last ones: looking at them
 * costs a cache miss.  Only what was never overwritten is sure to be what was hashed. */
static inline bool worth_a_look(const bspi_byte_model *model, uint32_t had, uint32_t check) {
    bool as_hashed = had != 0 && model->coded <= ring_mask(model);
    return !as_hashed || (had ^ check) >> PLACE_BITS == 0;
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
    uint64_t hash = last_six * UINT64_C(0x9E3779B97F4A7C15);
    uint32_t *entry = &model->index[hash >> (64 - index_bits(model))];
    uint32_t check = (uint32_t)(hash >> (64 - INDEX_BITS_MOST - CHECK_BITS)) << PLACE_BITS;
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

/* What stays the same for all bits of a byte, and where its parts are. */
struct byte_pass {
    bspi_encoder *encoder; /* encoding; neither: learning */
    bspi_decoder *decoder; /* decoding */
    uint32_t selector;
    uint32_t hashes[BSPI_BYTE_CONTEXTS + 1];
    line *lines[BSPI_BYTE_CONTEXTS + 1];
    uint32_t expected;     /* the foretold byte plus 256, 0 once it failed */
    uint32_t match_class;
    uint32_t refine_hash;
    unsigned shift;        /* of the mixer's steps */
};

/* Where the line of a context is for the nibble that starts after `partial`. */
static ALWAYS_INLINE line *line_at(const bspi_byte_model *model, const byte_pass *pass,
                                   uint32_t slots, uint32_t i, uint32_t partial, uint32_t *hashed) {
    uint32_t bits = i + 1 < slots ? model->options.table_bits : model->expected_bits;
    uint32_t hash = pass->hashes[i];
    if (partial != 1)
        hash = scramble(hash + partial * UINT32_C(0x2545F491));
    hash ^= hash >> 13;
    *hashed = hash;
    return model->tables[i] + (hash >> (32 - bits));
}

/* Finds the line of each context for the nibble that starts after `partial`,
 * or makes room for it in place of the least used of three neighbours. */
static ALWAYS_INLINE void find_lines(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                                     uint32_t partial) {
    uint32_t hashes[BSPI_BYTE_CONTEXTS + 1];
    for (uint32_t i = 0; i < slots; i++) {
        pass->lines[i] = line_at(model, pass, slots, i, partial, &hashes[i]);
        PREFETCH(pass->lines[i]);
    }
    for (uint32_t i = 0; i < slots; i++) {
        size_t at = (size_t)(pass->lines[i] - model->tables[i]);
        uint8_t check = (uint8_t)hashes[i];
        line *table = model->tables[i];
        /* Which of the three it is cannot be foreseen: no branch. */
        bool first = table[at].check == check, second = table[at ^ 1].check == check;
        bool third = table[at ^ 2].check == check;
        line *best = &table[at ^ (first ? 0u : second ? 1u : 2u)];
        if (!(first | second | third)) {
            unsigned least = 256;
            for (unsigned n = 0; n < 3; n++) {
                line *candidate = &table[at ^ n];
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

/* `slots` and `mode` are constants wherever this is compiled into. */
static ALWAYS_INLINE unsigned code_bit(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                                       pass_mode mode, uint32_t partial, uint32_t node,
                                       unsigned place, unsigned bit) {
    const bspi_logistic *logistic = &model->logistic;
    uint32_t hashed = (pass->refine_hash ^ scramble(partial)) >> (32 - model->refine_bits);
    bspi_adaptive *context_curve = model->refine_context + hashed * REFINE_CELLS;
    bspi_adaptive *selector_curve =
        model->refine_selector + (pass->selector * 512 + partial) * REFINE_CELLS;
    PREFETCH(context_curve);
    PREFETCH(context_curve + REFINE_CELLS - 1);
    PREFETCH(selector_curve);
    PREFETCH(selector_curve + REFINE_CELLS - 1);
    int32_t inputs[INPUTS] = {0};
    uint8_t *states[BSPI_BYTE_CONTEXTS + 1];
    uint8_t histories[BSPI_BYTE_CONTEXTS + 1];
    uint32_t known = 0;
    for (uint32_t i = 0; i < slots; i++) {
        states[i] = &pass->lines[i]->states[node];
        uint32_t history = histories[i] = *states[i];
        int32_t says = bspi_stretch(logistic, model->maps[i][history] >> 16);
        inputs[i] = says & -(int32_t)(history != 0);
        known += history != 0;
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
    selector_curve += (match_kind == 2 ? 256 : 0) * REFINE_CELLS;
    uint32_t p = 2 * mixed + refine(selector_curve, x, &cells[0]);
    p += refine(context_curve, x, &cells[1]);
    p = BSPI_MAX(BSPI_MIN(p >> 2, 65535), 1);

    if (mode == ENCODE)
        bspi_encoder_bit(pass->encoder, (uint16_t)p, bit);
    else if (mode == DECODE)
        bit = bspi_decoder_bit_inline(pass->decoder, (uint16_t)p);

    int32_t error = (int32_t)(bit << 16) - (int32_t)mixed;
    unsigned shift = pass->shift;
    for (unsigned i = 0; i < INPUTS; i++) {
        int32_t step = bspi_shift_down(inputs[i] * error + (1 << (shift - 1)), shift);
        weights[i] = BSPI_MAX(BSPI_MIN(weights[i] + step, WEIGHT_MAX), -WEIGHT_MAX);
    }
    for (uint32_t i = 0; i < slots; i++) {
        bspi_adapt(&model->maps[i][histories[i]], bit, MAP_LIMIT);
        *states[i] = model->histories.next[histories[i]][bit];
    }
    if (match_kind != 0)
        bspi_adapt(&model->match_map[pass->match_class], bit == expected_bit, MAP_LIMIT);
    bspi_adapt(cells[0], bit, REFINE_LIMIT);
    bspi_adapt(cells[1], bit, REFINE_LIMIT);
    return bit;
}

/* With three bits of the first nibble known there are two ways to go on.  The lines
 * of both are fetched while the fourth is coded. */
static ALWAYS_INLINE void fetch_lines(const bspi_byte_model *model, const byte_pass *pass,
                                      uint32_t slots, uint32_t partial) {
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t unused;
        PREFETCH(line_at(model, pass, slots, i, partial * 2, &unused));
        PREFETCH(line_at(model, pass, slots, i, partial * 2 + 1, &unused));
    }
}

static ALWAYS_INLINE uint32_t code_bits(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                                        pass_mode mode, uint8_t byte) {
    uint32_t partial = 1;
    for (unsigned place = 0; place < 8; place++) {
        if (place == 0 || place == 4)
            find_lines(model, pass, slots, partial);
        if (place == 3)
            fetch_lines(model, pass, slots, partial);
        uint32_t first = 1u << (place & 3); /* node of this depth in the nibble's tree */
        uint32_t node = (first | (partial & (first - 1))) - 1;
        unsigned bit = code_bit(model, pass, slots, mode, partial, node, place,
                                byte >> (7 - place) & 1);
        partial = partial << 1 | bit;
    }
    return partial;
}

/* The bits of a byte, for the numbers of contexts that matter most and for all
 * others; once more where a processor has wider vectors.  All say the same. */
static ALWAYS_INLINE uint32_t code_any(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                       uint8_t byte) {
    if (model->slots == 9)
        return code_bits(model, pass, 9, mode, byte);
    if (model->slots == 7)
        return code_bits(model, pass, 7, mode, byte);
    return code_bits(model, pass, model->slots, mode, byte);
}

static uint32_t code_plainly(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                uint8_t byte) {
    return mode == DECODE   ? code_any(model, pass, DECODE, byte)
           : mode == ENCODE ? code_any(model, pass, ENCODE, byte)
                            : code_any(model, pass, LEARN, byte);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,bmi,bmi2"))) static uint32_t
code_avx2(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                uint8_t byte) {
    return mode == DECODE   ? code_any(model, pass, DECODE, byte)
           : mode == ENCODE ? code_any(model, pass, ENCODE, byte)
                            : code_any(model, pass, LEARN, byte);
}

static code_byte_bits *best_way(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? code_avx2
                                                                            : code_plainly;
}
#else
static code_byte_bits *best_way(void) {
    return code_plainly;
}
#endif

static uint8_t code_byte(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                         const uint32_t *contexts, uint32_t selector, uint8_t byte) {
    uint32_t count = model->options.contexts;
    pass->selector = BSPI_MIN(selector, model->options.selectors - 1);
    pass->expected = 0;
    pass->match_class = 0;
    pass->shift = model->coded < FAST_UNTIL ? 14 : model->coded < BRISK_UNTIL ? 15 : 16;
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

    byte = (uint8_t)model->code_bits(model, pass, mode, byte);
    model->coded++;
    model->recent = model->recent << 8 | byte;
    if (model->options.match_bits != 0)
        advance_match(model, byte);
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
