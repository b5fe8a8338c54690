/* Finds the rows of the symbol table that an ELF file's hash tables name. */
#include "elf.h"

/* Adds the `count` numbers at `pos` of the section, as far as it has them. */
static bool index_refs(bspi_elf *elf, const bspi_elf_section *section, bspi_elf_section *symbols,
                       uint64_t pos, uint64_t count) {
    if (pos >= section->size)
        return true;
    count = BSPI_MIN(count, (section->size - pos) / 4);
    for (uint64_t i = 0; i < count; i++)
        if (!bspi_elf_add_index(elf, section->off + pos + i * 4, symbols))
            return false;
    return true;
}

/* Bucket count, symbol count, a symbol for each bucket, a next one for each
 * symbol: all but the first are rows, the count being that of the end. */
bool bspi_elf_hash_refs(bspi_elf *elf, const bspi_elf_section *section) {
    bspi_elf_section *symbols = bspi_elf_linked(elf, section, ELF_SHT_DYNSYM);
    return !symbols || index_refs(elf, section, symbols, 4, UINT64_MAX);
}

/* Bucket count, first symbol hashed, words of the filter, its shift; the
 * filter, a symbol for each bucket, hashes. */
bool bspi_elf_gnu_hash_refs(bspi_elf *elf, const bspi_elf_section *section) {
    bspi_elf_section *symbols = bspi_elf_linked(elf, section, ELF_SHT_DYNSYM);
    if (!symbols || section->size < 16)
        return true;
    const uint8_t *head = bspi_elf_bytes(elf, section);
    uint64_t buckets = bspi_load32(head), filter = bspi_load32(head + 8);
    return index_refs(elf, section, symbols, 4, 1) &&
           index_refs(elf, section, symbols, 16 + filter * 8, buckets);
}
