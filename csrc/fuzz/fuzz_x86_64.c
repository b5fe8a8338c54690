/* fuzz_x86_64.c: the x86-64 finders stay within any code at any address, and what
 * they find in two parts is sorted, disjoint and within each part. */
#include "../common/bytes.h"
#include "../image/jump_tables.h"
#include "fuzz.h"

FUZZ_TARGET(x86_64) {
    if (size < 10)
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, FUZZ_BUDGET);
    bspi_ref_list refs = {.heap = &heap};
    bspi_jump_tables tables = {.heap = &heap};
    uint64_t addr = bspi_load64(data), len = size - 10;
    uint64_t cut = bspi_load16(data + 8) % (len + 1);
    const uint8_t *code = data + 10;
    bspi_x86_64_refs(code, len, 0, cut, addr, 0, &refs);
    fuzz_check_refs(&refs, code, len, 0, cut);
    refs.count = 0;
    bspi_x86_64_refs(code, len, cut, len, addr, 0, &refs);
    fuzz_check_refs(&refs, code, len, cut, len);
    CHECK(bspi_x86_64_jump_tables(code, len, addr, &tables));
    bspi_free(&heap, tables.items);
    bspi_ref_list_free(&refs);
    CHECK(heap.in_use == 0);
    return 0;
}
