/* elf_shadow.c: what the loader will write into blank slots. */
#include "elf_shadow.h"

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

static void linked(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                   void *context) {
    static const char name[] = ".rela.dyn";
    uint32_t wanted = bspi_name_hash(name, sizeof name - 1);
    uint32_t relative = image->arch == BSPI_ARCH_ARM64 ? AARCH64_RELATIVE : X86_64_RELATIVE;
    size_t hint = 0;
    uint64_t misses = 0; /* a hostile table must not cost a search of all sections each time */
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_section *table = &image->sections[i];
        if (table->name != wanted || !table->mapped)
            continue;
        for (uint64_t at = 0; table->file_size - at >= ELF_RELA_LEN && misses < 4096;
             at += ELF_RELA_LEN) {
            const uint8_t *entry = file->data + table->file_off + at;
            if (bspi_load64(entry + 8) != relative)
                continue;
            const bspi_section *section = section_of(image, bspi_load64(entry), &hint);
            if (section == NULL) {
                misses++;
                continue;
            }
            bspi_shadow slot = {section->file_off + (bspi_load64(entry) - section->addr),
                                bspi_load64(entry + 16), 8, false};
            if (bspi_load64(file->data + slot.off) != 0)
                continue;
            visit(context, &slot);
            slot.off = table->file_off + at;
            visit(context, &slot);
        }
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

/* What a symbol without bytes in this file is called. */
static uint64_t name_of(const bspi_file *file, const header *names, uint32_t at) {
    uint64_t end = at;
    while (end < names->size && end - at < 512 && file->data[names->off + end] != 0)
        end++;
    return at < names->size ? bspi_name_hash(file->data + names->off + at, (size_t)(end - at)) : 0;
}

/* What a row of a symbol table is called: the same in every build, wherever
 * the row may be.  Sections' own symbols go by their section. */
static bool row_name(const bspi_file *file, const header *symbols, const header *names,
                     uint32_t row, uint64_t *name) {
    uint64_t at = (uint64_t)row * ELF_SYMBOL_LEN;
    if (row == 0 || !bspi_within(at, ELF_SYMBOL_LEN, symbols->size))
        return false;
    const uint8_t *entry = file->data + symbols->off + at;
    uint32_t text = bspi_load32(entry);
    *name = text != 0 ? name_of(file, names, text) : UINT64_C(1) << 40 | bspi_load16(entry + 6);
    return true;
}

/* The `count` row numbers at `off`: without this they would all look alike. */
static void row_fields(const bspi_file *file, const header *symbols, const header *names,
                       uint64_t off, uint64_t count, uint64_t step, bspi_shadow_visit visit,
                       void *context) {
    for (uint64_t i = 0; i < count; i++, off += step) {
        bspi_shadow field = {off, 0, 4, true};
        if (row_name(file, symbols, names, bspi_load32(file->data + off), &field.target))
            visit(context, &field);
    }
}

/* The row numbers of a relocation or hash table; for each symbol that is
 * relocated to in a linked file its slot as well. */
static void symbol_table_user(const bspi_file *file, const bspi_image *image, uint64_t table,
                              const header *user, bool is_linked, bspi_shadow_visit visit,
                              void *context) {
    header symbols, names;
    if (!read_header(file, table, user->link, &symbols) ||
        (symbols.type != ELF_SHT_SYMTAB && symbols.type != ELF_SHT_DYNSYM) ||
        !read_header(file, table, symbols.link, &names) || names.type != ELF_SHT_STRTAB)
        return;
    if (user->type == ELF_SHT_HASH && user->size >= 8) {
        row_fields(file, &symbols, &names, user->off + 8, user->size / 4 - 2, 4, visit, context);
    } else if (user->type == ELF_SHT_GNU_HASH && user->size >= 16) {
        const uint8_t *head = file->data + user->off;
        uint64_t start = 16 + bspi_load32(head + 8) * UINT64_C(8), count = bspi_load32(head);
        if (start <= user->size)
            row_fields(file, &symbols, &names, user->off + start,
                       BSPI_MIN(count, (user->size - start) / 4), 4, visit, context);
    } else if (user->type == ELF_SHT_RELA) {
        row_fields(file, &symbols, &names, user->off + 12, user->size / ELF_RELA_LEN,
                   ELF_RELA_LEN, visit, context);
        for (uint64_t at = 0; is_linked && user->size - at >= ELF_RELA_LEN; at += ELF_RELA_LEN) {
            const uint8_t *entry = file->data + user->off + at;
            bspi_shadow slot = {0, 0, 8, true};
            if (!row_name(file, &symbols, &names, bspi_load32(entry + 12), &slot.target) ||
                !bspi_addr_to_off(image, bspi_load64(entry), 8, &slot.off))
                continue;
            slot.target = (slot.target << 20) + bspi_load64(entry + 16);
            visit(context, &slot);
        }
    }
}

static void symbol_users(const bspi_file *file, const bspi_image *image, bool is_linked,
                         bspi_shadow_visit visit, void *context) {
    const uint8_t *start = file->data + image->file_off;
    uint64_t table = bspi_load64(start + 40), count = bspi_load16(start + 60);
    for (uint64_t i = 0; i < count; i++) {
        header user;
        if (read_header(file, table, i, &user))
            symbol_table_user(file, image, table, &user, is_linked, visit, context);
    }
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
            slot.target = (name_of(file, &names, bspi_load32(named)) << 20 ^
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
    for (size_t i = 0; i < image->section_count; i++)
        if (image->sections[i].name == bspi_name_hash(".BTF", 4) && image->sections[i].file_size)
            bspi_elf_btf_shadow(file, image->sections[i].file_off, image->sections[i].file_size,
                                visit, context);
    symbol_users(file, image, bspi_load16(file->data + 16) != ELF_ET_REL, visit, context);
}
