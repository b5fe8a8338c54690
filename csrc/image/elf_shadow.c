/* elf_shadow.c: what the loader will write into blank slots. */
#include "elf_shadow.h"

#include <string.h>

#include "elf.h"

enum {
    X86_64_64 = 1,
    X86_64_PC32 = 2,
    X86_64_PLT32 = 4,
    X86_64_RELATIVE = 8,
    X86_64_PC64 = 24,
    AARCH64_ABS64 = 257,
    AARCH64_PREL64 = 260,
    AARCH64_RELATIVE = 1027
};

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

static const bspi_section *section_named(const bspi_image *image, const char *name) {
    uint32_t wanted = bspi_name_hash(name, strlen(name));
    for (size_t i = 0; i < image->section_count; i++)
        if (image->sections[i].name == wanted && image->sections[i].mapped &&
            image->sections[i].file_size != 0)
            return &image->sections[i];
    return NULL;
}

/* A hash of the name at `at` of a string table. */
static uint64_t hash_name(const bspi_file *file, uint64_t off, uint64_t size, uint32_t at) {
    uint64_t end = at;
    while (end < size && end - at < 512 && file->data[off + end] != 0)
        end++;
    return at < size ? bspi_name_hash(file->data + off + at, (size_t)(end - at)) : 0;
}

/* What dynamic symbol `symbol` is called, as a label. */
static uint64_t symbol_label(const bspi_file *file, const bspi_image *image, uint32_t symbol) {
    const bspi_section *symbols = section_named(image, ".dynsym");
    const bspi_section *names = section_named(image, ".dynstr");
    uint64_t at = (uint64_t)symbol * ELF_SYMBOL_LEN;
    if (symbols == NULL || names == NULL || !bspi_within(at, ELF_SYMBOL_LEN, symbols->file_size))
        return symbol;
    uint32_t name = bspi_load32(file->data + symbols->file_off + at);
    return hash_name(file, names->file_off, names->file_size, name);
}

/* Slots that the loader fills with one thing, known before (zero in the file)
 * or named by a symbol (whatever stands there until then). */
static void linked_table(const bspi_file *file, const bspi_image *image,
                         const bspi_section *table, bspi_shadow_visit visit, void *context) {
    uint32_t relative = image->arch == BSPI_ARCH_ARM64 ? AARCH64_RELATIVE : X86_64_RELATIVE;
    size_t hint = 0;
    uint64_t misses = 0; /* a hostile table must not cost a search of all sections each time */
    for (uint64_t at = 0; table->file_size - at >= ELF_RELA_LEN && misses < 4096;
         at += ELF_RELA_LEN) {
        const uint8_t *entry = file->data + table->file_off + at;
        uint32_t type = bspi_load32(entry + 8), symbol = bspi_load32(entry + 12);
        if ((symbol == 0) != (type == relative))
            continue;
        const bspi_section *section = section_of(image, bspi_load64(entry), &hint);
        if (section == NULL) {
            misses++;
            continue;
        }
        bspi_shadow slot = {section->file_off + (bspi_load64(entry) - section->addr),
                            bspi_load64(entry + 16), 8, symbol != 0};
        if (symbol == 0 && bspi_load64(file->data + slot.off) != 0)
            continue;
        if (symbol != 0)
            slot.target = (symbol_label(file, image, symbol) << 20) + slot.target;
        visit(context, &slot);
        slot.off = table->file_off + at;
        visit(context, &slot);
    }
}

static void linked(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                   void *context) {
    static const char *const tables[] = {".rela.dyn", ".rela.plt"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const bspi_section *table = section_named(image, tables[i]);
        if (table != NULL)
            linked_table(file, image, table, visit, context);
    }
}

/* A section header of a relocatable file, or false. */
typedef struct {
    uint64_t off, size;
    uint32_t type, link, info;
    bool code;
} header;

static bool read_header(const bspi_file *file, uint64_t table, uint64_t index, header *h) {
    uint64_t at = table + index * ELF_SECTION_LEN;
    if (!bspi_within(at, ELF_SECTION_LEN, file->size))
        return false;
    const uint8_t *entry = file->data + at;
    h->type = bspi_load32(entry + 4);
    h->code = (bspi_load64(entry + 8) & ELF_SHF_EXECINSTR) != 0;
    h->off = bspi_load64(entry + 24);
    h->size = bspi_load64(entry + 32);
    h->link = bspi_load32(entry + 40);
    h->info = bspi_load32(entry + 44);
    return h->type == ELF_SHT_NOBITS || bspi_within(h->off, h->size, file->size);
}

static bool is_wide(const bspi_image *image, uint32_t type) {
    if (image->arch == BSPI_ARCH_ARM64)
        return type == AARCH64_ABS64 || type == AARCH64_PREL64;
    return type == X86_64_64 || type == X86_64_PC64;
}

static void object_table(const bspi_file *file, const bspi_image *image, uint64_t table,
                         const header *rela, bspi_shadow_visit visit, void *context) {
    header symbols, names, relocated;
    if (!read_header(file, table, rela->link, &symbols) || symbols.type != ELF_SHT_SYMTAB ||
        !read_header(file, table, symbols.link, &names) || names.type != ELF_SHT_STRTAB ||
        !read_header(file, table, rela->info, &relocated) || relocated.type == ELF_SHT_NOBITS)
        return;
    for (uint64_t at = 0; rela->size - at >= ELF_RELA_LEN; at += ELF_RELA_LEN) {
        const uint8_t *entry = file->data + rela->off + at;
        uint64_t addend = bspi_load64(entry + 16), offset = bspi_load64(entry);
        uint32_t type = bspi_load32(entry + 8);
        uint64_t symbol = (uint64_t)bspi_load32(entry + 12) * ELF_SYMBOL_LEN;
        bspi_shadow slot = {relocated.off + offset, 0, is_wide(image, type) ? 8 : 4, true};
        if (!bspi_within(symbol, ELF_SYMBOL_LEN, symbols.size) ||
            !bspi_within(offset, slot.size, relocated.size))
            continue;
        const uint8_t *named = file->data + symbols.off + symbol;
        uint32_t section = bspi_load16(named + 6);
        header home;
        if (image->arch == BSPI_ARCH_X86_64 && relocated.code &&
            (type == X86_64_PC32 || type == X86_64_PLT32))
            addend += 4;
        if (section != 0 && section < 0xff00 && read_header(file, table, section, &home) &&
            home.type != ELF_SHT_NOBITS) {
            const bspi_section *mapped = bspi_section_at(image, home.off);
            if (mapped != NULL && mapped->mapped) {
                slot.elsewhere = false;
                slot.target = mapped->addr + (home.off - mapped->file_off) +
                              bspi_load64(named + 8) + addend;
            }
        }
        if (slot.elsewhere)
            slot.target = (hash_name(file, names.off, names.size, bspi_load32(named)) << 20 ^
                           (uint64_t)section << 52) + bspi_load64(named + 8) + addend;
        visit(context, &slot);
        slot.off = rela->off + at;
        slot.size = 8;
        visit(context, &slot);
    }
}

static void relocatable(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                        void *context) {
    const uint8_t *start = file->data + image->file_off;
    uint64_t table = bspi_load64(start + 40), count = bspi_load16(start + 60);
    for (uint64_t i = 0; i < count; i++) {
        header rela;
        if (read_header(file, table, i, &rela) && rela.type == ELF_SHT_RELA)
            object_table(file, image, table, &rela, visit, context);
    }
}

void bspi_elf_shadow(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                     void *context) {
    if (image->format != BSPI_FORMAT_ELF || image->file_off != 0 ||
        image->file_size < ELF_HEADER_LEN)
        return;
    if (bspi_load16(file->data + 16) == ELF_ET_REL)
        relocatable(file, image, visit, context);
    else
        linked(file, image, visit, context);
}
