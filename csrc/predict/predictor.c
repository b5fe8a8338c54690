/* predictor.c: says of every reference of the old file what it becomes in the new
 * one, plainly: the encoder corrects it, and rewrite.c is tested against it. */
#include "predictor.h"

#include <string.h>

#include "../common/bytes.h"

unsigned bspi_ref_unit_bits(uint8_t kind) {
    switch (kind) {
    case BSPI_REF_A64_B26:
    case BSPI_REF_A64_B19:
    case BSPI_REF_A64_B14:
    case BSPI_REF_A64_LIT19:
    case BSPI_REF_BASE16X4:
    case BSPI_REF_BASE8X4:
        return 2;
    case BSPI_REF_A64_ADRP:
        return 12;
    default:
        return 0;
    }
}

bsp_status bspi_predictor_init(bspi_predictor *predictor, bspi_heap *heap, const bspi_file *old,
                               const bspi_layout *layout, const bspi_cover *cover,
                               size_t cover_count, bsp_fault *fault) {
    memset(predictor, 0, sizeof *predictor);
    predictor->heap = heap;
    predictor->old = old;
    predictor->layout = layout;
    predictor->cover = cover;
    predictor->cover_count = cover_count;
    predictor->maps = bspi_alloc(heap, layout->image_count + 1, sizeof *predictor->maps, true);
    if (predictor->maps == NULL)
        return bspi_nomem(heap, fault, "predictor.maps");
    for (size_t i = 0; i < layout->image_count; i++) {
        bsp_status status = bspi_address_map_build(
            &predictor->maps[i], heap, &old->images[layout->images[i].old_image],
            &layout->images[i], cover, cover_count, fault);
        if (status != BSP_OK) {
            bspi_predictor_free(predictor);
            return status;
        }
    }
    return BSP_OK;
}

void bspi_predictor_free(bspi_predictor *predictor) {
    if (predictor->maps == NULL)
        return;
    for (size_t i = 0; i < predictor->layout->image_count; i++)
        bspi_address_map_free(&predictor->maps[i]);
    bspi_free(predictor->heap, predictor->maps);
    predictor->maps = NULL;
}

void bspi_walker_init(bspi_walker *walker, const bspi_predictor *predictor) {
    memset(walker, 0, sizeof *walker);
    walker->predictor = predictor;
    for (unsigned i = 0; i < BSPI_WALKER_BLOCKS; i++)
        walker->blocks[i].refs.heap = predictor->heap;
    for (unsigned i = 0; i < BSPI_WALKER_CHUNKS; i++)
        walker->chunks[i].refs.heap = predictor->heap;
}

void bspi_walker_free(bspi_walker *walker) {
    if (walker->predictor == NULL)
        return;
    for (unsigned i = 0; i < BSPI_WALKER_BLOCKS; i++)
        bspi_ref_list_free(&walker->blocks[i].refs);
    for (unsigned i = 0; i < BSPI_WALKER_CHUNKS; i++)
        bspi_ref_list_free(&walker->chunks[i].refs);
    bspi_free(walker->predictor->heap, walker->pieces);
}

bool bspi_find_refs(const bspi_predictor *predictor, uint64_t begin, uint64_t end,
                    bspi_found *found) {
    if (bspi_found_holds(found, begin, end))
        return true;
    found->begin = found->end = 0;
    found->refs.count = 0;
    found->refs.failed = false;
    bspi_range_refs(predictor->old, begin, end, &found->refs);
    if (found->refs.failed)
        return false;
    found->begin = begin;
    found->end = end;
    return true;
}

size_t bspi_first_ref(const bspi_ref_list *refs, uint64_t off) {
    size_t low = 0, high = refs->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (refs->items[middle].off < off)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int bspi_image_of(const bspi_predictor *predictor, uint64_t old_off, uint64_t *begin,
                  uint64_t *end) {
    *begin = old_off;
    *end = old_off + 1;
    for (size_t i = 0; i < predictor->layout->image_count; i++) {
        const bspi_image *old = &predictor->old->images[predictor->layout->images[i].old_image];
        if (old_off >= old->file_off && old_off - old->file_off < old->file_size) {
            *begin = old->file_off;
            *end = old->file_off + old->file_size;
            return (int)i;
        }
    }
    return -1;
}

/* Where a walk is: the last answers, which mostly hold for the next field too. */
typedef struct {
    int image;
    uint64_t old_begin, old_end; /* old offsets of that image */
    const bspi_layout_section *section;
} place;

static void find_image(const bspi_predictor *p, uint64_t old_off, place *at) {
    if (old_off >= at->old_begin && old_off < at->old_end)
        return;
    at->section = NULL;
    at->image = bspi_image_of(p, old_off, &at->old_begin, &at->old_end);
}

static bool find_section(const bspi_layout_image *image, uint64_t new_off, place *at) {
    const bspi_layout_section *section = at->section;
    if (section == NULL || new_off < section->file_off ||
        new_off - section->file_off >= section->file_size)
        at->section = section = bspi_layout_at(image, new_off);
    return section != NULL;
}

/* Resolves what the predictor says of `ref`, carried by `entry` to new_off. */
static bool resolve(const bspi_predictor *p, const bspi_cover *entry, const bspi_ref *ref,
                    place *at, bspi_ref_site *site) {
    find_image(p, ref->off, at);
    if (at->image < 0)
        return false;
    const bspi_layout_image *image = &p->layout->images[at->image];
    site->new_off = entry->new_off + (ref->off - entry->old_off);
    if (!find_section(image, site->new_off, at))
        return false;
    const bspi_address_map *map = &p->maps[at->image];
    const bspi_layout_section *section = at->section;
    site->old_off = ref->off;
    site->kind = ref->kind;
    site->size = ref->size;
    site->image = (uint32_t)at->image;
    site->new_site = section->addr + (site->new_off - section->file_off);
    site->old_target = ref->target;
    site->old_base = ref->base;
    site->local = false;
    uint64_t old_site = 0;
    const bspi_section *old_section = NULL;
    switch (ref->kind) {
    case BSPI_REF_A64_B26:
    case BSPI_REF_A64_B19:
    case BSPI_REF_A64_B14:
    case BSPI_REF_A64_LIT19:
    case BSPI_REF_A64_ADR:
    case BSPI_REF_X64_REL32:
    case BSPI_REF_X64_REL8: {
        /* A branch within one run of the cover stays within it. */
        old_section = bspi_section_at(&p->old->images[image->old_image], ref->off);
        if (old_section == NULL)
            return false;
        old_site = old_section->addr + (ref->off - old_section->file_off);
        uint64_t run_begin = old_site - (ref->off - entry->old_off);
        site->local = ref->target - run_begin < entry->len;
        break;
    }
    default:
        break;
    }
    site->predicted = site->local ? ref->target + (site->new_site - old_site)
                                  : bspi_map_target(map, ref->target);
    switch (ref->kind) {
    case BSPI_REF_X64_REL32:
    case BSPI_REF_X64_REL8:
    case BSPI_REF_X64_RIP32:
        /* Counts from the end of the instruction, which moves with its field. */
        if (old_section == NULL) {
            old_section = bspi_section_at(&p->old->images[image->old_image], ref->off);
            if (old_section == NULL)
                return false;
            old_site = old_section->addr + (ref->off - old_section->file_off);
        }
        site->new_base = ref->base + (site->new_site - old_site);
        break;
    case BSPI_REF_A64_ADD12:
    case BSPI_REF_A64_LDST12:
        site->new_base = site->predicted & ~UINT64_C(0xfff);
        break;
    case BSPI_REF_FILE32:
        site->new_base = ref->base;
        break;
    case BSPI_REF_BASE24: {
        const bspi_unwind_page *page =
            bspi_unwind_page_at(p->pages, p->page_count, site->new_off);
        site->new_base = page != NULL ? page->base : bspi_map_target(map, ref->base);
        break;
    }
    default:
        site->new_base = ref->base != 0 ? bspi_map_target(map, ref->base) : 0;
        break;
    }
    return true;
}

bool bspi_walk(bspi_walker *walker, uint64_t begin, uint64_t end, bspi_visit visit,
               void *context) {
    const bspi_predictor *p = walker->predictor;
    if (p->layout->image_count == 0)
        return true;
    place at = {-1, 1, 0, NULL};
    for (size_t i = bspi_cover_find(p->cover, p->cover_count, begin); i < p->cover_count; i++) {
        const bspi_cover *entry = &p->cover[i];
        if (entry->new_off >= end)
            break;
        uint64_t skip = begin > entry->new_off ? begin - entry->new_off : 0;
        uint64_t stop = BSPI_MIN(entry->len, end - entry->new_off);
        uint64_t old_off = entry->old_off + skip, old_stop = entry->old_off + stop;
        uint64_t old_end = entry->old_off + entry->len;
        while (old_off < old_stop) {
            uint64_t block = old_off >> BSPI_BLOCK_BITS;
            uint64_t block_end = BSPI_MIN((block + 1) << BSPI_BLOCK_BITS, old_stop);
            bspi_found *found = &walker->blocks[block % BSPI_WALKER_BLOCKS];
            if (!bspi_find_refs(p, block << BSPI_BLOCK_BITS, (block + 1) << BSPI_BLOCK_BITS,
                                found))
                return false;
            const bspi_ref_list *refs = &found->refs;
            for (size_t r = bspi_first_ref(refs, old_off); r < refs->count; r++) {
                const bspi_ref *ref = &refs->items[r];
                if (ref->off >= block_end)
                    break;
                if (ref->size > old_end - ref->off)
                    continue; /* the run ends inside the field */
                bspi_ref_site site;
                if (resolve(p, entry, ref, &at, &site))
                    visit(context, &site);
            }
            old_off = block_end;
        }
    }
    return true;
}
