/* byte_bits.h: what the byte model keeps, and what all ways of coding a byte's bits share.
 *
 * Private to the byte model.  The portable way is the oracle: the others must code the
 * same bits and leave the same state behind.
 */
#ifndef BSPI_BYTE_BITS_H
#define BSPI_BYTE_BITS_H

#include <string.h>

#include "bit_history.h"
#include "byte_model.h"

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
#define WEIGHT_MAX 131071 /* so that the mixer's sum stays within 32 bits */

#define REFINE_CELLS 24u /* knots of a refinement curve, 128 stretched units apart */
#define REFINE_LIMIT 127u
#define MAP_LIMIT 255u
/* Stands in a map for the history of which nothing is known; no estimate comes so far. */
#define NOTHING UINT32_MAX

#define MATCH_LONG 16u
#define MATCH_CLASSES 288u /* 32 lengths times 9 records of misses */

/* The histories of the 15 partial nibbles of one context. */
typedef struct line {
    uint8_t check;
    uint8_t states[15];
} line;

/* What a pass does with a bit. */
typedef enum pass_mode { LEARN, ENCODE, DECODE } pass_mode;

typedef struct byte_pass byte_pass;

/* Codes the eight bits of a byte; gives them below a 1. */
typedef uint32_t bspi_byte_bits(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                uint8_t byte);

bspi_byte_bits bspi_byte_bits_plainly;
/* NULL where the processor has no such vectors. */
bspi_byte_bits *bspi_byte_bits_avx2(void);
bspi_byte_bits *bspi_byte_bits_neon(void);

struct bspi_byte_model {
    bspi_heap *heap;
    bspi_byte_bits *code_bits; /* the best way of this processor */
    bspi_byte_options options;
    uint32_t slots;          /* contexts + 1 */
    uint32_t expected_bits;  /* lines of the foretold byte's table, log2 */
    uint32_t refine_bits;    /* curves of the second refinement, log2 */
    bspi_logistic logistic;
    bspi_histories histories;
    uint32_t rates[256];     /* bspi_rates, for vectors */
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

static inline uint32_t scramble(uint32_t hash) {
    return hash * UINT32_C(0x9E3779B1);
}

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

/* What comes before the bit at `place`: the lines of its nibble.  Gives its node there. */
static ALWAYS_INLINE uint32_t node_at(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                                      unsigned place, uint32_t partial) {
    if (place == 0 || place == 4)
        find_lines(model, pass, slots, partial);
    if (place == 3)
        fetch_lines(model, pass, slots, partial);
    uint32_t first = 1u << (place & 3); /* node of this depth in the nibble's tree */
    return (first | (partial & (first - 1))) - 1;
}

/* The curves that refine what is mixed for the next bit: by context, and by selector, of
 * which there are two, the second for long matches. */
static ALWAYS_INLINE bspi_adaptive *context_curve_at(const bspi_byte_model *model,
                                                     const byte_pass *pass, uint32_t partial) {
    uint32_t hashed = (pass->refine_hash ^ scramble(partial)) >> (32 - model->refine_bits);
    bspi_adaptive *curve = model->refine_context + hashed * REFINE_CELLS;
    PREFETCH(curve);
    PREFETCH(curve + REFINE_CELLS - 1);
    return curve;
}

static ALWAYS_INLINE bspi_adaptive *selector_curve_at(const bspi_byte_model *model,
                                                      const byte_pass *pass, uint32_t partial) {
    bspi_adaptive *curve =
        model->refine_selector + (pass->selector * 512 + partial) * REFINE_CELLS;
    PREFETCH(curve);
    PREFETCH(curve + REFINE_CELLS - 1);
    return curve;
}

#endif
