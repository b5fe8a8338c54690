/* rewrite.c: predicts a window: copies what the cover brings to it and rewrites
 * the references in it.
 *
 * Says the same of every field as bspi_walk, but asks less.  The pieces of the
 * window are taken in the order of the old file, so that no block of it is
 * searched twice; sections are looked up once for a stretch; a field whose site and
 * target move alike, as most do, is left as it was copied; and in longer pieces
 * branches of arm64 that stay in their run of the cover are not even listed.
 */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "../image/arm64_access.h"
#include "../image/arm64_filter.h"
#include "predictor.h"

#define PAGE_MASK UINT64_C(0xfff)
/* The old file is searched for references by chunks of this size at most.  What
 * lies between two pieces is searched with them when it is no longer than GAP:
 * to begin anew costs as much. */
#define CHUNK_BITS 16
#define GAP 4096u
/* A part of a piece that is as long is searched by itself, for what may change. */
#define LONG_PART 4096u

/* Old offsets [begin, end) of one piece that lie in the same sections. */
typedef struct stretch {
    uint64_t begin, end;
    const bspi_address_map *map; /* NULL: in no image or section of the new file */
    uint64_t new_site;           /* new address of a field, less its old offset */
    bool in_section;             /* of the old file; the next three only then */
    uint64_t old_site;           /* old address, less the offset */
    uint64_t shift;              /* of the addresses of fields */
    uint64_t run;                /* the old address at which the cover's entry begins */
} stretch;

typedef struct window {
    const bspi_predictor *predictor;
    uint64_t begin;
    uint8_t *out;
    size_t len;
    bool without_pages;
    const bspi_cover *entry;
    uint64_t to_new; /* what the entry adds to old offsets */
    stretch at;
    size_t fix;       /* the next fix of the entry not behind the current field */
    uint64_t fix_off; /* its new offset, UINT64_MAX for none */
    const bspi_address_map *map; /* what the next three were looked up in */
    bspi_near near;              /* of the last target */
    uint64_t old_base, new_base; /* the last base, 0 for none */
} window;

static void enter_stretch(window *w, uint64_t old_off) {
    const bspi_predictor *p = w->predictor;
    stretch *at = &w->at;
    uint64_t image_begin;
    int index = bspi_image_of(p, old_off, &image_begin, &at->end);
    at->begin = old_off;
    at->map = NULL;
    if (index < 0)
        return;
    const bspi_layout_image *image = &p->layout->images[index];
    const bspi_layout_section *to = bspi_layout_at(image, old_off + w->to_new);
    if (to == NULL) {
        at->end = old_off + 1;
        return;
    }
    at->map = &p->maps[index];
    if (w->map != at->map) {
        w->map = at->map;
        w->near.len = 0;
        w->old_base = 0;
    }
    at->end = BSPI_MIN(at->end, to->file_off + to->file_size - w->to_new);
    at->new_site = to->addr - to->file_off + w->to_new;
    const bspi_section *from = bspi_section_at(&p->old->images[image->old_image], old_off);
    at->in_section = from != NULL;
    if (from == NULL) {
        at->end = old_off + 1;
        return;
    }
    at->end = BSPI_MIN(at->end, from->file_off + from->file_size);
    at->old_site = from->addr - from->file_off;
    at->shift = at->new_site - at->old_site;
    at->run = at->old_site + w->entry->old_off;
}

static size_t first_fix(const bspi_predictor *p, uint64_t new_off) {
    size_t low = 0, high = p->fix_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->fixes[middle].new_off < new_off)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void set_fix(window *w, size_t fix) {
    w->fix = fix;
    w->fix_off = fix < w->predictor->fix_count ? w->predictor->fixes[fix].new_off : UINT64_MAX;
}

/* As bspi_ref_write on a field that is of the kind, for the commonest of arm64; false
 * for another kind. */
static inline bool write_arm64(uint8_t kind, uint8_t *field, uint64_t site, uint64_t target) {
    uint32_t word = bspi_load32(field);
    switch (kind) {
    case BSPI_REF_A64_B26: {
        uint64_t number = target - site;
        if ((number & 3) == 0 && number + (UINT64_C(1) << 27) < UINT64_C(1) << 28)
            bspi_store32(field, (word & 0xFC000000) | (uint32_t)(number >> 2 & 0x3FFFFFF));
        return true;
    }
    case BSPI_REF_A64_ADRP: {
        uint64_t pages = (target >> 12) - (site >> 12);
        pages = (uint64_t)bspi_sign_extend(pages, 52); /* the address space wraps */
        if (pages + (UINT64_C(1) << 20) < UINT64_C(1) << 21)
            bspi_store32(field, (word & 0x9F00001F) | (uint32_t)((pages & 3) << 29) |
                                    (uint32_t)((pages >> 2 & 0x7FFFF) << 5));
        return true;
    }
    case BSPI_REF_A64_ADD12:
        bspi_store32(field, (word & 0xFFC003FF) | (uint32_t)(target & PAGE_MASK) << 10);
        return true;
    case BSPI_REF_A64_LDST12: {
        unsigned scale = (unsigned)bspi_arm64_access_scale(word);
        uint32_t low = (uint32_t)(target & PAGE_MASK);
        if ((low & ((1u << scale) - 1)) == 0)
            bspi_store32(field, (word & 0xFFC003FF) | low >> scale << 10);
        return true;
    }
    default:
        return false;
    }
}

/* Writes `target` into the field at new_off. */
static void write_field(window *w, const bspi_ref *ref, uint64_t new_off, uint64_t target,
                        uint64_t base) {
    uint64_t site = ref->off + w->at.new_site;
    if (new_off >= w->begin && bspi_within(new_off - w->begin, ref->size, w->len)) {
        uint8_t *field = w->out + (new_off - w->begin);
        if (!write_arm64(ref->kind, field, site, target))
            (void)bspi_ref_write(ref->kind, field, site, base, target);
        return;
    }
    uint8_t field[BSPI_FIELD_MAX]; /* the window cuts it */
    memcpy(field, w->predictor->old->data + ref->off, ref->size);
    if (!bspi_ref_write(ref->kind, field, site, base, target))
        return;
    for (unsigned i = 0; i < ref->size; i++) {
        uint64_t off = new_off + i;
        if (off >= w->begin && off - w->begin < w->len)
            w->out[off - w->begin] = field[i];
    }
}

static uint64_t map_base(window *w, uint64_t base) {
    if (base == 0)
        return 0;
    if (base != w->old_base) {
        w->old_base = base;
        w->new_base = bspi_map_target(w->at.map, base);
    }
    return w->new_base;
}

static inline void rewrite_field(window *w, const bspi_ref *ref) {
    const stretch *at = &w->at;
    if (ref->off >= at->end)
        enter_stretch(w, ref->off);
    if (at->map == NULL)
        return;
    uint64_t old = ref->target, target, base = 0;
    bool same; /* writing would not change the field */
    switch (ref->kind) {
    case BSPI_REF_A64_B26:
    case BSPI_REF_A64_B19:
    case BSPI_REF_A64_B14:
    case BSPI_REF_A64_LIT19:
    case BSPI_REF_A64_ADR:
    case BSPI_REF_X64_REL32:
    case BSPI_REF_X64_REL8:
        if (!at->in_section)
            return;
        /* A branch within one run of the cover stays within it. */
        target = old - at->run < w->entry->len ? old + at->shift : bspi_map_far(at->map, old);
        same = target - old == at->shift;
        base = ref->base + at->shift; /* of x86-64; arm64 counts from the site */
        break;
    case BSPI_REF_X64_RIP32:
        if (!at->in_section)
            return;
        target = bspi_map_near(at->map, old, &w->near);
        same = target - old == at->shift;
        base = ref->base + at->shift;
        break;
    case BSPI_REF_A64_ADRP: {
        uint64_t old_page = (ref->off + at->old_site) & ~PAGE_MASK;
        uint64_t new_page = (ref->off + at->new_site) & ~PAGE_MASK;
        target = bspi_map_near(at->map, old, &w->near);
        same = at->in_section &&
               (target & ~PAGE_MASK) - new_page == (old & ~PAGE_MASK) - old_page;
        break;
    }
    case BSPI_REF_A64_ADD12:
    case BSPI_REF_A64_LDST12:
        target = bspi_map_near(at->map, old, &w->near);
        same = ((target ^ old) & PAGE_MASK) == 0; /* they hold no more of it */
        break;
    case BSPI_REF_BASE24: {
        const bspi_predictor *p = w->predictor;
        const bspi_unwind_page *page =
            w->without_pages ? NULL
                             : bspi_unwind_page_at(p->pages, p->page_count, ref->off + w->to_new);
        target = bspi_map_near(at->map, old, &w->near);
        base = page != NULL ? page->base : bspi_map_target(at->map, ref->base);
        same = target - base == old - ref->base;
        break;
    }
    case BSPI_REF_FILE32:
        target = bspi_map_near(at->map, old, &w->near);
        base = ref->base;
        same = target == old;
        break;
    case BSPI_REF_PC32:
    case BSPI_REF_BACK32:
        target = bspi_map_near(at->map, old, &w->near);
        same = at->in_section && target - old == at->shift;
        break;
    default:
        target = bspi_map_near(at->map, old, &w->near);
        base = map_base(w, ref->base);
        same = target - base == old - ref->base;
        break;
    }
    uint64_t new_off = ref->off + w->to_new;
    while (w->fix_off < new_off)
        set_fix(w, w->fix + 1);
    if (w->fix_off == new_off)
        target += (uint64_t)w->predictor->fixes[w->fix].delta << bspi_ref_unit_bits(ref->kind);
    else if (same)
        return;
    write_field(w, ref, new_off, target, base);
}

static bool is_long(const bspi_piece *piece, uint64_t off, uint64_t stop) {
    return BSPI_MIN(piece->old_end, stop) - off >= LONG_PART;
}

/* The references of old [off, stop), a part of one chunk, and with them what the
 * pieces from `piece` on will ask of that chunk soon: what is searched is searched
 * once.  NULL when memory is refused. */
static const bspi_ref_list *wanted_refs(bspi_walker *walker, const bspi_piece *piece,
                                        const bspi_piece *last, uint64_t off, uint64_t stop) {
    uint64_t chunk = off >> CHUNK_BITS, chunk_end = (chunk + 1) << CHUNK_BITS;
    bspi_found *found = &walker->chunks[chunk % BSPI_WALKER_CHUNKS];
    if (!bspi_found_holds(found, off, stop))
        for (; piece < last && piece->old_off < chunk_end && piece->old_off <= stop + GAP; piece++)
            if (!is_long(piece, BSPI_MAX(piece->old_off, off), chunk_end))
                stop = BSPI_MAX(stop, BSPI_MIN(piece->old_end, chunk_end));
    return bspi_find_refs(walker->predictor, off, stop, found) ? &found->refs : NULL;
}

/* Notes in `filter` the old offsets in [off, stop) of fields that the entry's fixes
 * change; false when there are too many. */
static bool keep_fixed(const window *w, uint64_t off, uint64_t stop, bspi_ref_filter *filter) {
    const bspi_predictor *p = w->predictor;
    filter->kept_count = 0;
    for (size_t i = first_fix(p, off + w->to_new);
         i < p->fix_count && p->fixes[i].new_off < stop + w->to_new; i++) {
        if (filter->kept_count == BSPI_FILTER_KEPT)
            return false;
        filter->kept[filter->kept_count++] = p->fixes[i].new_off - w->to_new;
    }
    return true;
}

/* The references of old [off, stop), a part of one chunk and of `piece`, but perhaps
 * for those that are not to be rewritten.  NULL when memory is refused. */
static const bspi_ref_list *refs_to_rewrite(bspi_walker *walker, const window *w,
                                            const bspi_piece *piece, const bspi_piece *last,
                                            uint64_t off, uint64_t stop) {
    bspi_ref_filter filter = {.run_off = w->entry->old_off, .run_len = w->entry->len};
    if (!is_long(piece, off, stop) || !keep_fixed(w, off, stop, &filter))
        return wanted_refs(walker, piece, last, off, stop);
    /* Not where what is searched for short pieces around this one is. */
    uint64_t slot = (off >> CHUNK_BITS) + BSPI_WALKER_CHUNKS / 2;
    bspi_found *found = &walker->chunks[slot % BSPI_WALKER_CHUNKS];
    found->begin = found->end = 0; /* others cannot use it */
    found->refs.count = 0;
    found->refs.failed = false;
    bspi_range_refs_but(walker->predictor->old, off, stop, &filter, &found->refs);
    return found->refs.failed ? NULL : &found->refs;
}

static bool rewrite_piece(bspi_walker *walker, window *w, const bspi_piece *piece,
                          const bspi_piece *last) {
    const bspi_cover *entry = w->entry = piece->entry;
    uint64_t entry_end = entry->old_off + entry->len;
    w->to_new = entry->new_off - entry->old_off;
    w->at.end = 0;
    set_fix(w, first_fix(w->predictor, piece->old_off + w->to_new));
    for (uint64_t off = piece->old_off; off < piece->old_end;) {
        uint64_t stop = BSPI_MIN(((off >> CHUNK_BITS) + 1) << CHUNK_BITS, piece->old_end);
        const bspi_ref_list *refs = refs_to_rewrite(walker, w, piece, last, off, stop);
        if (refs == NULL)
            return false;
        size_t end = bspi_first_ref(refs, stop);
        for (size_t i = bspi_first_ref(refs, off); i < end; i++)
            if (refs->items[i].size <= entry_end - refs->items[i].off)
                rewrite_field(w, &refs->items[i]); /* else the entry ends inside the field */
        off = stop;
    }
    return true;
}

static int by_old_off(const void *left, const void *right) {
    const bspi_piece *a = left, *b = right;
    if (a->old_off != b->old_off)
        return a->old_off < b->old_off ? -1 : 1;
    return a->entry < b->entry ? -1 : a->entry > b->entry;
}

/* Copies old bytes to `out` and notes in *count pieces where the fields start
 * that reach into it. */
static bool copy_pieces(bspi_walker *walker, uint64_t begin, uint8_t *out, size_t len,
                        size_t *count) {
    const bspi_predictor *p = walker->predictor;
    uint64_t first = begin > BSPI_FIELD_MAX - 1 ? begin - (BSPI_FIELD_MAX - 1) : 0, end = begin + len;
    *count = 0;
    for (size_t i = bspi_cover_find(p->cover, p->cover_count, first); i < p->cover_count; i++) {
        const bspi_cover *entry = &p->cover[i];
        if (entry->new_off >= end)
            break;
        uint64_t from = BSPI_MAX(entry->new_off, first);
        uint64_t to = BSPI_MIN(entry->new_off + entry->len, end);
        if (!BSPI_ENSURE(walker->pieces, *count, walker->piece_capacity, p->heap))
            return false;
        walker->pieces[(*count)++] = (bspi_piece){entry, from - entry->new_off + entry->old_off,
                                                  to - entry->new_off + entry->old_off};
        from = BSPI_MAX(from, begin);
        if (from < to)
            memcpy(out + (from - begin), p->old->data + (from - entry->new_off) + entry->old_off,
                   (size_t)(to - from));
    }
    return true;
}

bool bspi_predict(bspi_walker *walker, uint64_t begin, uint8_t *out, size_t len) {
    const bspi_predictor *p = walker->predictor;
    size_t count;
    if (!copy_pieces(walker, begin, out, len, &count))
        return false;
    if (p->layout->image_count == 0 || count == 0)
        return true;
    qsort(walker->pieces, count, sizeof *walker->pieces, by_old_off);
    window w = {.predictor = p, .begin = begin, .out = out, .len = len,
                .without_pages = walker->without_pages};
    for (size_t i = 0; i < count; i++)
        if (!rewrite_piece(walker, &w, &walker->pieces[i], walker->pieces + count))
            return false;
    return true;
}
