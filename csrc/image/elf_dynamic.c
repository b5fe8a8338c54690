/* Finds the addresses in an ELF file's .dynamic section, and those that lie
 * bare in its data. */
#include "elf.h"

/* Does an entry of this tag hold an address? */
static bool tag_is_address(uint64_t tag) {
    switch (tag) {
    case 3:          /* PLTGOT */
    case 4:          /* HASH */
    case 5:          /* STRTAB */
    case 6:          /* SYMTAB */
    case 7:          /* RELA */
    case 12:         /* INIT */
    case 13:         /* FINI */
    case 17:         /* REL */
    case 23:         /* JMPREL */
    case 25:         /* INIT_ARRAY */
    case 26:         /* FINI_ARRAY */
    case 32:         /* PREINIT_ARRAY */
    case 34:         /* SYMTAB_SHNDX */
    case 36:         /* RELR */
    case 0x6ffffef5: /* GNU_HASH */
    case 0x6ffffef6: /* TLSDESC_PLT */
    case 0x6ffffef7: /* TLSDESC_GOT */
    case 0x6ffffff0: /* VERSYM */
    case 0x6ffffffc: /* VERDEF */
    case 0x6ffffffe: /* VERNEED */
        return true;
    default:
        return false;
    }
}

/* Does it hold an offset into the string table? */
static bool tag_is_string(uint64_t tag) {
    return tag == 1 /* NEEDED */ || tag == 14 /* SONAME */ || tag == 15 /* RPATH */ ||
           tag == 29 /* RUNPATH */;
}

bool bspi_elf_dynamic_refs(bspi_elf *elf, const bspi_elf_section *section) {
    bspi_elf_section *names = bspi_elf_linked(elf, section, ELF_SHT_STRTAB);
    if (elf->type == ELF_ET_REL)
        return true;
    for (uint64_t pos = 0; pos + ELF_DYNAMIC_LEN <= section->size; pos += ELF_DYNAMIC_LEN) {
        uint64_t off = section->off + pos;
        uint64_t tag = bspi_load64(elf->file->data + off);
        if (tag == 0)
            break;
        if (tag_is_address(tag) && !bspi_elf_add_address(elf, off + 8))
            return false;
        if (names && tag_is_string(tag) && !bspi_elf_add_offset(elf, off + 8, names, false))
            return false;
    }
    return true;
}

bool bspi_elf_pointer_refs(bspi_elf *elf, const bspi_elf_section *section) {
    uint64_t skip = (8 - section->addr % 8) % 8;
    for (uint64_t pos = skip; bspi_within(pos, 8, section->size); pos += 8) {
        uint64_t off = section->off + pos;
        uint64_t value = bspi_load64(elf->file->data + off);
        /* Most words are not even near. */
        if (!bspi_elf_plausible(elf, value) || !bspi_section_with_addr(elf->image, value))
            continue;
        if (!bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_ABS64, 0))
            return false;
    }
    return true;
}
