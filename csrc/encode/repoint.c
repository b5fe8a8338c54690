/* repoint.c: of several equal places that a run of the cover could come from,
 * prefers the one that references ask for. */
#include "corrections.h"

#include "../common/bytes.h"
#include "../match/match.h"

/* The new file's offset of an address, or UINT64_MAX. */
static uint64_t new_offset(const bspi_layout_image *image, uint64_t addr) {
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_layout_section *section = &image->sections[i];
        if (section->mapped && addr - section->addr < section->file_size)
            return section->file_off + (addr - section->addr);
    }
    return UINT64_MAX;
}

/* Moves the entry that gives new_off to the diagonal of old_off, if the views
 * agree there from its first byte to its last. */
static void repoint(bspi_cover *entry, const uint8_t *old_view, uint64_t old_size,
                    const uint8_t *new_view, uint64_t old_off, uint64_t new_off) {
    uint64_t before = new_off - entry->new_off, after = entry->len - before;
    if (old_off < before || !bspi_within(old_off, after, old_size))
        return;
    if (bspi_common_prefix(old_view + (old_off - before), new_view + entry->new_off,
                           entry->len) == entry->len)
        entry->old_off = old_off - before;
}

void bspi_repoint_cover(bspi_content *content, const bspi_file *old, const uint8_t *old_view,
                        const uint8_t *new_view) {
    bspi_cover_list *cover = &content->cover;
    for (size_t i = 0; i < content->layout.image_count; i++) {
        const bspi_layout_image *image = &content->layout.images[i];
        for (size_t j = content->override_starts[i]; j < content->override_starts[i + 1]; j++) {
            const bspi_override *override = &content->overrides[j];
            uint64_t new_off = new_offset(image, override->new_addr), old_off;
            if (new_off == UINT64_MAX ||
                !bspi_addr_to_off(&old->images[image->old_image], override->old_addr, 1, &old_off))
                continue;
            size_t at = bspi_cover_find(cover->items, cover->count, new_off);
            if (at < cover->count && cover->items[at].new_off <= new_off)
                repoint(&cover->items[at], old_view, old->size, new_view, old_off, new_off);
        }
    }
}
