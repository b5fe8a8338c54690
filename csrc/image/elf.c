/* Reads 64-bit little-endian ELF files (executables, libraries, kernel modules
 * and other objects) of x86-64 and AArch64 into an image. */
#include "elf.h"
#include "tables.h"

/* Bounds on what is believed of a header. */
#define MAX_SECTIONS (UINT64_C(1) << 18)
#define MAX_NAME_LEN UINT64_C(256)
#define SECTION_INDEX_EXTENDED 0xffffu /* SHN_XINDEX in e_shstrndx */

#define NAME(text) bspi_name_hash(text, sizeof(text) - 1)

/* Sets the fields that the file header holds; false when this is no ELF file
 * that the reader knows. */
static bool read_header(bspi_elf *elf) {
    static const uint8_t magic[7] = {0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little endian */, 1};
    const uint8_t *header = elf->file->data;
    if (elf->file->size < ELF_HEADER_LEN || memcmp(header, magic, sizeof magic) != 0)
        return false;
    elf->type = bspi_load16(header + 16);
    elf->machine = bspi_load16(header + 18);
    elf->entry = bspi_load64(header + 24);
    return elf->type >= ELF_ET_REL && elf->type <= ELF_ET_DYN &&
           (elf->machine == ELF_EM_X86_64 || elf->machine == ELF_EM_AARCH64);
}

static void read_segments(bspi_elf *elf) {
    const uint8_t *header = elf->file->data;
    uint64_t off = bspi_load64(header + 32), count = bspi_load16(header + 56);
    if (bspi_load16(header + 54) != ELF_SEGMENT_LEN ||
        !bspi_within(off, count * ELF_SEGMENT_LEN, elf->file->size))
        return;
    elf->segments_off = off;
    elf->segments_len = count * ELF_SEGMENT_LEN;
    for (uint64_t i = 0; i < count && elf->segment_count < ELF_MAX_SEGMENTS; i++) {
        const uint8_t *entry = header + off + i * ELF_SEGMENT_LEN;
        bspi_elf_segment segment = {.off = bspi_load64(entry + 8),
                                    .addr = bspi_load64(entry + 16),
                                    .file_size = bspi_load64(entry + 32),
                                    .mem_size = bspi_load64(entry + 40),
                                    .executable = (bspi_load32(entry + 4) & 1) != 0};
        uint64_t end;
        if (bspi_load32(entry) == ELF_PT_LOAD && segment.mem_size >= segment.file_size &&
            bspi_add64(segment.addr, segment.mem_size, &end) &&
            bspi_within(segment.off, segment.file_size, elf->file->size))
            elf->segments[elf->segment_count++] = segment;
    }
}

static bspi_elf_section load_section(const uint8_t *entry) {
    return (bspi_elf_section){.type = bspi_load32(entry + 4),
                              .flags = bspi_load64(entry + 8),
                              .addr = bspi_load64(entry + 16),
                              .off = bspi_load64(entry + 24),
                              .size = bspi_load64(entry + 32),
                              .link = bspi_load32(entry + 40),
                              .info = bspi_load32(entry + 44),
                              .entry_size = bspi_load64(entry + 56)};
}

/* The hash of the string at `start` of the string table `names`, 0 for none. */
static uint32_t load_name(const bspi_elf *elf, const bspi_elf_section *names, uint32_t start) {
    if (!bspi_within(names->off, names->size, elf->file->size) || start >= names->size)
        return 0;
    const uint8_t *text = elf->file->data + names->off + start;
    size_t limit = (size_t)BSPI_MIN(names->size - start, MAX_NAME_LEN), len = 0;
    while (len < limit && text[len] != 0)
        len++;
    return len == 0 ? 0 : bspi_name_hash(text, len);
}

static bool read_sections(bspi_elf *elf) {
    const uint8_t *header = elf->file->data;
    uint64_t off = bspi_load64(header + 40), count = bspi_load16(header + 60);
    uint32_t names = bspi_load16(header + 62);
    if (off == 0 || bspi_load16(header + 58) != ELF_SECTION_LEN ||
        !bspi_within(off, ELF_SECTION_LEN, elf->file->size))
        return true;
    /* Numbers too large for the header stand in the first, unused, section. */
    bspi_elf_section first = load_section(header + off);
    if (count == 0)
        count = first.size;
    if (names == SECTION_INDEX_EXTENDED)
        names = first.link;
    if (count > MAX_SECTIONS || !bspi_within(off, count * ELF_SECTION_LEN, elf->file->size))
        return true;
    elf->sections_off = off;
    elf->sections_len = count * ELF_SECTION_LEN;
    elf->sections = bspi_alloc(elf->file->heap, (size_t)count, sizeof *elf->sections, false);
    if (!elf->sections)
        return false;
    for (uint64_t i = 0; i < count; i++)
        elf->sections[elf->section_count++] = load_section(header + off + i * ELF_SECTION_LEN);
    for (uint64_t i = 0; i < count && names < count; i++)
        elf->sections[i].name = load_name(elf, &elf->sections[names],
                                          bspi_load32(header + off + i * ELF_SECTION_LEN));
    return true;
}

/* --- without section headers: the sections that the loader's tables imply --- */

/* File offset of the memory at `addr` by the segments alone. */
static bool segment_offset(const bspi_elf *elf, uint64_t addr, uint64_t len, uint64_t *off) {
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        if (addr >= segment->addr &&
            bspi_within(addr - segment->addr, len, segment->file_size)) {
            *off = segment->off + (addr - segment->addr);
            return true;
        }
    }
    return false;
}

static bool make_up_section(bspi_elf *elf, uint32_t type, uint32_t name, uint64_t addr,
                            uint64_t size) {
    bspi_elf_section section = {
        .type = type, .flags = ELF_SHF_ALLOC, .name = name, .addr = addr, .size = size};
    if (size == 0 || !segment_offset(elf, addr, size, &section.off))
        return true;
    if (!BSPI_ENSURE(elf->sections, elf->section_count, elf->section_capacity, elf->file->heap))
        return false;
    elf->sections[elf->section_count++] = section;
    return true;
}

static bool make_up_dynamic(bspi_elf *elf, uint64_t addr, uint64_t size) {
    enum { RELA = 7, RELA_LEN = 8, JMPREL = 23, PLTREL_LEN = 2, RELR = 36, RELR_LEN = 35 };
    uint64_t values[40] = {0};
    uint64_t off;
    if (!segment_offset(elf, addr, size, &off))
        return true;
    for (uint64_t pos = 0; pos + ELF_DYNAMIC_LEN <= size; pos += ELF_DYNAMIC_LEN) {
        uint64_t tag = bspi_load64(elf->file->data + off + pos);
        if (tag == 0)
            break;
        if (tag < 40)
            values[tag] = bspi_load64(elf->file->data + off + pos + 8);
    }
    return make_up_section(elf, ELF_SHT_DYNAMIC, NAME(".dynamic"), addr, size) &&
           make_up_section(elf, ELF_SHT_RELA, NAME(".rela.dyn"), values[RELA],
                           values[RELA_LEN]) &&
           make_up_section(elf, ELF_SHT_RELA, NAME(".rela.plt"), values[JMPREL],
                           values[PLTREL_LEN]) &&
           make_up_section(elf, ELF_SHT_RELR, NAME(".relr.dyn"), values[RELR], values[RELR_LEN]);
}

/* .eh_frame has no length of its own here: it is taken to reach up to the end
 * of its segment; its walk stops at what is no record. */
static bool make_up_eh_frame(bspi_elf *elf, uint64_t addr, uint64_t size) {
    enum { PCREL_SDATA4 = 0x1b };
    uint64_t off;
    if (!make_up_section(elf, ELF_SHT_PROGBITS, NAME(".eh_frame_hdr"), addr, size))
        return false;
    if (size < 8 || !segment_offset(elf, addr, size, &off) ||
        elf->file->data[off + 1] != PCREL_SDATA4)
        return true;
    uint64_t delta = (uint64_t)(int64_t)(int32_t)bspi_load32(elf->file->data + off + 4);
    uint64_t start = addr + 4 + delta;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        if (start >= segment->addr && start - segment->addr < segment->file_size)
            return make_up_section(elf, ELF_SHT_PROGBITS, NAME(".eh_frame"), start,
                                   segment->file_size - (start - segment->addr));
    }
    return true;
}

static bool make_up_sections(bspi_elf *elf) {
    const uint8_t *table = elf->file->data + elf->segments_off;
    bool dynamic = false, eh_frame = false; /* the first of each counts */
    elf->sections_made_up = true;
    for (uint64_t pos = 0; pos < elf->segments_len; pos += ELF_SEGMENT_LEN) {
        uint32_t type = bspi_load32(table + pos);
        uint64_t addr = bspi_load64(table + pos + 16), size = bspi_load64(table + pos + 32);
        if (type == ELF_PT_DYNAMIC && !dynamic) {
            dynamic = true;
            if (!make_up_dynamic(elf, addr, size))
                return false;
        }
        if (type == ELF_PT_GNU_EH_FRAME && !eh_frame) {
            eh_frame = true;
            if (!make_up_eh_frame(elf, addr, size))
                return false;
        }
    }
    return true;
}

/* --- references --- */

bool bspi_elf_add_address(bspi_elf *elf, uint64_t off) {
    if (!bspi_elf_plausible(elf, bspi_load64(elf->file->data + off)))
        return true;
    return bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_ABS64, 0);
}

/* The index of the section's start, or of 4 bytes behind it, as a base. */
static bool section_base(bspi_elf *elf, bspi_elf_section *section, bool plus4, uint32_t *base) {
    uint32_t *known = &section->bases[plus4];
    if (*known == 0) {
        uint32_t index;
        if (!bspi_image_add_base(elf->file, elf->image, section->addr + (plus4 ? 4 : 0), &index))
            return false;
        *known = index + 1;
    }
    *base = *known - 1;
    return true;
}

bool bspi_elf_add_offset(bspi_elf *elf, uint64_t off, bspi_elf_section *section, bool plus4) {
    uint32_t base;
    return section_base(elf, section, plus4, &base) &&
           bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_BASE32, base);
}

bool bspi_elf_add_index(bspi_elf *elf, uint64_t off, bspi_elf_section *symbols) {
    uint32_t base;
    if (bspi_load32(elf->file->data + off) == 0)
        return true;
    return section_base(elf, symbols, false, &base) &&
           bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_INDEX24, base);
}

bspi_elf_section *bspi_elf_linked(bspi_elf *elf, const bspi_elf_section *section, uint32_t type) {
    if (section->link >= elf->section_count)
        return NULL;
    bspi_elf_section *linked = &elf->sections[section->link];
    uint32_t found = linked->type == ELF_SHT_SYMTAB ? (uint32_t)ELF_SHT_DYNSYM : linked->type;
    return linked->mapped && found == type ? linked : NULL;
}

/* Addresses in the file header, the program headers and the section headers. */
static bool header_refs(bspi_elf *elf) {
    if (elf->type == ELF_ET_REL)
        return true;
    if (!bspi_elf_add_address(elf, 24))
        return false;
    for (uint64_t pos = 0; pos < elf->segments_len; pos += ELF_SEGMENT_LEN)
        if (!bspi_elf_add_address(elf, elf->segments_off + pos + 16) ||
            !bspi_elf_add_address(elf, elf->segments_off + pos + 24))
            return false;
    for (uint64_t pos = 0; pos < elf->sections_len; pos += ELF_SECTION_LEN)
        if (!bspi_elf_add_address(elf, elf->sections_off + pos + 16))
            return false;
    return true;
}

/* Hands one section to the reader of its table, if it is a table. */
static bool table_refs(bspi_elf *elf, const bspi_elf_section *section) {
    switch (section->type) {
    case ELF_SHT_RELA:
        return bspi_elf_rela_refs(elf, section);
    case ELF_SHT_RELR:
        return bspi_elf_relr_refs(elf, section);
    case ELF_SHT_SYMTAB:
    case ELF_SHT_DYNSYM:
        return bspi_elf_symbol_refs(elf, section);
    case ELF_SHT_HASH:
        return bspi_elf_hash_refs(elf, section);
    case ELF_SHT_GNU_HASH:
        return bspi_elf_gnu_hash_refs(elf, section);
    case ELF_SHT_DYNAMIC:
        return bspi_elf_dynamic_refs(elf, section);
    default:
        break;
    }
    if (elf->btf_types != 0 && section->name == NAME(".BTF"))
        return bspi_elf_btf_refs(elf, section);
    if (elf->type == ELF_ET_REL || !section->mapped)
        return true; /* relocatable: the relocations name everything */
    bspi_section run = {.file_off = section->off,
                        .file_size = section->size,
                        .addr = section->addr,
                        .mem_size = section->size,
                        .name = section->name,
                        .mapped = 1};
    if (section->name == NAME(".eh_frame"))
        return bspi_eh_frame_refs(elf->file, elf->image, &run);
    if (section->name == NAME(".eh_frame_hdr"))
        return bspi_eh_frame_header_refs(elf->file, elf->image, &run);
    if (section->name == NAME(".got") || section->name == NAME(".got.plt"))
        return bspi_elf_pointer_refs(elf, section);
    /* Code at a fixed address needs no relocations: its pointers lie bare. */
    bool pointers = section->type == ELF_SHT_INIT_ARRAY || section->type == ELF_SHT_FINI_ARRAY ||
                    section->type == ELF_SHT_PREINIT_ARRAY ||
                    (section->type == ELF_SHT_PROGBITS &&
                     !(section->flags & (ELF_SHF_EXECINSTR | ELF_SHF_TLS)));
    if (elf->type == ELF_ET_EXEC && pointers)
        return bspi_elf_pointer_refs(elf, section);
    return true;
}

static bool read_image(bspi_elf *elf) {
    read_segments(elf);
    if (!read_sections(elf) || (elf->section_count == 0 && !make_up_sections(elf)) ||
        !bspi_elf_layout(elf) || !header_refs(elf))
        return false;
    elf->image->base_addr = elf->image->addr_low;
    for (size_t i = 0; i < elf->section_count; i++)
        if (elf->sections[i].whole && !table_refs(elf, &elf->sections[i]))
            return false;
    for (size_t i = 0; i < elf->image->section_count; i++) {
        const bspi_section *section = &elf->image->sections[i];
        if (section->role == BSPI_ROLE_CODE &&
            !bspi_jump_table_refs(elf->file, elf->image, section))
            return false;
    }
    return true;
}

bool bspi_elf_parse(bspi_file *file) {
    bspi_elf elf = {.file = file};
    if (!read_header(&elf))
        return true;
    if (!BSPI_ENSURE(file->images, file->image_count, file->image_capacity, file->heap))
        return false;
    elf.image = &file->images[file->image_count++];
    *elf.image = (bspi_image){
        .file_size = file->size,
        .format = BSPI_FORMAT_ELF,
        .arch = elf.machine == ELF_EM_AARCH64 ? BSPI_ARCH_ARM64 : BSPI_ARCH_X86_64,
        .subtype = elf.type};
    bool ok = read_image(&elf) && bspi_image_finish_refs(file, elf.image);
    bspi_free(file->heap, elf.sections);
    return ok;
}
