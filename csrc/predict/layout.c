/* layout.c: pairing the images and sections of two builds. */
#include "layout.h"

#include <string.h>

/* An old image of the same kind, the first that no earlier one took. */
static uint32_t pair_image(const bspi_file *old, const bspi_image *image, const bspi_layout *layout,
                           size_t done) {
    for (unsigned pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < old->image_count; i++) {
            const bspi_image *candidate = &old->images[i];
            if (candidate->format != image->format || candidate->arch != image->arch ||
                (pass == 0 && candidate->subtype != image->subtype))
                continue;
            bool taken = false;
            for (size_t j = 0; j < done; j++)
                taken |= layout->images[j].old_image == i;
            if (!taken)
                return i;
        }
    }
    return BSPI_NO_PAIR;
}

/* Sections looked at to find a partner: all, unless the file is out to cost time. */
#define PARTNERS 4096u

/* The old section with the same name and role, searched from where the last
 * one was found: sections keep their order, as a rule. */
static uint32_t pair_section(const bspi_image *old, const bspi_section *section, size_t start) {
    for (size_t i = 0; i < old->section_count && i < PARTNERS; i++) {
        size_t at = (start + i) % old->section_count;
        const bspi_section *candidate = &old->sections[at];
        if (candidate->name == section->name && candidate->role == section->role &&
            candidate->mapped == section->mapped)
            return (uint32_t)at;
    }
    return BSPI_NO_PAIR;
}

bsp_status bspi_layout_pair(bspi_heap *heap, const bspi_file *old, const bspi_file *new_,
                            bspi_layout *layout, bsp_fault *fault) {
    layout->heap = heap;
    layout->image_count = 0;
    layout->images = bspi_alloc(heap, new_->image_count + 1, sizeof *layout->images, true);
    if (layout->images == NULL)
        return bspi_nomem(heap, fault, "layout.images");
    for (size_t i = 0; i < new_->image_count; i++) {
        const bspi_image *image = &new_->images[i];
        uint32_t pair = pair_image(old, image, layout, layout->image_count);
        if (pair == BSPI_NO_PAIR)
            continue;
        bspi_layout_image *paired = &layout->images[layout->image_count];
        paired->sections = bspi_alloc(heap, image->section_count + 1, sizeof *paired->sections,
                                      true);
        if (paired->sections == NULL)
            return bspi_nomem(heap, fault, "layout.sections");
        layout->image_count++;
        paired->old_image = pair;
        paired->section_count = image->section_count;
        size_t start = 0;
        for (size_t j = 0; j < image->section_count; j++) {
            const bspi_section *from = &image->sections[j];
            bspi_layout_section *to = &paired->sections[j];
            to->file_off = from->file_off;
            to->file_size = from->file_size;
            to->addr = from->mapped ? from->addr : 0;
            to->mem_size = from->mapped ? from->mem_size : 0;
            to->role = from->role;
            to->mapped = from->mapped;
            to->pair = pair_section(&old->images[pair], from, start);
            if (to->pair != BSPI_NO_PAIR)
                start = to->pair + 1;
        }
    }
    return BSP_OK;
}

void bspi_layout_free(bspi_layout *layout) {
    if (layout->heap == NULL)
        return;
    for (size_t i = 0; i < layout->image_count; i++)
        bspi_free(layout->heap, layout->images[i].sections);
    bspi_free(layout->heap, layout->images);
    layout->images = NULL;
    layout->image_count = 0;
}

const bspi_layout_section *bspi_layout_at(const bspi_layout_image *image, uint64_t off) {
    size_t low = 0, high = image->section_count;
    /* Zero-fill sections stand last and hold no file bytes. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const bspi_layout_section *section = &image->sections[middle];
        if (section->file_size != 0 && section->file_off + section->file_size <= off)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == image->section_count)
        return NULL;
    const bspi_layout_section *section = &image->sections[low];
    bool inside = section->file_size != 0 && off >= section->file_off &&
                  off - section->file_off < section->file_size;
    return inside ? section : NULL;
}
