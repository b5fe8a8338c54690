/* fuzz_patch_reader.c: a patch that the container's reader accepts has one
 * spelling: writing what was read gives the same bytes. */
#include <string.h>

#include "../patch/container.h"
#include "fuzz.h"

FUZZ_TARGET(patch_reader) {
    bspi_container container;
    bsp_fault fault;
    bsp_status status = bspi_container_read(data, size, &container, &fault);
    if (status != BSP_OK) {
        CHECK(fault.code == status && fault.place != NULL);
        return 0;
    }
    bspi_heap heap;
    bspi_heap_init(&heap, 0);
    bspi_buffer out = {.heap = &heap};
    CHECK(bspi_container_write(&container, &out));
    CHECK(out.len == size && memcmp(out.data, data, size) == 0);
    bspi_buffer_free(&out);
    CHECK(heap.in_use == 0);
    return 0;
}
