/* match.h: "what of the old file is in the new one?"
 *
 * The matcher works on bytes and knows nothing of executables: it is handed
 * normalised views of both files (normalise.h), in which address fields have
 * been replaced by labels.  Its work is split into fixed pieces of the new
 * file, so that the result does not depend on the number of threads.
 */
#ifndef BSPI_MATCH_H
#define BSPI_MATCH_H

#include "cover.h"

typedef struct bspi_match_options {
    unsigned jobs;
    unsigned effort; /* 0 quick, 1 normal, 2 thorough */
} bspi_match_options;

/* Finds a cover of new by old. `cover` must be empty with its heap set. */
bsp_status bspi_match(bspi_heap *heap, const uint8_t *old, uint64_t old_size, const uint8_t *new_,
                      uint64_t new_size, const bspi_match_options *options, bsp_control *control,
                      bspi_cover_list *cover, bsp_fault *fault);

/* --- parts, used by match.c --- */

/* Length of the common prefix, at most max. */
uint64_t bspi_common_prefix(const uint8_t *a, const uint8_t *b, uint64_t max);
/* Length of the common suffix of the bytes that end before a and b. */
uint64_t bspi_common_suffix(const uint8_t *a, const uint8_t *b, uint64_t max);
/* Extends over mismatches as long as it pays: a match earns, a mismatch costs
 * more.  Returns the length in front of (or behind) the pointers that scores
 * best; 0 when nothing does. */
uint64_t bspi_extend_forward(const uint8_t *old, const uint8_t *new_, uint64_t max);
uint64_t bspi_extend_backward(const uint8_t *old, const uint8_t *new_, uint64_t max);

/* Positions of the old file by the hash of `window` bytes that begin there,
 * one position in every `stride`. */
typedef struct bspi_seed_index {
    bspi_heap *heap;
    const uint8_t *old;
    uint64_t old_size;
    uint64_t base; /* indexed part: positions base + i * stride */
    unsigned window;
    unsigned stride;
    unsigned bits;
    uint32_t *heads; /* 1-based entry numbers by hash, 0 for none */
    uint32_t *next;
    size_t entry_count;
} bspi_seed_index;

bool bspi_seed_index_build(bspi_seed_index *index, bspi_heap *heap, const uint8_t *old,
                           uint64_t begin, uint64_t end, unsigned window, unsigned stride);
/* The bytes that indexing `span` bytes takes. */
uint64_t bspi_seed_index_bytes(uint64_t span, unsigned window, unsigned stride);
void bspi_seed_index_free(bspi_seed_index *index);
uint64_t bspi_seed_hash(const uint8_t *bytes, unsigned window);

/* Searches the gaps of `cover` again, each against the old bytes around its
 * neighbours, with short seeds. */
bsp_status bspi_refine_gaps(bspi_heap *heap, const uint8_t *old, uint64_t old_size,
                            const uint8_t *new_, uint64_t new_size, unsigned jobs,
                            bsp_control *control, bspi_cover_list *cover, bsp_fault *fault);

/* A search for new[begin, end) in old[low, high), with short seeds.  `shift` is old - new of
 * the diagonal that is expected, modulo 2^64. */
typedef struct bspi_near_search {
    const uint8_t *old;
    const uint8_t *new_;
    uint64_t old_size;
    uint64_t begin, end;
    uint64_t low, high;
    uint64_t shift;
} bspi_near_search;

/* Appends what it finds, in order.  False when memory is short. */
bool bspi_search_near(const bspi_near_search *search, bspi_cover_list *found);

/* Replaces rows of entries that lead away from one place and back to it by what lies there,
 * where that is cheaper.  BSP_OK, BSP_E_NOMEM or BSP_E_CANCELLED; the cover stays as it was
 * when it fails. */
bsp_status bspi_straighten_cover(bspi_heap *heap, const uint8_t *old, uint64_t old_size,
                                 const uint8_t *new_, uint64_t new_size, bsp_control *control,
                                 bspi_cover_list *cover);

/* Moves the borders between neighbours to where most bytes agree and joins
 * what lies on one diagonal. */
void bspi_polish_cover(const uint8_t *old, const uint8_t *new_, bspi_cover_list *cover);

/* What models charge, in eighths of a byte, for telling bytes and for an entry that leaves
 * its neighbour's diagonal. */
typedef struct bspi_prices {
    uint64_t literal;
    uint64_t far;
} bspi_prices;

/* The prices that a cover's uncovered bytes suggest. */
bspi_prices bspi_prices_of(const uint8_t *new_, uint64_t new_size, const bspi_cover_list *cover);
/* The price of correcting new[0, len) against old[0, len). */
uint64_t bspi_fix_price(const uint8_t *old, const uint8_t *new_, uint64_t len);
/* The price of new[begin, end) by `cover`, whose entries all lie in it. */
uint64_t bspi_price_cover(const uint8_t *old, const uint8_t *new_, uint64_t begin, uint64_t end,
                          const bspi_cover_list *cover, const bspi_prices *price);

/* Joins neighbours on one diagonal where correcting the gap is cheaper, and
 * drops entries that cost more than they save. */
void bspi_prune_cover(const uint8_t *old, const uint8_t *new_, uint64_t new_size,
                      bspi_cover_list *cover);

#endif
