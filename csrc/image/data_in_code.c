/* data_in_code.c: LC_DATA_IN_CODE, which says where code is interrupted by jump
 * tables: entries of offset, length and kind. */
#include "../common/bytes.h"
#include "macho.h"

#define ENTRY_SIZE 8u

bool bspi_data_in_code_refs(const bspi_macho *macho, uint64_t off, uint64_t size) {
    uint32_t base;
    if (size < ENTRY_SIZE)
        return true;
    if (!bspi_image_add_base(macho->file, macho->image, macho->image->base_addr, &base))
        return false;
    for (uint64_t i = 0; i < size / ENTRY_SIZE; i++)
        if (!bspi_image_add_ref(macho->file, macho->image, off + i * ENTRY_SIZE, BSPI_REF_BASE32,
                                base))
            return false;
    return true;
}
