/* elf_shadow.c: what the loader will write into blank slots. */
#include "elf_shadow.h"

#include "../common/bytes.h"

#define RELA_SIZE 24u
#define R_X86_64_RELATIVE 8u
#define R_AARCH64_RELATIVE 1027u

/* The file-backed section whose memory holds addr; *hint is the last answer. */
static const bspi_section *section_of(const bspi_image *image, uint64_t addr, size_t *hint) {
    for (size_t i = 0; i < image->section_count; i++) {
        size_t at = (*hint + i) % image->section_count;
        const bspi_section *section = &image->sections[at];
        if (section->mapped && section->file_size >= 8 && addr >= section->addr &&
            addr - section->addr <= section->file_size - 8) {
            *hint = at;
            return section;
        }
    }
    return NULL;
}

void bspi_elf_shadow(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                     void *context) {
    static const char name[] = ".rela.dyn";
    uint32_t wanted = bspi_name_hash(name, sizeof name - 1);
    uint32_t relative = image->arch == BSPI_ARCH_ARM64 ? R_AARCH64_RELATIVE : R_X86_64_RELATIVE;
    if (image->format != BSPI_FORMAT_ELF)
        return;
    size_t hint = 0;
    uint64_t misses = 0; /* a hostile table must not cost a search of all sections each time */
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_section *table = &image->sections[i];
        if (table->name != wanted || !table->mapped)
            continue;
        for (uint64_t at = 0; table->file_size - at >= RELA_SIZE && misses < 4096;
             at += RELA_SIZE) {
            const uint8_t *entry = file->data + table->file_off + at;
            if (bspi_load64(entry + 8) != relative)
                continue;
            const bspi_section *section = section_of(image, bspi_load64(entry), &hint);
            if (section == NULL) {
                misses++;
                continue;
            }
            uint64_t slot = section->file_off + (bspi_load64(entry) - section->addr);
            if (bspi_load64(file->data + slot) == 0)
                visit(context, slot, bspi_load64(entry + 16));
        }
    }
}
