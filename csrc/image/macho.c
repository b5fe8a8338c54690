/* macho.c: reads 64-bit Mach-O files, thin and fat: which pieces of the file
 * are mapped where, and which of them are tables to hand to their readers. */
#include "macho.h"

#include "../common/bytes.h"
#include "sort.h"
#include "tables.h"

#define MAGIC_64 0xFEEDFACFu
#define FAT_MAGIC 0xCAFEBABEu
#define FAT_MAGIC_64 0xCAFEBABFu
#define NAME_SIZE 16u

/* More than any real file has; they bound the work on hostile ones. */
#define MAX_SLICES 64u
#define MAX_SEGMENTS 256u

#define CPU_X86_64 0x01000007u
#define CPU_ARM64 0x0100000Cu

#define SECTION_TYPE 0xFFu
#define S_ZEROFILL 0x1u
#define S_GB_ZEROFILL 0xCu
#define S_THREAD_LOCAL_ZEROFILL 0x12u
#define S_INIT_FUNC_OFFSETS 0x16u
#define S_ATTR_PURE_INSTRUCTIONS 0x80000000u
#define S_ATTR_SOME_INSTRUCTIONS 0x400u

/* Load commands that name one range of __LINKEDIT: dataoff and datasize. */
static const struct {
    uint32_t command;
    const char *label;
} linkedit_commands[] = {
    {0x1D, "code_signature"},      {0x1E, "split_info"},         {0x26, "function_starts"},
    {LC_DATA_IN_CODE, "data_in_code"}, {0x2B, "code_sign_drs"},  {0x2E, "optimization_hint"},
    {0x36, "atom_info"},           {0x37, "function_variants"},  {0x38, "variant_fixups"},
    {LC_EXPORTS_TRIE, "exports_trie"}, {LC_CHAINED_FIXUPS, "chained_fixups"},
};

/* Sections whose contents have a reader of their own. */
static const struct {
    const char *name;
    bspi_table_reader *read;
} section_readers[] = {
    {"__unwind_info", bspi_unwind_info_refs},
    {"__eh_frame", bspi_eh_frame_refs},
    {"__init_offsets", bspi_image_offsets_refs},
    {"__objc_methlist", bspi_objc_methlist_refs},
    {"__swift5_types", bspi_relative_pointers_refs},
    {"__swift5_types2", bspi_relative_pointers_refs},
    {"__swift5_protos", bspi_relative_pointers_refs},
    {"__swift5_proto", bspi_relative_pointers_refs},
    {"__swift5_fieldmd", bspi_swift_fieldmd_refs},
    {"__gopclntab", bspi_go_pclntab_refs},
};

/* A part of a segment that has a name: a section, or a table of __LINKEDIT. */
typedef struct piece {
    bspi_section section;
    const char *label; /* not terminated when 16 bytes long */
    size_t label_len;
    bspi_table_reader *read; /* NULL for none */
    size_t order;            /* among the pieces that load commands name */
    bool placed;             /* has its address from a section header */
} piece;

/* A table of __LINKEDIT to read once sections are known. */
typedef struct range {
    uint64_t off;
    uint64_t size;
} range;

typedef struct slice {
    bspi_macho macho;
    uint64_t begin; /* of the slice in the file */
    uint64_t size;
    bspi_segment segments[MAX_SEGMENTS];
    size_t segment_count;
    piece *pieces;
    size_t piece_count;
    size_t piece_capacity;
    range fixups, rebase, symtab, strtab, indirect, exports, data_in_code;
} slice;

static uint32_t load32_big(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static uint64_t load64_big(const uint8_t *p) {
    return (uint64_t)load32_big(p) << 32 | load32_big(p + 4);
}

static size_t name_len(const uint8_t *name) {
    size_t len = 0;
    while (len < NAME_SIZE && name[len] != 0)
        len++;
    return len;
}

static bool name_is(const uint8_t *name, const char *text) {
    size_t len = strlen(text);
    return name_len(name) == len && memcmp(name, text, len) == 0;
}

/* Hash of "SEGMENT,label" followed by `suffix`. */
static uint32_t piece_name(const uint8_t *segment, const char *label, size_t label_len,
                           const char *suffix) {
    char text[NAME_SIZE + 64];
    size_t len = name_len(segment), suffix_len = strlen(suffix);
    memcpy(text, segment, len);
    text[len++] = ',';
    memcpy(text + len, label, label_len);
    len += label_len;
    memcpy(text + len, suffix, suffix_len);
    return bspi_name_hash(text, len + suffix_len);
}

/* --- load commands --- */

static bool push_piece(slice *s, const piece *p) {
    if (!BSPI_ENSURE(s->pieces, s->piece_count, s->piece_capacity, s->macho.file->heap))
        return false;
    s->pieces[s->piece_count] = *p;
    s->pieces[s->piece_count].order = s->piece_count;
    s->piece_count++;
    return true;
}

/* A table of __LINKEDIT that a load command names; `off` is from the start of
 * the slice.  *where, if wanted, is set when the range is sound. */
static bool add_linkedit(slice *s, uint64_t off, uint64_t size, const char *label, range *where) {
    if (size == 0 || !bspi_within(off, size, s->size))
        return true;
    if (where != NULL)
        *where = (range){s->begin + off, size};
    piece p = {.section = {.file_off = s->begin + off, .file_size = size},
               .label = label,
               .label_len = strlen(label)};
    return push_piece(s, &p);
}

static bool is_code(const uint8_t *name, uint32_t flags) {
    return (flags & (S_ATTR_PURE_INSTRUCTIONS | S_ATTR_SOME_INSTRUCTIONS)) != 0 ||
           name_is(name, "__text");
}

static bspi_table_reader *reader_of(const uint8_t *name, uint32_t flags) {
    if ((flags & SECTION_TYPE) == S_INIT_FUNC_OFFSETS)
        return bspi_image_offsets_refs;
    for (size_t i = 0; i < sizeof section_readers / sizeof *section_readers; i++)
        if (name_is(name, section_readers[i].name))
            return section_readers[i].read;
    return NULL;
}

static bool add_section(slice *s, const uint8_t *header) {
    uint32_t flags = bspi_load32(header + 64);
    uint32_t type = flags & SECTION_TYPE;
    uint64_t size = bspi_load64(header + 40), off = bspi_load32(header + 48);
    piece p = {.section = {.addr = bspi_load64(header + 32), .mem_size = size, .mapped = 1},
               .label = (const char *)header,
               .label_len = name_len(header),
               .placed = true};
    uint64_t end;
    if (size == 0 || !bspi_add64(p.section.addr, size, &end))
        return true;
    if (type == S_ZEROFILL || type == S_GB_ZEROFILL || type == S_THREAD_LOCAL_ZEROFILL) {
        p.section.role = BSPI_ROLE_ZEROFILL;
        p.section.name = piece_name(header + 16, p.label, p.label_len, "");
        return bspi_image_add_section(s->macho.file, s->macho.image, &p.section);
    }
    if (!bspi_within(off, size, s->size))
        return true;
    p.section.file_off = s->begin + off;
    p.section.file_size = size;
    p.section.role = is_code(header, flags) ? BSPI_ROLE_CODE : BSPI_ROLE_OTHER;
    p.read = reader_of(header, flags);
    return push_piece(s, &p);
}

static bool read_segment(slice *s, const uint8_t *command, uint32_t size) {
    if (size < SEGMENT_COMMAND_SIZE || s->segment_count >= MAX_SEGMENTS)
        return true;
    uint64_t off = bspi_load64(command + 40), unused;
    bspi_segment *segment = &s->segments[s->segment_count++];
    *segment = (bspi_segment){.name = command + 8,
                              .addr = bspi_load64(command + 24),
                              .mem_size = bspi_load64(command + 32),
                              .file_size = bspi_load64(command + 48)};
    segment->sound = bspi_within(off, segment->file_size, s->size) &&
                     bspi_add64(segment->addr, segment->mem_size, &unused);
    if (segment->sound)
        segment->file_off = s->begin + off;
    uint32_t count = bspi_load32(command + 64);
    count = BSPI_MIN(count, (size - SEGMENT_COMMAND_SIZE) / SECTION_SIZE);
    for (uint32_t i = 0; i < count; i++)
        if (!add_section(s, command + SEGMENT_COMMAND_SIZE + (size_t)i * SECTION_SIZE))
            return false;
    return true;
}

/* The range of `count` entries of `entry` bytes that two words of a load
 * command name. */
static bool read_range(slice *s, const uint8_t *words, uint64_t entry, const char *label,
                       range *where) {
    return add_linkedit(s, bspi_load32(words), bspi_load32(words + 4) * entry, label, where);
}

const char *bspi_linkedit_label(uint32_t command) {
    for (size_t i = 0; i < sizeof linkedit_commands / sizeof *linkedit_commands; i++)
        if (linkedit_commands[i].command == command)
            return linkedit_commands[i].label;
    return NULL;
}

static bool read_command(slice *s, uint32_t command, const uint8_t *p, uint32_t size) {
    if (command == LC_SEGMENT_64)
        return read_segment(s, p, size);
    if (command == LC_SYMTAB && size >= 24) {
        return read_range(s, p + 8, 16, "symtab", &s->symtab) &&
               read_range(s, p + 16, 1, "strtab", &s->strtab);
    }
    if (command == LC_DYSYMTAB && size >= 80) {
        return read_range(s, p + 32, 8, "toc", NULL) &&
               read_range(s, p + 56, 4, "indirect_symtab", &s->indirect) &&
               read_range(s, p + 64, 8, "external_relocs", NULL) &&
               read_range(s, p + 72, 8, "local_relocs", NULL);
    }
    if ((command == LC_DYLD_INFO || command == LC_DYLD_INFO_ONLY) && size >= 48) {
        return read_range(s, p + 8, 1, "rebase", &s->rebase) &&
               read_range(s, p + 16, 1, "bind", NULL) &&
               read_range(s, p + 24, 1, "weak_bind", NULL) &&
               read_range(s, p + 32, 1, "lazy_bind", NULL) &&
               read_range(s, p + 40, 1, "export", &s->exports);
    }
    const char *label = bspi_linkedit_label(command);
    if (label == NULL || size < 16)
        return true;
    range *where = command == LC_CHAINED_FIXUPS ? &s->fixups
                   : command == LC_EXPORTS_TRIE ? &s->exports
                   : command == LC_DATA_IN_CODE ? &s->data_in_code
                                                : NULL;
    return read_range(s, p + 8, 1, label, where);
}

static bool read_commands(slice *s) {
    const uint8_t *header = s->macho.file->data + s->begin;
    uint32_t count = bspi_load32(header + 16);
    uint64_t pos = HEADER_SIZE, end = HEADER_SIZE + (uint64_t)bspi_load32(header + 20);
    end = BSPI_MIN(end, s->size);
    for (uint32_t i = 0; i < count && end - pos >= 8; i++) {
        uint32_t size = bspi_load32(header + pos + 4);
        if (size < 8 || size > end - pos)
            break;
        if (!read_command(s, bspi_load32(header + pos), header + pos, size))
            return false;
        pos += size;
    }
    return true;
}

/* --- from segments and pieces to sections --- */

static bool piece_less(void *items, size_t a, size_t b) {
    const piece *x = (const piece *)items + a, *y = (const piece *)items + b;
    if (x->section.file_off != y->section.file_off)
        return x->section.file_off < y->section.file_off;
    if (x->section.file_size != y->section.file_size)
        return x->section.file_size < y->section.file_size;
    return x->order < y->order;
}

static void piece_swap(void *items, size_t a, size_t b) {
    piece *pieces = items, kept = pieces[a];
    pieces[a] = pieces[b];
    pieces[b] = kept;
}

/* Gives [from, to) of a segment, which no piece covers, a section of its own. */
static bool add_gap(slice *s, const bspi_segment *segment, uint64_t from, uint64_t to,
                    const piece *before) {
    if (from >= to)
        return true;
    uint64_t at = from - segment->file_off;
    bspi_section gap = {.file_off = from, .file_size = to - from};
    gap.name = before == NULL
                   ? piece_name(segment->name, "", 0, "start")
                   : piece_name(segment->name, before->label, before->label_len, "+");
    if (bspi_within(at, gap.file_size, segment->mem_size)) {
        gap.addr = segment->addr + at;
        gap.mem_size = gap.file_size;
        gap.mapped = 1;
    }
    return bspi_image_add_section(s->macho.file, s->macho.image, &gap);
}

/* Adds one segment's pieces, from s->pieces[*next] on, and the gaps between. */
static bool add_pieces(slice *s, const bspi_segment *segment, size_t *next) {
    uint64_t done = segment->file_off, end = segment->file_off + segment->file_size;
    const piece *before = NULL;
    for (; *next < s->piece_count; ++*next) {
        piece *p = &s->pieces[*next];
        bspi_section *section = &p->section;
        if (section->file_off >= end)
            break;
        if (section->file_off < done || section->file_size > end - section->file_off) {
            p->read = NULL; /* overlaps another, or belongs to no segment */
            continue;
        }
        uint64_t at = section->file_off - segment->file_off;
        if (!p->placed && bspi_within(at, section->file_size, segment->mem_size)) {
            section->addr = segment->addr + at;
            section->mem_size = section->file_size;
            section->mapped = 1;
        }
        section->name = piece_name(segment->name, p->label, p->label_len, "");
        if (!add_gap(s, segment, done, section->file_off, before) ||
            !bspi_image_add_section(s->macho.file, s->macho.image, section))
            return false;
        done = section->file_off + section->file_size;
        before = p;
    }
    return add_gap(s, segment, done, end, before);
}

static bool add_sections(slice *s) {
    /* Segments in file order, without those that overlap an earlier one. */
    bspi_segment *order[MAX_SEGMENTS];
    size_t count = 0;
    for (size_t i = 0; i < s->segment_count; i++) {
        bspi_segment *segment = &s->segments[i];
        if (!segment->sound || segment->file_size == 0)
            continue;
        size_t at = count++;
        for (; at > 0 && order[at - 1]->file_off > segment->file_off; at--)
            order[at] = order[at - 1];
        order[at] = segment;
    }
    bspi_sort(s->pieces, s->piece_count, piece_less, piece_swap);
    uint64_t done = s->begin;
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        if (order[i]->file_off < done) {
            order[i]->sound = false;
            continue;
        }
        for (; next < s->piece_count && s->pieces[next].section.file_off < order[i]->file_off;
             next++)
            s->pieces[next].read = NULL;
        if (!add_pieces(s, order[i], &next))
            return false;
        done = order[i]->file_off + order[i]->file_size;
    }
    for (; next < s->piece_count; next++)
        s->pieces[next].read = NULL;
    return true;
}

/* --- one slice --- */

/* Where the Mach-O header is mapped: what image-relative values count from. */
static uint64_t base_addr(const slice *s) {
    for (size_t i = 0; i < s->segment_count; i++) {
        const bspi_segment *segment = &s->segments[i];
        if (segment->sound && segment->file_size != 0 && segment->file_off == s->begin)
            return segment->addr;
    }
    for (size_t i = 0; i < s->segment_count; i++)
        if (name_is(s->segments[i].name, "__TEXT"))
            return s->segments[i].addr;
    return 0;
}

bool bspi_macho_add_base_at(const bspi_macho *macho, uint64_t off, uint32_t *aux, bool *found) {
    const bspi_section *section = bspi_section_at(macho->image, off);
    *found = section != NULL && section->mapped;
    return !*found || bspi_image_add_base(macho->file, macho->image,
                                          section->addr + (off - section->file_off), aux);
}

static bool read_tables(slice *s) {
    bspi_file *file = s->macho.file;
    bspi_image *image = s->macho.image;
    bool has_go = false; /* that table's reader looks through the whole image: once */
    for (size_t i = 0; i < s->piece_count; i++) {
        const piece *p = &s->pieces[i];
        bool is_go = p->read == bspi_go_pclntab_refs;
        if (p->read == NULL || (is_go && has_go))
            continue;
        if (!p->read(file, image, &p->section))
            return false;
        has_go |= is_go;
    }
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_section *section = &image->sections[i];
        if (section->role == BSPI_ROLE_CODE && !bspi_jump_table_refs(file, image, section))
            return false;
    }
    return bspi_macho_header_refs(&s->macho, s->begin, s->size) &&
           bspi_chained_fixups_refs(&s->macho, s->fixups.off, s->fixups.size) &&
           bspi_rebase_refs(&s->macho, s->rebase.off, s->rebase.size) &&
           bspi_data_in_code_refs(&s->macho, s->data_in_code.off, s->data_in_code.size) &&
           bspi_export_trie_refs(&s->macho, s->exports.off, s->exports.size) &&
           bspi_nlist_refs(&s->macho, s->symtab.off, s->symtab.size / 16, s->strtab.off) &&
           bspi_indirect_symbols_refs(&s->macho, s->indirect.off, s->indirect.size,
                                      s->symtab.off);
}

static bool read_slice(bspi_file *file, uint64_t begin, uint64_t size) {
    const uint8_t *header = file->data + begin;
    if (size < HEADER_SIZE || bspi_load32(header) != MAGIC_64)
        return true;
    if (!BSPI_ENSURE(file->images, file->image_count, file->image_capacity, file->heap))
        return false;
    bspi_image *image = &file->images[file->image_count++];
    uint32_t cpu = bspi_load32(header + 4);
    *image = (bspi_image){.file_off = begin,
                          .file_size = size,
                          .format = BSPI_FORMAT_MACHO,
                          .arch = cpu == CPU_ARM64    ? BSPI_ARCH_ARM64
                                  : cpu == CPU_X86_64 ? BSPI_ARCH_X86_64
                                                      : BSPI_ARCH_NONE,
                          .subtype = bspi_load32(header + 8) & 0xFFFFFFu};
    slice *s = bspi_alloc(file->heap, 1, sizeof *s, true);
    if (s == NULL)
        return false;
    s->begin = begin;
    s->size = size;
    s->macho = (bspi_macho){.file = file, .image = image, .segments = s->segments};
    bool ok = read_commands(s);
    s->macho.segment_count = s->segment_count;
    ok = ok && add_sections(s);
    if (ok) {
        image->base_addr = base_addr(s);
        bspi_image_finish(image); /* the search for jump tables looks addresses up */
        ok = read_tables(s) && bspi_image_finish_refs(file, image);
    }
    bspi_free(file->heap, s->pieces);
    bspi_free(file->heap, s);
    return ok;
}

/* --- the fat header --- */

/* Reads the slices of a fat file in file order; one that overlaps an earlier
 * one is left out. */
static bool read_fat(bspi_file *file, bool wide) {
    uint64_t entry = wide ? 32 : 20, count = load32_big(file->data + 4);
    range slices[MAX_SLICES];
    size_t sound = 0;
    count = BSPI_MIN(BSPI_MIN(count, MAX_SLICES), (file->size - 8) / entry);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *p = file->data + 8 + i * entry;
        range r = wide ? (range){load64_big(p + 8), load64_big(p + 16)}
                       : (range){load32_big(p + 8), load32_big(p + 12)};
        if (!bspi_within(r.off, r.size, file->size))
            continue;
        size_t at = sound++;
        for (; at > 0 && slices[at - 1].off > r.off; at--)
            slices[at] = slices[at - 1];
        slices[at] = r;
    }
    uint64_t done = 0;
    for (size_t i = 0; i < sound; i++) {
        if (slices[i].off < done || slices[i].size == 0)
            continue;
        if (!read_slice(file, slices[i].off, slices[i].size))
            return false;
        done = slices[i].off + slices[i].size;
    }
    return true;
}

bool bspi_macho_parse(bspi_file *file) {
    if (file->size < 8)
        return true;
    uint32_t magic = load32_big(file->data);
    if (magic == FAT_MAGIC || magic == FAT_MAGIC_64)
        return read_fat(file, magic == FAT_MAGIC_64);
    return read_slice(file, 0, file->size);
}
