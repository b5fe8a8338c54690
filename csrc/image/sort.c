/* sort.c: heap sort over callbacks: n log n whatever the input. */
#include "sort.h"

static void sift_down(void *items, size_t root, size_t count,
                      bool (*less)(void *items, size_t a, size_t b),
                      void (*swap)(void *items, size_t a, size_t b)) {
    for (;;) {
        size_t child = root * 2 + 1;
        if (child >= count)
            return;
        if (child + 1 < count && less(items, child, child + 1))
            child++;
        if (!less(items, root, child))
            return;
        swap(items, root, child);
        root = child;
    }
}

void bspi_sort(void *items, size_t count, bool (*less)(void *items, size_t a, size_t b),
               void (*swap)(void *items, size_t a, size_t b)) {
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++)
        sorted = !less(items, i, i - 1);
    if (sorted)
        return;
    for (size_t i = count / 2; i-- > 0;)
        sift_down(items, i, count, less, swap);
    for (size_t end = count; end-- > 1;) {
        swap(items, 0, end);
        sift_down(items, 0, end, less, swap);
    }
}
