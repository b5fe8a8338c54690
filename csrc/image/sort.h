/* sort.h: an in-place sort with a bounded running time and no memory of its
 * own.  It is not stable: `less` must be a total order of distinct items, or
 * equal items must be indistinguishable. */
#ifndef BSPI_SORT_H
#define BSPI_SORT_H

#include <stdbool.h>
#include <stddef.h>

/* Sorts `count` items that only the two callbacks know how to reach. */
void bspi_sort(void *items, size_t count, bool (*less)(void *items, size_t a, size_t b),
               void (*swap)(void *items, size_t a, size_t b));

#endif
