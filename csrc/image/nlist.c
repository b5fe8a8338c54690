/* nlist.c: the symbol table of a Mach-O image: values that are addresses, names
 * in the string table; and the table of the symbols that stubs stand for. */
#include "../common/bytes.h"
#include "macho.h"

#define ENTRY_SIZE 16u
#define VALUE_OFF 8u

#define INDIRECT_SIZE 4u
#define INDIRECT_FLAGS 0xC0000000u /* local or absolute: no symbol */

#define N_STAB 0xE0u
#define N_TYPE 0x0Eu
#define N_SECT 0x0Eu
/* Debugger symbols whose value is an address when they name a section. */
#define N_FUN 0x24u
#define N_STSYM 0x26u
#define N_BNSYM 0x2Eu

static bool value_is_address(uint8_t type, uint8_t section) {
    if (section == 0)
        return false;
    if ((type & N_STAB) != 0)
        return type == N_FUN || type == N_STSYM || type == N_BNSYM;
    return (type & N_TYPE) == N_SECT;
}

bool bspi_nlist_refs(const bspi_macho *macho, uint64_t off, uint64_t count, uint64_t strings) {
    uint32_t base = 0;
    bool named = false;
    if (strings != 0 && !bspi_macho_add_base_at(macho, strings, &base, &named))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = off + i * ENTRY_SIZE;
        const uint8_t *entry = macho->file->data + at;
        if (named && bspi_load32(entry) != 0 &&
            !bspi_image_add_ref(macho->file, macho->image, at, BSPI_REF_BASE32, base))
            return false;
        if (value_is_address(entry[4], entry[5]) &&
            !bspi_image_add_ref(macho->file, macho->image, at + VALUE_OFF, BSPI_REF_ABS64, 0))
            return false;
    }
    return true;
}

bool bspi_indirect_symbols_refs(const bspi_macho *macho, uint64_t off, uint64_t size,
                                uint64_t symbols) {
    uint32_t base;
    bool found;
    if (size == 0 || symbols == 0)
        return true;
    if (!bspi_macho_add_base_at(macho, symbols, &base, &found))
        return false;
    for (uint64_t i = 0; found && i < size / INDIRECT_SIZE; i++) {
        uint64_t at = off + i * INDIRECT_SIZE;
        if ((bspi_load32(macho->file->data + at) & INDIRECT_FLAGS) == 0 &&
            !bspi_image_add_ref(macho->file, macho->image, at, BSPI_REF_INDEX16, base))
            return false;
    }
    return true;
}
