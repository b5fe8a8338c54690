/* fuzz_image_elf.c: whatever follows an ELF magic is understood in part or not
 * at all, what was understood is as image.h promises, and the shadow of its
 * relocations can always be cast. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "../image/elf_shadow.h"
#include "fuzz.h"

static void visit(void *context, const bspi_shadow *slot) {
    const bspi_file *file = context;
    CHECK(slot->size == 4 || slot->size == 8);
    CHECK(bspi_within(slot->off, slot->size, file->size));
}

FUZZ_TARGET(image_elf) {
    if (size < 4)
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, FUZZ_BUDGET);
    uint8_t *bytes = malloc(size);
    bspi_file file;
    CHECK(bytes != NULL);
    memcpy(bytes, data, size);
    bspi_store32(bytes, 0x464C457F);
    if (bspi_file_parse(&heap, bytes, size, &file, NULL) == BSP_OK) {
        fuzz_check_file(&file);
        for (size_t i = 0; i < file.image_count; i++)
            bspi_elf_shadow(&file, &file.images[i], visit, &file);
        bspi_file_free(&file);
    }
    CHECK(heap.in_use == 0 && heap.peak <= FUZZ_BUDGET);
    free(bytes);
    return 0;
}
