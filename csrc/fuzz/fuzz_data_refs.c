/* fuzz_data_refs.c: data references in any order and spacing come out of their
 * packed form sorted, as a plain list keeps them, walked through or found.
 *
 * Input: the memory request to refuse, 0 for none; log2 of where fields may begin
 * and end; then six bytes for each reference: how far it is from the one before (2
 * bytes, shifted by the low 5 bits of the third, backwards with its highest bit),
 * kind, aux. */
#include <stdlib.h>

#include "../common/bytes.h"
#include "fuzz.h"

#define ITEM 6u

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void read_keys(const uint8_t *data, uint64_t *keys, size_t count) {
    uint64_t off = 0;
    for (size_t i = 0; i < count; i++, data += ITEM) {
        uint64_t step = (uint64_t)bspi_load16(data) << (data[2] & 31);
        off += data[2] & 128 ? 0 - step : step;
        off &= (UINT64_C(1) << BSPI_DATA_OFF_BITS) - 1;
        uint64_t kind = data[3] % (1u << BSPI_DATA_KIND_BITS);
        keys[i] = (off << BSPI_DATA_KIND_BITS | kind) << BSPI_DATA_AUX_BITS | bspi_load16(data + 4);
    }
}

/* What is to be kept of the keys, in place; how many. */
static size_t keep(uint64_t *keys, size_t count, uint64_t begin, uint64_t end) {
    size_t kept = 0;
    qsort(keys, count, sizeof *keys, compare);
    for (size_t i = 0; i < count; i++) {
        uint64_t off = bspi_data_off(keys[i]), size = bspi_ref_size(bspi_data_kind(keys[i]));
        if (size == 0 || off < begin || !bspi_within(off, size, end))
            continue;
        begin = off + size;
        keys[kept++] = keys[i];
    }
    return kept;
}

static void check_at(const bspi_data_cursor *at, const uint64_t *keys, size_t count,
                     size_t index) {
    CHECK(at->index == index);
    CHECK(at->key == (index < count ? keys[index] : BSPI_DATA_NONE));
    CHECK(at->before == (index > 0 ? keys[index - 1] : BSPI_DATA_NONE));
}

static void check(const bspi_data_refs *refs, const uint64_t *keys, size_t count) {
    CHECK(refs->count == count);
    bspi_data_cursor walk = bspi_data_find(refs, 0);
    for (size_t i = 0; i < count; i++, bspi_data_next(&walk)) {
        uint64_t off = bspi_data_off(keys[i]);
        check_at(&walk, keys, count, i);
        bspi_data_cursor found = bspi_data_find(refs, off);
        check_at(&found, keys, count, i);
        found = bspi_data_find(refs, off + 1);
        check_at(&found, keys, count, i + 1);
    }
    check_at(&walk, keys, count, count);
    walk = bspi_data_find(refs, UINT64_MAX);
    check_at(&walk, keys, count, count);
}

FUZZ_TARGET(data_refs) {
    if (size < 3)
        return 0;
    size_t count = (size - 3) / ITEM;
    uint64_t begin = (UINT64_C(1) << data[1] % 37) - 1, end = UINT64_C(1) << data[2] % 37;
    uint64_t *plain = malloc((count + 1) * sizeof *plain);
    uint64_t *given = malloc((count + 1) * sizeof *given);
    CHECK(plain != NULL && given != NULL);
    read_keys(data + 3, plain, count);
    read_keys(data + 3, given, count);
    bspi_heap heap;
    bspi_heap_init(&heap, FUZZ_BUDGET);
    heap.fail_at = data[0];
    bspi_data_refs refs = {0};
    if (bspi_data_refs_pack(&heap, given, count, begin, end, &refs))
        check(&refs, plain, keep(plain, count, begin, end));
    else
        CHECK(heap.fail_at != 0 && heap.requests >= heap.fail_at);
    bspi_data_refs_free(&heap, &refs);
    CHECK(heap.in_use == 0);
    free(plain);
    free(given);
    return 0;
}
