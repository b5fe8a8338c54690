/* data_refs.c: puts the references of an image's tables in order and packs them. */
#include "data_refs.h"

#include "ref.h"
#include "sort.h"

/* A table gives ascending keys, so that they come as a few long runs, which are
 * merged.  More than this many are sorted first. */
#define RUNS_MOST 8u

/* --- sorting --- */

static bool key_less(void *items, size_t a, size_t b) {
    const uint64_t *keys = items;
    return keys[a] < keys[b];
}

static void key_swap(void *items, size_t a, size_t b) {
    uint64_t *keys = items;
    uint64_t kept = keys[a];
    keys[a] = keys[b];
    keys[b] = kept;
}

static void insertion_sort(uint64_t *keys, size_t count) {
    for (size_t i = 1; i < count; i++) {
        uint64_t key = keys[i];
        size_t j = i;
        for (; j > 0 && key < keys[j - 1]; j--)
            keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

/* Quick sort that falls back to heap sort when its pivots turn out bad.  What it is
 * given tends to have long sorted runs, which it passes through quickly. */
static void sort_keys(uint64_t *keys, size_t count, unsigned depth) {
    while (count > 24) {
        if (depth-- == 0) {
            bspi_sort(keys, count, key_less, key_swap);
            return;
        }
        size_t first = 0, mid = count / 2, last = count - 1;
        if (keys[mid] < keys[first])
            key_swap(keys, mid, first);
        if (keys[last] < keys[mid]) {
            key_swap(keys, last, mid);
            if (keys[mid] < keys[first])
                key_swap(keys, mid, first);
        }
        uint64_t pivot = keys[mid];
        size_t i = 0, j = last;
        for (;;) {
            while (keys[i] < pivot)
                i++;
            while (keys[j] > pivot)
                j--;
            if (i >= j)
                break;
            key_swap(keys, i++, j--);
        }
        /* [0, j] <= pivot <= [j + 1, count), both shorter than the whole. */
        size_t left = j + 1, right = count - left;
        if (left < right) {
            sort_keys(keys, left, depth);
            keys += left;
            count = right;
        } else {
            sort_keys(keys + left, right, depth);
            count = left;
        }
    }
    insertion_sort(keys, count);
}

/* Keys that ascend, at least one. */
typedef struct run {
    const uint64_t *at;
    const uint64_t *end;
} run;

/* The runs that the keys are made of; 0 when there are too many. */
static size_t find_runs(const uint64_t *keys, size_t count, run *runs) {
    size_t found = 0, begin = 0;
    for (size_t i = 1; i <= count; i++) {
        if (i < count && keys[i - 1] <= keys[i])
            continue;
        if (found == RUNS_MOST)
            return 0;
        runs[found++] = (run){keys + begin, keys + i};
        begin = i;
    }
    return found;
}

/* --- packing --- */

typedef struct packer {
    bspi_data_block *blocks;
    bspi_buffer *steps;
    const uint8_t *size_of; /* bytes of a field, by kind */
    size_t count;
    uint64_t done; /* where the last field ends: the next may begin */
    uint64_t end;
    uint64_t last;  /* key */
    uint32_t other; /* code */
} packer;

#define STEP_MOST 9u /* bytes */

/* Writes how `key` follows from the last one, which is lower; where that ends. */
static inline uint8_t *put_step(packer *p, uint64_t key, uint8_t *to) {
    uint64_t last = p->last, step = bspi_data_off(key) - bspi_data_off(last);
    uint32_t code = bspi_data_code(key);
    p->last = key;
    if (step < BSPI_DATA_BACK && code == bspi_data_code(last)) {
        *to = (uint8_t)step;
        return to + 1;
    }
    bool back = step <= UINT8_MAX && code == p->other;
    p->other = bspi_data_code(last);
    if (back) {
        to[0] = BSPI_DATA_BACK;
        to[1] = (uint8_t)step;
        return to + 2;
    }
    to[0] = BSPI_DATA_FAR;
    bspi_store64(to + 1, key);
    return to + STEP_MOST;
}

/* Packs the sound ones among the keys from `at` on, up to `limit` or `end`, at least
 * one.  Where it stopped; NULL when memory is refused. */
static const uint64_t *put(packer *packing, const uint64_t *at, const uint64_t *end,
                           uint64_t limit) {
    packer p = *packing; /* in registers: what is written might be part of the other */
    bspi_buffer *steps = p.steps;
    uint8_t *to = steps->data + steps->len, *full = steps->data + steps->capacity;
    do {
        uint64_t key = *at++, off = bspi_data_off(key), size = p.size_of[bspi_data_kind(key)];
        if (size == 0 || off < p.done || !bspi_within(off, size, p.end))
            continue;
        p.done = off + size;
        size_t index = p.count++;
        if (index % BSPI_DATA_BLOCK == 0) {
            uint64_t pos = (uint64_t)(to - steps->data);
            p.blocks[index / BSPI_DATA_BLOCK] = (bspi_data_block){key, pos};
            p.last = key;
            p.other = bspi_data_code(key);
            continue;
        }
        if ((size_t)(full - to) < STEP_MOST) {
            steps->len = (size_t)(to - steps->data);
            if (!bspi_buffer_reserve(steps, STEP_MOST))
                return NULL;
            to = steps->data + steps->len;
            full = steps->data + steps->capacity;
        }
        to = put_step(&p, key, to);
    } while (at < end && *at <= limit);
    steps->len = (size_t)(to - steps->data);
    *packing = p;
    return at;
}

static bool put_merged(packer *p, run *runs, size_t count) {
    while (count != 0) {
        /* From the run with the lowest key, until another has a lower one. */
        size_t lowest = 0;
        for (size_t i = 1; i < count; i++)
            if (*runs[i].at < *runs[lowest].at)
                lowest = i;
        uint64_t limit = UINT64_MAX;
        for (size_t i = 0; i < count; i++)
            if (i != lowest && *runs[i].at < limit)
                limit = *runs[i].at;
        run *from = &runs[lowest];
        from->at = put(p, from->at, from->end, limit);
        if (from->at == NULL)
            return false;
        if (from->at == from->end)
            *from = runs[--count];
    }
    return true;
}

static bool put_end(packer *p) {
    if (p->count % BSPI_DATA_BLOCK == 0) {
        p->blocks[p->count / BSPI_DATA_BLOCK] =
            (bspi_data_block){BSPI_DATA_NONE, p->steps->len};
        return true;
    }
    if (!bspi_buffer_reserve(p->steps, STEP_MOST))
        return false;
    put_step(p, BSPI_DATA_NONE, p->steps->data + p->steps->len);
    p->steps->len += STEP_MOST;
    return true;
}

/* Gives back the room that turned out not to be needed. */
static bool trim(bspi_heap *heap, bspi_data_refs *refs, size_t blocks, size_t steps) {
    bspi_data_block *fewer = bspi_grow(heap, refs->blocks, blocks, sizeof *fewer);
    if (fewer == NULL)
        return false;
    refs->blocks = fewer;
    uint8_t *shorter = bspi_grow(heap, refs->steps, steps, 1);
    if (shorter == NULL)
        return false;
    refs->steps = shorter;
    return true;
}

bool bspi_data_refs_pack(bspi_heap *heap, uint64_t *keys, size_t count, uint64_t begin,
                         uint64_t end, bspi_data_refs *refs) {
    if (count == 0)
        return true;
    run runs[RUNS_MOST];
    size_t run_count = find_runs(keys, count, runs);
    if (run_count == 0) {
        sort_keys(keys, count, 64);
        runs[run_count++] = (run){keys, keys + count};
    }
    uint8_t size_of[1u << BSPI_DATA_KIND_BITS];
    for (unsigned kind = 0; kind < sizeof size_of; kind++)
        size_of[kind] = (uint8_t)bspi_ref_size((uint8_t)kind);
    refs->blocks = bspi_alloc(heap, count / BSPI_DATA_BLOCK + 1, sizeof *refs->blocks, false);
    bspi_buffer steps = {.heap = heap};
    packer p = {.blocks = refs->blocks, .steps = &steps, .size_of = size_of, .done = begin,
                .end = end};
    bool ok = refs->blocks != NULL && bspi_buffer_reserve(&steps, count + count / 4) &&
              put_merged(&p, runs, run_count) && put_end(&p);
    refs->steps = steps.data;
    refs->count = p.count;
    return ok && trim(heap, refs, p.count / BSPI_DATA_BLOCK + 1, steps.len);
}

void bspi_data_refs_free(bspi_heap *heap, bspi_data_refs *refs) {
    bspi_free(heap, refs->blocks);
    bspi_free(heap, refs->steps);
    *refs = (bspi_data_refs){0};
}

/* --- looking up --- */

bspi_data_cursor bspi_data_find(const bspi_data_refs *refs, uint64_t off) {
    bspi_data_cursor at = {.refs = refs, .key = BSPI_DATA_NONE, .before = BSPI_DATA_NONE};
    if (refs->count == 0)
        return at;
    /* The last block that begins before off, so that the one before what is looked
     * for comes by; or the first. */
    size_t low = 0, high = (refs->count - 1) / BSPI_DATA_BLOCK;
    while (low < high) {
        size_t middle = high - (high - low) / 2;
        if (bspi_data_off(refs->blocks[middle].key) < off)
            low = middle;
        else
            high = middle - 1;
    }
    const bspi_data_block *block = &refs->blocks[low];
    at.step = refs->steps + block->pos;
    at.key = block->key;
    at.index = low * BSPI_DATA_BLOCK;
    at.other = bspi_data_code(block->key);
    while (bspi_data_is_before(&at, off))
        bspi_data_next(&at);
    return at;
}
