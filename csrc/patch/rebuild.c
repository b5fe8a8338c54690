/* rebuild.c: bytes of the new file out of what a patch says, at any place. */
#include "rebuild.h"

#include <string.h>

#include "../common/bytes.h"

static bspi_walker *borrow_walker(bsp_patch *patch) {
    bspi_walker *walker = NULL;
    pthread_mutex_lock(&patch->lock);
    if (patch->idle_count > 0)
        walker = patch->idle[--patch->idle_count];
    pthread_mutex_unlock(&patch->lock);
    if (walker != NULL)
        return walker;
    walker = bspi_alloc(&patch->heap, 1, sizeof *walker, false);
    if (walker != NULL)
        bspi_walker_init(walker, &patch->content.predictor);
    return walker;
}

static void return_walker(bsp_patch *patch, bspi_walker *walker) {
    pthread_mutex_lock(&patch->lock);
    if (patch->idle_count < BSPI_WALKER_POOL) {
        patch->idle[patch->idle_count++] = walker;
        walker = NULL;
    }
    pthread_mutex_unlock(&patch->lock);
    if (walker != NULL) {
        bspi_walker_free(walker);
        bspi_free(&patch->heap, walker);
    }
}

static void put_bytes(const bspi_content *content, uint64_t begin, uint8_t *out, size_t len) {
    size_t low = 0, high = content->byte_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (content->bytes[middle].new_off < begin)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < content->byte_count && content->bytes[low].new_off - begin < len; low++) {
        uint8_t *at = &out[content->bytes[low].new_off - begin];
        *at = (uint8_t)(*at + content->bytes[low].diff);
    }
}

static void put_literals(const bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len) {
    size_t low = 0, high = patch->run_count;
    uint64_t end = begin + len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (patch->runs[middle].new_off + patch->runs[middle].len <= begin)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < patch->run_count && patch->runs[low].new_off < end; low++) {
        const bspi_placed_literals *run = &patch->runs[low];
        uint64_t from = BSPI_MAX(run->new_off, begin);
        uint64_t to = BSPI_MIN(run->new_off + run->len, end);
        memcpy(out + (from - begin), patch->content.literals + run->literal + (from - run->new_off),
               (size_t)(to - from));
    }
}

bool bspi_make_bytes(bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len,
                     bool with_pages) {
    bspi_walker *walker = borrow_walker(patch);
    if (walker == NULL)
        return false;
    walker->without_pages = !with_pages;
    bool good = bspi_predict(walker, begin, out, len);
    return_walker(patch, walker);
    if (!good)
        return false;
    put_bytes(&patch->content, begin, out, len);
    put_literals(patch, begin, out, len);
    return true;
}

uint64_t bspi_literals_before(const bsp_patch *patch, uint64_t end) {
    size_t low = 0, high = patch->run_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (patch->runs[middle].new_off < end)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return 0;
    const bspi_placed_literals *run = &patch->runs[low - 1];
    return run->literal + BSPI_MIN(run->len, end - run->new_off);
}
