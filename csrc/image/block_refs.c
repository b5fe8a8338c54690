/* block_refs.c: every reference of one block of a file, or of a range in it: what
 * the instruction sets find in its code, merged with what the tables named
 * beforehand. */
#include "../common/bytes.h"
#include "arm64_filter.h"
#include "image.h"

/* A code reference that leads further than this from everything the image maps
 * is taken for data that looks like code. */
#define TARGET_SLACK 4096u

static bool has_base(uint8_t kind) {
    switch (kind) {
    case BSPI_REF_BASE32:
    case BSPI_REF_BASE16X4:
    case BSPI_REF_BASE8X4:
    case BSPI_REF_BASE24:
    case BSPI_REF_INDEX16:
    case BSPI_REF_INDEX24:
    case BSPI_REF_CHAIN_BIND24:
    case BSPI_REF_CHAIN_BIND16:
    case BSPI_REF_IMPORT23:
    case BSPI_REF_ULEB1:
    case BSPI_REF_ULEB2:
    case BSPI_REF_ULEB3:
    case BSPI_REF_ULEB4:
    case BSPI_REF_FILE32:
    case BSPI_REF_BASE64:
    case BSPI_REF_CHAIN64_OFFSET:
    case BSPI_REF_CHAIN_ARM64E_AUTH:
    case BSPI_REF_CHAIN_ARM64E_OFFSET:
        return true;
    default:
        return false;
    }
}

/* What is looked for: fields of the image that start in [begin, end). */
typedef struct range {
    const bspi_file *file;
    const bspi_image *image;
    uint64_t begin, end;
    const bspi_ref_filter *filter; /* NULL for everything */
    const bspi_section *near;      /* the last section asked for */
} range;

/* The part of an image in the block that holds `off`. */
typedef struct part {
    uint64_t begin, end;
} part;

static part part_at(const bspi_image *image, uint64_t off) {
    uint64_t begin = off >> BSPI_BLOCK_BITS << BSPI_BLOCK_BITS;
    uint64_t end = begin + (UINT64_C(1) << BSPI_BLOCK_BITS);
    return (part){BSPI_MAX(begin, image->file_off),
                  BSPI_MIN(end, image->file_off + image->file_size)};
}

static const bspi_section *section_at(range *r, uint64_t off) {
    const bspi_section *near = r->near;
    if (near == NULL || off - near->file_off >= near->file_size)
        r->near = near = bspi_section_at(r->image, off);
    return near;
}

/* Reads the data reference of the image that has this key; false when its bytes are
 * no such field, or its address cannot be known. */
static bool resolve(range *r, uint64_t key, bspi_ref *ref) {
    const bspi_image *image = r->image;
    uint64_t off = bspi_data_off(key);
    uint8_t kind = bspi_data_kind(key);
    uint32_t aux = bspi_data_aux(key);
    uint64_t site = 0, base = 0, target;
    if (kind == BSPI_REF_PC32 || kind == BSPI_REF_BACK32) {
        const bspi_section *s = section_at(r, off);
        if (s == NULL || !s->mapped)
            return false;
        site = s->addr + (off - s->file_off);
    }
    if (has_base(kind)) {
        if (aux >= image->base_count)
            return false;
        base = image->bases[aux];
    }
    if (!bspi_ref_read(kind, r->file->data + off, site, base, &target))
        return false;
    *ref = (bspi_ref){.off = off,
                      .target = target,
                      .base = base,
                      .kind = kind,
                      .size = (uint8_t)bspi_ref_size(kind)};
    return true;
}

/* Appends what x86-64 code at [begin, end) of the section holds.  Where its
 * instructions begin depends on the block. */
static void find_x86_64(const range *r, const bspi_section *s, uint64_t begin, uint64_t end,
                        bspi_ref_list *refs) {
    while (begin < end) {
        part block = part_at(r->image, begin);
        uint64_t stop = BSPI_MIN(end, block.end);
        uint64_t from = BSPI_MAX(block.begin, s->file_off);
        uint64_t to = BSPI_MIN(block.end, s->file_off + s->file_size);
        bspi_x86_64_refs_within(r->file->data + s->file_off, s->file_size, from - s->file_off,
                                to - s->file_off, begin - s->file_off, stop - s->file_off,
                                s->addr, s->file_off, refs);
        begin = stop;
    }
}

/* Appends what the instruction set finds in the image's code. */
static void find_code_refs(const range *r, bspi_ref_list *refs) {
    const bspi_image *image = r->image;
    size_t low = 0, high = image->section_count;
    while (low < high) { /* the first section that ends after begin */
        size_t mid = low + (high - low) / 2;
        const bspi_section *s = &image->sections[mid];
        if (s->file_size != 0 && s->file_off + s->file_size <= r->begin)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = low; i < image->section_count; i++) {
        const bspi_section *s = &image->sections[i];
        if (s->file_size == 0 || s->file_off >= r->end)
            return;
        if (s->role != BSPI_ROLE_CODE || !s->mapped)
            continue;
        uint64_t begin = BSPI_MAX(r->begin, s->file_off);
        uint64_t end = BSPI_MIN(r->end, s->file_off + s->file_size);
        if (image->arch == BSPI_ARCH_ARM64)
            bspi_arm64_refs_but(r->file->data + s->file_off, s->file_size, begin - s->file_off,
                                end - s->file_off, s->addr, s->file_off, r->filter, refs);
        else if (image->arch == BSPI_ARCH_X86_64)
            find_x86_64(r, s, begin, end, refs);
    }
}

static bool plausible(const bspi_image *image, uint64_t target) {
    uint64_t low = image->addr_low < TARGET_SLACK ? 0 : image->addr_low - TARGET_SLACK;
    uint64_t high = image->addr_high > UINT64_MAX - TARGET_SLACK ? UINT64_MAX
                                                                 : image->addr_high + TARGET_SLACK;
    return target >= low && target <= high;
}

/* Whether no data field can touch code in the range, `first` being the first one
 * that begins at or after its begin. */
static bool is_pure(const range *r, const bspi_data_cursor *first) {
    return (first->before == BSPI_DATA_NONE ||
            bspi_data_off(first->before) + BSPI_FIELD_MAX <= r->begin) &&
           !bspi_data_is_before(first, r->end + BSPI_FIELD_MAX);
}

/* Merging in a pure range: code refs are disjoint, so that each is kept that leads
 * somewhere. */
static void drop_implausible(const range *r, bspi_ref_list *refs, size_t first) {
    size_t kept = first;
    for (size_t i = first; i < refs->count; i++) {
        const bspi_ref *ref = &refs->items[i];
        if (!bspi_within(ref->off, ref->size, r->file->size) || !plausible(r->image, ref->target))
            continue;
        if (kept != i)
            refs->items[kept] = *ref;
        kept++;
    }
    refs->count = kept;
}

/* The end of a data field that reaches over `begin` from before it; its key is
 * `before`. */
static uint64_t reach_over(range *r, const part *block, uint64_t begin, uint64_t before) {
    if (before == BSPI_DATA_NONE)
        return begin;
    uint64_t off = bspi_data_off(before), end = off + bspi_ref_size(bspi_data_kind(before));
    bspi_ref unused;
    /* One of the block before counts by its place alone, unread. */
    if (end <= begin || (off >= block->begin && !resolve(r, before, &unused)))
        return begin;
    return end;
}

/* Where merging is: the code refs at hand, the data refs to come, the refs kept. */
typedef struct merge {
    bspi_ref *items;
    size_t code, code_end;
    bspi_data_cursor data;
    size_t kept;
} merge;

/* The next data field, whose offset is UINT64_MAX for none.  It may lie behind `end`:
 * code gives way to it. */
static bspi_ref next_field(range *r, merge *m, uint64_t end, uint64_t look_end) {
    bspi_ref field = {.off = UINT64_MAX};
    for (; bspi_data_is_before(&m->data, end); bspi_data_next(&m->data))
        if (resolve(r, m->data.key, &field))
            return field;
    bspi_data_cursor ahead = m->data;
    while (ahead.key != BSPI_DATA_NONE && !resolve(r, ahead.key, &field) &&
           bspi_data_off(ahead.key) < look_end)
        bspi_data_next(&ahead);
    return field;
}

/* Merges the refs of old [begin, end), a part of one block. */
static void merge_part(range *r, merge *m, const part *block, uint64_t begin, uint64_t end) {
    uint64_t done = reach_over(r, block, begin, m->data.before); /* all before is dealt with */
    uint64_t look_end = BSPI_MIN(block->end, end + BSPI_FIELD_MAX);
    for (;;) {
        bspi_ref field = next_field(r, m, end, look_end);
        uint64_t stop = BSPI_MIN(field.off, end);
        for (; m->code < m->code_end && m->items[m->code].off < stop; m->code++) {
            bspi_ref ref = m->items[m->code];
            if (ref.off < done || ref.size > field.off - ref.off ||
                !bspi_within(ref.off, ref.size, r->file->size) || !plausible(r->image, ref.target))
                continue;
            m->items[m->kept++] = ref;
            done = ref.off + ref.size;
        }
        if (field.off >= end)
            break;
        m->items[m->kept++] = field;
        done = field.off + field.size;
        bspi_data_next(&m->data);
    }
}

/* Appends the references of the range.  Code refs are found into the list
 * itself, behind a gap that holds every data ref there can be, and then moved
 * to their places among these. */
static void image_range_refs(range *r, bspi_ref_list *refs) {
    bspi_data_cursor first = bspi_data_find(&r->image->data, r->begin);
    size_t gap = 0;
    if (bspi_data_is_before(&first, r->end))
        gap = bspi_data_find(&r->image->data, r->end).index - first.index;
    size_t kept = refs->count;
    if (!bspi_ref_reserve(refs, gap))
        return;
    refs->count += gap;
    find_code_refs(r, refs);
    if (refs->failed)
        return;
    if (gap == 0 && r->image->arch == BSPI_ARCH_ARM64 && is_pure(r, &first)) {
        drop_implausible(r, refs, kept);
        return;
    }
    merge m = {refs->items, kept + gap, refs->count, first, kept};
    for (uint64_t begin = r->begin; begin < r->end;) {
        part block = part_at(r->image, begin);
        uint64_t end = BSPI_MIN(block.end, r->end);
        merge_part(r, &m, &block, begin, end);
        begin = end;
    }
    refs->count = m.kept;
}

void bspi_range_refs_but(const bspi_file *file, uint64_t begin, uint64_t end,
                         const bspi_ref_filter *filter, bspi_ref_list *refs) {
    end = BSPI_MIN(end, file->size);
    for (size_t i = 0; i < file->image_count; i++) {
        const bspi_image *image = &file->images[i];
        range r = {file, image, BSPI_MAX(begin, image->file_off),
                   BSPI_MIN(end, image->file_off + image->file_size), filter, NULL};
        if (r.begin < r.end)
            image_range_refs(&r, refs);
    }
}

void bspi_range_refs(const bspi_file *file, uint64_t begin, uint64_t end, bspi_ref_list *refs) {
    bspi_range_refs_but(file, begin, end, NULL, refs);
}

void bspi_block_refs(const bspi_file *file, uint64_t block, bspi_ref_list *refs) {
    if (block <= file->size >> BSPI_BLOCK_BITS)
        bspi_range_refs(file, block << BSPI_BLOCK_BITS, (block + 1) << BSPI_BLOCK_BITS, refs);
}
