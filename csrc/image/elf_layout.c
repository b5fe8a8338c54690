/* Turns ELF section and program headers into the image's sections: every byte
 * of the file in exactly one piece, every address in at most one. */
#include "elf.h"
#include "sort.h"

enum { NO_OWNER = 0 };

/* Synthetic addresses of a relocatable file's sections start here. */
#define OBJECT_BASE UINT64_C(0x10000000)
#define PAGE_LEN UINT64_C(4096)

typedef struct piece {
    uint64_t off; /* 0 for zero-fill */
    uint64_t size;
    uint64_t addr;
    size_t owner; /* 1 + index into elf->sections, NO_OWNER for the rest */
    size_t order; /* in which pieces joined the list */
    uint32_t name;
    uint8_t role;
    bool mapped;
} piece;

typedef struct piece_list {
    piece *items;
    size_t count;
    size_t capacity;
} piece_list;

/* A total order: segments and headers may share offset and size. */
static bool earlier(const piece *a, const piece *b) {
    if (a->off != b->off)
        return a->off < b->off;
    if (a->size != b->size)
        return a->size > b->size;
    if (a->owner != b->owner)
        return a->owner < b->owner;
    return a->order < b->order;
}

static bool before_in_file(void *items, size_t a, size_t b) {
    const piece *pieces = items;
    return earlier(&pieces[a], &pieces[b]);
}

static bool before_in_memory(void *items, size_t a, size_t b) {
    const piece *x = (const piece *)items + a, *y = (const piece *)items + b;
    if (x->mapped != y->mapped)
        return x->mapped;
    if (x->mapped && x->addr != y->addr)
        return x->addr < y->addr;
    return earlier(x, y);
}

static void swap_pieces(void *items, size_t a, size_t b) {
    piece *pieces = items;
    piece kept = pieces[a];
    pieces[a] = pieces[b];
    pieces[b] = kept;
}

static bool push(bspi_elf *elf, piece_list *list, const piece *item) {
    if (!BSPI_ENSURE(list->items, list->count, list->capacity, elf->file->heap))
        return false;
    list->items[list->count] = *item;
    list->items[list->count].order = list->count;
    list->count++;
    return true;
}

/* Pushes [start, end) of `whole`. */
static bool push_part(bspi_elf *elf, piece_list *list, const piece *whole, uint64_t start,
                      uint64_t end) {
    piece part = *whole;
    part.off = start;
    part.size = end - start;
    part.addr += start - whole->off; /* cannot overflow: the caller checked the whole */
    return push(elf, list, &part);
}

/* Adds to `placed` (sorted, disjoint) whatever of `wanted` is still free; the
 * earlier and longer of two that overlap wins.  Linear after the sort, and the
 * result has at most as many pieces as both lists together. */
static bool place(bspi_elf *elf, piece_list *placed, piece_list *wanted) {
    piece_list parts = {0}, merged = {0};
    bool ok = false;
    uint64_t taken = 0; /* up to here `wanted` itself has been dealt with */
    size_t next = 0;
    bspi_sort(wanted->items, wanted->count, before_in_file, swap_pieces);
    for (size_t i = 0; i < wanted->count; i++) {
        const piece *item = &wanted->items[i];
        uint64_t start = BSPI_MAX(item->off, taken), end = item->off + item->size;
        while (start < end) {
            while (next < placed->count &&
                   placed->items[next].off + placed->items[next].size <= start)
                next++;
            uint64_t free_end = next < placed->count ? placed->items[next].off : end;
            if (free_end > start &&
                !push_part(elf, &parts, item, start, BSPI_MIN(free_end, end)))
                goto out;
            if (next == placed->count || free_end >= end)
                break;
            start = placed->items[next].off + placed->items[next].size;
        }
        taken = BSPI_MAX(taken, end);
    }
    for (size_t i = 0, j = 0; i < placed->count || j < parts.count;) {
        bool first = j == parts.count ||
                     (i < placed->count && placed->items[i].off < parts.items[j].off);
        if (!push(elf, &merged, first ? &placed->items[i++] : &parts.items[j++]))
            goto out;
    }
    bspi_free(elf->file->heap, placed->items);
    *placed = merged;
    merged = (piece_list){0};
    ok = true;
out:
    bspi_free(elf->file->heap, merged.items);
    bspi_free(elf->file->heap, parts.items);
    wanted->count = 0;
    return ok;
}

/* Sets the part of the item that lies in the file; false when there is none. */
static bool clip(const bspi_elf *elf, piece *item) {
    if (item->off >= elf->file->size)
        return false;
    item->size = BSPI_MIN(item->size, elf->file->size - item->off);
    return item->size != 0;
}

/* Gives a piece the address that a segment loads it at, if one does. */
static void address_piece(const bspi_elf *elf, piece *item) {
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        if (item->off < segment->off ||
            !bspi_within(item->off - segment->off, item->size, segment->file_size))
            continue;
        item->addr = segment->addr + (item->off - segment->off);
        item->mapped = true;
        return;
    }
}

static bool want_headers(bspi_elf *elf, piece_list *wanted) {
    piece items[3] = {
        {.off = 0, .size = ELF_HEADER_LEN, .name = bspi_name_hash("ELF header", 10)},
        {.off = elf->segments_off,
         .size = elf->segments_len,
         .name = bspi_name_hash("program headers", 15)},
        {.off = elf->sections_off,
         .size = elf->sections_len,
         .name = bspi_name_hash("section headers", 15)},
    };
    for (size_t i = 0; i < 3; i++) {
        if (!clip(elf, &items[i]))
            continue;
        address_piece(elf, &items[i]);
        if (!push(elf, wanted, &items[i]))
            return false;
    }
    return true;
}

/* Does a segment load this section where the section says it is? Relocatable
 * files and others without segments are taken at their word. */
static bool is_loaded(const bspi_elf *elf, const bspi_elf_section *section) {
    if (elf->type == ELF_ET_REL || elf->segment_count == 0)
        return true;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        uint64_t offset = section->addr - segment->addr;
        if (section->addr < segment->addr || !bspi_within(offset, section->size, segment->mem_size))
            continue;
        if (section->type == ELF_SHT_NOBITS)
            return true;
        if (bspi_within(offset, section->size, segment->file_size) &&
            section->off >= segment->off && section->off - segment->off == offset)
            return true;
    }
    return false;
}

/* How far a section's header is to be believed. */
typedef enum trust {
    TRUST_LOADED, /* in the file and in memory */
    TRUST_FILE,   /* in the file only, as it says itself */
    TRUST_NOTHING /* it reaches out of the file, or is not where it says */
} trust;

static trust trust_of(const bspi_elf *elf, const bspi_elf_section *section) {
    uint64_t end;
    if (!bspi_within(section->off, section->size, elf->file->size))
        return TRUST_NOTHING;
    bool addressed = (section->flags & ELF_SHF_ALLOC) != 0 ||
                     (elf->type == ELF_ET_REL && section->addr != 0);
    if (!addressed)
        return TRUST_FILE;
    return bspi_add64(section->addr, section->size, &end) && is_loaded(elf, section)
               ? TRUST_LOADED
               : TRUST_NOTHING;
}

/* The sections with bytes that are trusted that far. */
static bool want_sections(bspi_elf *elf, trust level, piece_list *wanted) {
    for (size_t i = 0; i < elf->section_count; i++) {
        const bspi_elf_section *section = &elf->sections[i];
        if (section->type == ELF_SHT_NULL || section->type == ELF_SHT_NOBITS ||
            trust_of(elf, section) != level)
            continue;
        piece item = {
            .off = section->off, .size = section->size, .owner = i + 1, .name = section->name};
        if (level == TRUST_LOADED) {
            item.addr = section->addr;
            item.mapped = true;
            if (section->flags & ELF_SHF_EXECINSTR)
                item.role = BSPI_ROLE_CODE;
        }
        if (clip(elf, &item) && !push(elf, wanted, &item))
            return false;
    }
    return true;
}

/* What segments load outside any section, which may be all there is. */
static bool want_segments(bspi_elf *elf, piece_list *wanted) {
    bool alone = elf->sections_made_up || elf->section_count == 0;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        uint8_t name[5] = {'L', 'O', 'A', 'D', (uint8_t)i};
        piece item = {.off = segment->off,
                      .size = segment->file_size,
                      .addr = segment->addr,
                      .name = alone ? bspi_name_hash(name, sizeof name) : 0,
                      .role = alone && segment->executable ? BSPI_ROLE_CODE : BSPI_ROLE_OTHER,
                      .mapped = true};
        if (clip(elf, &item) && !push(elf, wanted, &item))
            return false;
    }
    return true;
}

/* Zero-fill: NOBITS sections, or what segments add to their bytes when there
 * are no sections.  Thread-local zero-fill is left out: its addresses overlap
 * what follows, and it has no memory of its own. */
static bool add_zero_fill(bspi_elf *elf, piece_list *pieces) {
    for (size_t i = 0; i < elf->section_count; i++) {
        const bspi_elf_section *section = &elf->sections[i];
        uint64_t end;
        if (section->type != ELF_SHT_NOBITS || !(section->flags & ELF_SHF_ALLOC) ||
            (section->flags & ELF_SHF_TLS) || section->size == 0 ||
            !bspi_add64(section->addr, section->size, &end) || !is_loaded(elf, section))
            continue;
        piece item = {.size = section->size,
                      .addr = section->addr,
                      .owner = i + 1,
                      .name = section->name,
                      .role = BSPI_ROLE_ZEROFILL,
                      .mapped = true};
        if (!push(elf, pieces, &item))
            return false;
    }
    if (elf->btf_types != 0) {
        piece types = {.size = ELF_BTF_SPACE,
                       .addr = elf->btf_types,
                       .name = bspi_name_hash("BTF types", 9),
                       .role = BSPI_ROLE_ZEROFILL,
                       .mapped = true};
        piece strings = types;
        strings.addr = elf->btf_strings;
        strings.name = bspi_name_hash("BTF strings", 11);
        if (!push(elf, pieces, &types) || !push(elf, pieces, &strings))
            return false;
    }
    if (elf->section_count != 0 && !elf->sections_made_up)
        return true;
    for (size_t i = 0; i < elf->segment_count; i++) {
        const bspi_elf_segment *segment = &elf->segments[i];
        uint8_t name[5] = {'Z', 'E', 'R', 'O', (uint8_t)i};
        piece item = {.size = segment->mem_size - segment->file_size,
                      .addr = segment->addr + segment->file_size,
                      .name = bspi_name_hash(name, sizeof name),
                      .role = BSPI_ROLE_ZEROFILL,
                      .mapped = true};
        if (item.size != 0 && !push(elf, pieces, &item))
            return false;
    }
    return true;
}

/* Names the nameless after the piece they follow, so that paddings pair up. */
static void name_gaps(piece_list *pieces) {
    uint32_t last = 0;
    for (size_t i = 0; i < pieces->count; i++) {
        uint8_t text[8] = {0, 0, 0, 0, ' ', 'g', 'a', 'p'};
        bspi_store32(text, last);
        if (pieces->items[i].name == 0)
            pieces->items[i].name = bspi_name_hash(text, sizeof text);
        last = pieces->items[i].name;
    }
}

/* Gives each address to one piece alone and tells the sections what became of
 * them. */
static void settle_memory(bspi_elf *elf, piece_list *pieces) {
    uint64_t taken = 0;
    bspi_sort(pieces->items, pieces->count, before_in_memory, swap_pieces);
    for (size_t i = 0; i < pieces->count; i++) {
        piece *item = &pieces->items[i];
        bool zero_fill = item->role == BSPI_ROLE_ZEROFILL;
        if (item->mapped && item->addr < taken) {
            item->mapped = false;
            item->role = zero_fill ? BSPI_ROLE_ZEROFILL : BSPI_ROLE_OTHER;
        }
        if (item->mapped)
            taken = item->addr + item->size;
        if (item->owner == NO_OWNER)
            continue;
        bspi_elf_section *owner = &elf->sections[item->owner - 1];
        owner->whole = !zero_fill && item->off == owner->off && item->size == owner->size;
        owner->mapped = item->mapped && item->addr == owner->addr && item->size == owner->size;
    }
}

/* Relocatable files have no addresses; references need some.  Symbol and string
 * tables get them too, because so much names their rows, and .BTF, which names
 * types and strings by numbers that this file alone does not explain, gets two
 * spaces of addresses for those numbers. */
static void address_object(bspi_elf *elf) {
    uint64_t next = OBJECT_BASE + (elf->file->size + PAGE_LEN - 1) / PAGE_LEN * PAGE_LEN;
    for (size_t i = 0; i < elf->section_count; i++) {
        bspi_elf_section *section = &elf->sections[i];
        bool allocated = (section->flags & ELF_SHF_ALLOC) != 0;
        section->addr = 0;
        if (section->type == ELF_SHT_NOBITS && allocated) {
            if (section->flags & ELF_SHF_TLS)
                continue;
            if (section->size >= UINT64_C(1) << 32) { /* not memory anybody could have */
                section->type = ELF_SHT_NULL;
                continue;
            }
            section->addr = next;
            next += (section->size + PAGE_LEN - 1) / PAGE_LEN * PAGE_LEN;
        } else if ((allocated || section->type == ELF_SHT_SYMTAB ||
                    section->type == ELF_SHT_STRTAB) &&
                   section->off < elf->file->size) {
            section->addr = OBJECT_BASE + section->off;
        }
        if (section->name == bspi_name_hash(".BTF", 4))
            elf->btf_types = 1;
    }
    if (elf->btf_types != 0) {
        elf->btf_types = next;
        elf->btf_strings = next + ELF_BTF_SPACE;
    }
}

static bool add_sections(bspi_elf *elf, const piece_list *pieces) {
    for (size_t i = 0; i < pieces->count; i++) {
        const piece *item = &pieces->items[i];
        bool zero_fill = item->role == BSPI_ROLE_ZEROFILL;
        if (zero_fill && !item->mapped)
            continue;
        bspi_section section = {.file_off = item->off,
                                .file_size = zero_fill ? 0 : item->size,
                                .addr = item->mapped ? item->addr : 0,
                                .mem_size = item->mapped ? item->size : 0,
                                .name = item->name,
                                .role = item->role,
                                .mapped = item->mapped};
        if (!bspi_image_add_section(elf->file, elf->image, &section))
            return false;
    }
    return true;
}

bool bspi_elf_layout(bspi_elf *elf) {
    piece_list pieces = {0}, wanted = {0};
    piece rest = {.size = elf->file->size};
    bool ok = false;
    if (elf->type == ELF_ET_REL)
        address_object(elf);
    /* In the order of trust: a later want gets only what is left. */
    ok = want_sections(elf, TRUST_LOADED, &wanted) && place(elf, &pieces, &wanted) &&
         want_headers(elf, &wanted) && place(elf, &pieces, &wanted) &&
         want_sections(elf, TRUST_FILE, &wanted) && place(elf, &pieces, &wanted) &&
         want_segments(elf, &wanted) && place(elf, &pieces, &wanted) &&
         want_sections(elf, TRUST_NOTHING, &wanted) && place(elf, &pieces, &wanted) &&
         push(elf, &wanted, &rest) && place(elf, &pieces, &wanted);
    if (ok) {
        name_gaps(&pieces);
        ok = add_zero_fill(elf, &pieces);
    }
    if (ok) {
        settle_memory(elf, &pieces);
        ok = add_sections(elf, &pieces);
        bspi_image_finish(elf->image);
    }
    bspi_free(elf->file->heap, pieces.items);
    bspi_free(elf->file->heap, wanted.items);
    return ok;
}
