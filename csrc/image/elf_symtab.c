/* Finds the addresses in ELF symbol tables, and the string offsets that a
 * loaded string table gives an address to. */
#include "elf.h"

enum { SYMBOL_IS_SECTION = 3, SYMBOL_IS_TLS = 6 }; /* low 4 bits of st_info */
enum { FIRST_RESERVED_SECTION = 0xff00 };

/* The value of a defined symbol: an address, or in a relocatable file an
 * offset from its section. */
static bool value_ref(bspi_elf *elf, const uint8_t *entry, uint64_t off) {
    unsigned kind = entry[4] & 15;
    uint16_t index = bspi_load16(entry + 6);
    if (index == 0 || index >= FIRST_RESERVED_SECTION || kind == SYMBOL_IS_TLS)
        return true;
    if (elf->type != ELF_ET_REL)
        return bspi_elf_add_address(elf, off + 8);
    if (kind == SYMBOL_IS_SECTION || index >= elf->section_count || !elf->sections[index].mapped)
        return true;
    return bspi_elf_add_offset(elf, off + 8, &elf->sections[index], false);
}

bool bspi_elf_symbol_refs(bspi_elf *elf, const bspi_elf_section *section) {
    const uint8_t *entry = bspi_elf_bytes(elf, section);
    uint64_t count = section->size / ELF_SYMBOL_LEN;
    bspi_elf_section *names = bspi_elf_linked(elf, section, ELF_SHT_STRTAB);
    for (uint64_t i = 0; i < count; i++, entry += ELF_SYMBOL_LEN) {
        uint64_t off = section->off + i * ELF_SYMBOL_LEN;
        if (names && bspi_load32(entry) != 0 && !bspi_elf_add_offset(elf, off, names, false))
            return false;
        if (!value_ref(elf, entry, off))
            return false;
    }
    return true;
}
