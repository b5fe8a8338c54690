/* fuzz_image_macho.c: whatever follows a Mach-O or fat magic is understood in
 * part or not at all, and what was understood is as image.h promises. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "fuzz.h"

FUZZ_TARGET(image_macho) {
    static const uint32_t magics[3] = {0xFEEDFACF, 0xBEBAFECA, 0xBFBAFECA};
    if (size < 8)
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, FUZZ_BUDGET);
    uint32_t magic = bspi_load32(data);
    uint8_t *bytes = malloc(size);
    bspi_file file;
    CHECK(bytes != NULL);
    memcpy(bytes, data, size);
    if (magic != magics[0] && magic != magics[1] && magic != magics[2])
        bspi_store32(bytes, magics[magic % 3]);
    if (bspi_file_parse(&heap, bytes, size, &file, NULL) == BSP_OK) {
        fuzz_check_file(&file);
        bspi_file_free(&file);
    }
    CHECK(heap.in_use == 0 && heap.peak <= FUZZ_BUDGET);
    free(bytes);
    return 0;
}
