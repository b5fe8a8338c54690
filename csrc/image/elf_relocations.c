/* Finds the addresses in and behind ELF relocations: RELA tables, with and
 * without addresses, and RELR bitmaps. */
#include "elf.h"

enum {
    X86_64_64 = 1,
    X86_64_PC32 = 2,
    X86_64_PLT32 = 4,
    X86_64_RELATIVE = 8,
    X86_64_32 = 10,
    X86_64_32S = 11,
    X86_64_PC64 = 24,
    X86_64_IRELATIVE = 37,
    AARCH64_ABS64 = 257,
    AARCH64_RELATIVE = 1027,
    AARCH64_IRELATIVE = 1032
};
enum { SYMBOL_IS_SECTION = 3 }; /* low 4 bits of st_info */

static bool is_relative(const bspi_elf *elf, uint32_t type) {
    if (elf->machine == ELF_EM_X86_64)
        return type == X86_64_RELATIVE || type == X86_64_IRELATIVE;
    return type == AARCH64_RELATIVE || type == AARCH64_IRELATIVE;
}

/* Is the addend itself an address? */
static bool addend_is_address(const bspi_elf *elf, uint32_t type, uint32_t symbol) {
    uint32_t plain = elf->machine == ELF_EM_X86_64 ? (uint32_t)X86_64_64 : (uint32_t)AARCH64_ABS64;
    return is_relative(elf, type) || (type == plain && symbol == 0);
}

/* Some linkers also write the addend into the slot, some leave it zero, and in
 * a slot that is bound lazily stands where its stub goes on. */
static bool slot_ref(bspi_elf *elf, uint64_t addr, uint64_t addend) {
    uint64_t off;
    if (!bspi_addr_to_off(elf->image, addr, 8, &off))
        return true;
    uint64_t value = bspi_load64(elf->file->data + off);
    if (value == 0 || (value != addend && !bspi_section_with_addr(elf->image, value)))
        return true;
    return bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_ABS64, 0);
}

/* Apart from the table itself, so that each gives references in order. */
static bool slot_refs(bspi_elf *elf, const bspi_elf_section *section) {
    const uint8_t *entry = bspi_elf_bytes(elf, section);
    for (uint64_t i = section->size / ELF_RELA_LEN; i > 0; i--, entry += ELF_RELA_LEN) {
        uint32_t type = bspi_load32(entry + 8), symbol = bspi_load32(entry + 12);
        if (addend_is_address(elf, type, symbol) &&
            !slot_ref(elf, bspi_load64(entry), bspi_load64(entry + 16)))
            return false;
    }
    return true;
}

static bool linked_rela_refs(bspi_elf *elf, const bspi_elf_section *section) {
    const uint8_t *entry = bspi_elf_bytes(elf, section);
    bspi_elf_section *symbols = bspi_elf_linked(elf, section, ELF_SHT_DYNSYM);
    uint64_t count = section->size / ELF_RELA_LEN;
    for (uint64_t i = 0; i < count; i++, entry += ELF_RELA_LEN) {
        uint64_t off = section->off + i * ELF_RELA_LEN;
        uint32_t type = bspi_load32(entry + 8), symbol = bspi_load32(entry + 12);
        if (!bspi_elf_add_address(elf, off) ||
            (symbols && !bspi_elf_add_index(elf, off + 12, symbols)))
            return false;
        if (addend_is_address(elf, type, symbol) && !bspi_elf_add_address(elf, off + 16))
            return false;
    }
    return slot_refs(elf, section);
}

/* The section whose start the symbol stands for, or NULL. */
static bspi_elf_section *symbol_section(bspi_elf *elf, const bspi_elf_section *symbols,
                                        uint32_t symbol) {
    uint64_t pos = (uint64_t)symbol * ELF_SYMBOL_LEN;
    if (!symbols->whole || !bspi_within(pos, ELF_SYMBOL_LEN, symbols->size))
        return NULL;
    const uint8_t *entry = bspi_elf_bytes(elf, symbols) + pos;
    uint16_t index = bspi_load16(entry + 6);
    if ((entry[4] & 15) != SYMBOL_IS_SECTION || index >= elf->section_count)
        return NULL;
    return elf->sections[index].mapped ? &elf->sections[index] : NULL;
}

/* In a relocatable file r_offset counts from the section that is relocated,
 * and the addend of a section's symbol from that section; the upper four bytes
 * of both are all zero or all sign.
 *
 * A PC-relative field of x86-64 code is counted from the end of the
 * instruction, most often four bytes behind the field's start, so the addend
 * is four less than the offset that is meant.  It has to be the offset meant:
 * four bytes before it there may be another object, which moves elsewhere.
 * PC-relative fields in data (exception and patch tables) count from
 * themselves, and so does AArch64. */
static bool object_rela_refs(bspi_elf *elf, const bspi_elf_section *section) {
    const uint8_t *entry = bspi_elf_bytes(elf, section);
    uint64_t count = section->size / ELF_RELA_LEN;
    bspi_elf_section *symbols = bspi_elf_linked(elf, section, ELF_SHT_DYNSYM);
    if (!symbols || section->info >= elf->section_count)
        return true;
    bspi_elf_section *relocated = &elf->sections[section->info];
    bool in_x86_code =
        elf->machine == ELF_EM_X86_64 && (relocated->flags & ELF_SHF_EXECINSTR) != 0;
    for (uint64_t i = 0; i < count; i++, entry += ELF_RELA_LEN) {
        uint64_t off = section->off + i * ELF_RELA_LEN;
        uint32_t type = bspi_load32(entry + 8);
        if ((relocated->mapped && !bspi_elf_add_offset(elf, off, relocated, false)) ||
            !bspi_elf_add_index(elf, off + 12, symbols))
            return false;
        bspi_elf_section *named = symbol_section(elf, symbols, bspi_load32(entry + 12));
        if (!named)
            continue;
        bool plus4 = in_x86_code && (type == X86_64_PC32 || type == X86_64_PLT32);
        if (!bspi_elf_add_offset(elf, off + 16, named, plus4))
            return false;
    }
    return true;
}

bool bspi_elf_rela_refs(bspi_elf *elf, const bspi_elf_section *section) {
    return elf->type == ELF_ET_REL ? object_rela_refs(elf, section)
                                   : linked_rela_refs(elf, section);
}

/* Adds the slot at `addr`, if the file has it. */
static bool relr_slot(bspi_elf *elf, uint64_t addr) {
    uint64_t off;
    return !bspi_addr_to_off(elf->image, addr, 8, &off) || bspi_elf_add_address(elf, off);
}

/* An even word is the address of a slot; an odd one has a bit for each of the
 * 63 words that follow.  Tables are ascending; only such are believed, so that
 * no slot is visited twice. */
bool bspi_elf_relr_refs(bspi_elf *elf, const bspi_elf_section *section) {
    const uint64_t span = UINT64_C(63) * 8;
    uint64_t next = elf->image->addr_low, count = section->size / 8;
    const uint8_t *entry = bspi_elf_bytes(elf, section);
    for (uint64_t i = 0; i < count; i++, entry += 8) {
        uint64_t word = bspi_load64(entry);
        if ((word & 1) == 0) {
            if (word < next || word >= elf->image->addr_high)
                break;
            if (!bspi_elf_add_address(elf, section->off + i * 8) || !relr_slot(elf, word))
                return false;
            if (!bspi_add64(word, 8, &next))
                break;
            continue;
        }
        for (unsigned bit = 1; bit < 64; bit++) {
            uint64_t addr;
            if ((word >> bit & 1) && bspi_add64(next, (uint64_t)(bit - 1) * 8, &addr) &&
                !relr_slot(elf, addr))
                return false;
        }
        if (!bspi_add64(next, span, &next))
            break;
    }
    return true;
}
