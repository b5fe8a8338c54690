/* cover.h: which runs of the new file resemble which runs of the old one. */
#ifndef BSPI_COVER_H
#define BSPI_COVER_H

#include "../common/memory.h"

/* new[new_off, new_off + len) resembles old[old_off, old_off + len). */
typedef struct bspi_cover {
    uint64_t new_off;
    uint64_t old_off;
    uint64_t len;
} bspi_cover;

/* Sorted by new_off; entries are disjoint in the new file, len > 0. */
typedef struct bspi_cover_list {
    bspi_heap *heap;
    bspi_cover *items;
    size_t count;
    size_t capacity;
} bspi_cover_list;

static inline bool bspi_cover_push(bspi_cover_list *list, bspi_cover cover) {
    if (!BSPI_ENSURE(list->items, list->count, list->capacity, list->heap))
        return false;
    list->items[list->count++] = cover;
    return true;
}

static inline void bspi_cover_free(bspi_cover_list *list) {
    bspi_free(list->heap, list->items);
    list->items = NULL;
    list->count = list->capacity = 0;
}

/* Index of the first entry that ends behind new_off (count when none does). */
static inline size_t bspi_cover_find(const bspi_cover *items, size_t count, uint64_t new_off) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (items[middle].new_off + items[middle].len <= new_off)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#endif
