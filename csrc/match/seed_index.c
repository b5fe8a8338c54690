/* seed_index.c: a hash index of sampled positions of the old file. */
#include "../common/bytes.h"
#include "match.h"

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH(address) ((void)0)
#endif

/* Positions whose heads are fetched together. */
#define BATCH 32u

uint64_t bspi_seed_hash(const uint8_t *bytes, unsigned window) {
    uint64_t hash = window;
    unsigned at = 0;
    for (; at + 8 <= window; at += 8) {
        hash = (hash ^ bspi_load64(bytes + at)) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    if (at + 4 <= window) {
        hash = (hash ^ bspi_load32(bytes + at)) * UINT64_C(0xD6E8FEB86659FD93);
        hash ^= hash >> 32;
        at += 4;
    }
    for (; at < window; at++)
        hash = (hash ^ bytes[at]) * UINT64_C(0x100000001B3);
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 32;
}

static uint64_t entries(uint64_t span, unsigned window, unsigned stride) {
    uint64_t count = span >= window ? (span - window) / stride + 1 : 0;
    /* What lies behind the last entry is found by extension only. */
    return count >= UINT32_MAX ? UINT32_MAX - 1 : count;
}

static unsigned head_bits(uint64_t count) {
    unsigned bits = 4;
    while (bits < 30 && (UINT64_C(1) << bits) < count + count / 4)
        bits++;
    return bits;
}

uint64_t bspi_seed_index_bytes(uint64_t span, unsigned window, unsigned stride) {
    uint64_t count = entries(span, window, stride);
    return ((UINT64_C(1) << head_bits(count)) + count + 1) * sizeof(uint32_t);
}

/* Enters all positions from `first` on, the last one first, so that chains run from low
 * positions to high ones.  Heads lie anywhere in memory: while one batch is entered, those
 * of the next are on their way. */
static void fill(bspi_seed_index *index, const uint8_t *first) {
    uint64_t hashes[2][BATCH];
    uint64_t previous = 0;
    size_t left = index->entry_count, fetched = left;
    size_t ready = 0; /* hashes of the batch to be entered */
    unsigned turn = 0;
    do {
        uint64_t *ahead = hashes[turn ^ 1];
        size_t coming = BSPI_MIN(fetched, (size_t)BATCH);
        for (size_t i = 0; i < coming; i++) {
            fetched--;
            ahead[i] = bspi_seed_hash(first + (uint64_t)fetched * index->stride, index->window);
            PREFETCH(&index->heads[ahead[i] >> (64 - index->bits)]);
        }
        for (size_t i = 0; i < ready; i++) {
            left--;
            uint64_t hash = hashes[turn][i];
            uint32_t *head = &index->heads[hash >> (64 - index->bits)];
            /* In a run of one pattern the first position stands for all. */
            bool run = hash == previous && *head == (uint32_t)left + 2;
            index->next[left] = run ? index->next[left + 1] : *head;
            *head = (uint32_t)left + 1;
            previous = hash;
        }
        ready = coming;
        turn ^= 1;
    } while (ready != 0);
}

bool bspi_seed_index_build(bspi_seed_index *index, bspi_heap *heap, const uint8_t *old,
                           uint64_t begin, uint64_t end, unsigned window, unsigned stride) {
    index->heap = heap;
    index->old = old;
    index->old_size = end;
    index->base = begin;
    index->window = window;
    index->stride = stride;
    index->heads = NULL;
    index->next = NULL;
    index->entry_count = 0;
    uint64_t count = entries(end > begin ? end - begin : 0, window, stride);
    index->bits = head_bits(count);
    index->heads = bspi_alloc(heap, (size_t)1 << index->bits, sizeof *index->heads, true);
    index->next = bspi_alloc(heap, (size_t)count + 1, sizeof *index->next, false);
    if (index->heads == NULL || index->next == NULL) {
        bspi_seed_index_free(index);
        return false;
    }
    index->entry_count = (size_t)count;
    bspi_large_pages(index->heads, sizeof *index->heads << index->bits);
    bspi_large_pages(index->next, (size_t)count * sizeof *index->next);
    fill(index, old + begin);
    return true;
}

void bspi_seed_index_free(bspi_seed_index *index) {
    if (index->heap == NULL)
        return;
    bspi_free(index->heap, index->heads);
    bspi_free(index->heap, index->next);
    index->heads = NULL;
    index->next = NULL;
    index->entry_count = 0;
}
