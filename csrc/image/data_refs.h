/* data_refs.h: the references that the tables of one image name, packed.
 *
 * A large framework has millions of them, which stay in memory for as long as the
 * old file is worked with; most are one to 254 bytes behind the one before and
 * alike.  As 64-bit keys they would take eight bytes each, packed they take one or
 * two.
 *
 * A key is the field's offset << 28 | kind << 22 | aux, where aux is the index into
 * the image's bases for kinds that count from a base, else 0; kind and aux together
 * are its code.  Keys ascend and fields are disjoint.  They are cut into blocks of
 * 64, of which each can be read on its own: `blocks` has its first key, and `steps`
 * how each of the others follows from the key before:
 *
 *   n, 1 to 254   n bytes further, the same code
 *   255, n        n bytes further, the code that came before the present one in this
 *                 block: tables of two columns take turns with theirs
 *   0, key        anything else: the key, lowest byte first
 *
 * BSPI_DATA_NONE comes last and is not counted.
 */
#ifndef BSPI_DATA_REFS_H
#define BSPI_DATA_REFS_H

#include "../common/bytes.h"
#include "../common/memory.h"

#define BSPI_DATA_KIND_BITS 6u
#define BSPI_DATA_AUX_BITS 22u
#define BSPI_DATA_CODE_BITS (BSPI_DATA_KIND_BITS + BSPI_DATA_AUX_BITS)
#define BSPI_DATA_OFF_BITS 36u /* the largest file has 64 GiB */
#define BSPI_DATA_NONE UINT64_MAX /* the key of no reference: no kind has that number */

static inline uint64_t bspi_data_off(uint64_t key) {
    return key >> BSPI_DATA_CODE_BITS;
}

static inline uint8_t bspi_data_kind(uint64_t key) {
    return (uint8_t)(key >> BSPI_DATA_AUX_BITS & ((1u << BSPI_DATA_KIND_BITS) - 1));
}

static inline uint32_t bspi_data_aux(uint64_t key) {
    return (uint32_t)(key & ((1u << BSPI_DATA_AUX_BITS) - 1));
}

static inline uint32_t bspi_data_code(uint64_t key) {
    return (uint32_t)(key & ((1u << BSPI_DATA_CODE_BITS) - 1));
}

#define BSPI_DATA_BLOCK 64u
#define BSPI_DATA_FAR 0u   /* a key follows */
#define BSPI_DATA_BACK 255u /* to the code before; how many bytes further follows */

typedef struct bspi_data_block {
    uint64_t key; /* of its first reference */
    uint64_t pos; /* where the steps to the others begin */
} bspi_data_block;

typedef struct bspi_data_refs {
    bspi_data_block *blocks; /* none when there are no references */
    uint8_t *steps;
    size_t count;
} bspi_data_refs;

/* Packs `count` keys, which may be in any order and have to lie in a block of
 * `heap`.  Of fields that overlap, the first in order of keys is kept (lowest
 * offset, then lowest kind); those of unknown kind and those that do not lie within
 * [begin, end) are dropped.  Keys are left in any order.  `refs` is zeroed before;
 * false when memory is refused, when it has to be freed all the same. */
bool bspi_data_refs_pack(bspi_heap *heap, uint64_t *keys, size_t count, uint64_t begin,
                         uint64_t end, bspi_data_refs *refs);
void bspi_data_refs_free(bspi_heap *heap, bspi_data_refs *refs);

/* A place among the references. */
typedef struct bspi_data_cursor {
    const bspi_data_refs *refs;
    const uint8_t *step; /* the next of this block */
    uint64_t key;        /* of the reference here; BSPI_DATA_NONE behind the last */
    uint64_t before;     /* key of the one before; BSPI_DATA_NONE at the first */
    size_t index;
    uint32_t other;      /* the code before that of `key` */
} bspi_data_cursor;

/* The first reference at or behind `off`.  O(log n). */
bspi_data_cursor bspi_data_find(const bspi_data_refs *refs, uint64_t off);

/* Whether there is a reference at the cursor, before `off`. */
static inline bool bspi_data_is_before(const bspi_data_cursor *at, uint64_t off) {
    return bspi_data_off(at->key) < off && at->key != BSPI_DATA_NONE;
}

/* Goes on to the next reference; not to be asked for behind the last. */
static inline void bspi_data_next(bspi_data_cursor *at) {
    uint64_t key = at->before = at->key;
    if (++at->index % BSPI_DATA_BLOCK == 0) {
        const bspi_data_block *block = &at->refs->blocks[at->index / BSPI_DATA_BLOCK];
        at->key = block->key;
        at->other = bspi_data_code(block->key);
        return;
    }
    uint64_t step = *at->step++;
    if (step != BSPI_DATA_FAR && step != BSPI_DATA_BACK) {
        at->key = key + (step << BSPI_DATA_CODE_BITS);
        return;
    }
    if (step == BSPI_DATA_FAR) {
        at->key = bspi_load64(at->step);
        at->step += 8;
    } else {
        at->key = (bspi_data_off(key) + *at->step++) << BSPI_DATA_CODE_BITS | at->other;
    }
    at->other = bspi_data_code(key);
}

#endif
