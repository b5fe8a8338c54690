/* unwind_pages.h: where the pages of the new file's compact unwind index begin.
 *
 * An entry of a page counts from the page's first function.  Pages are filled to
 * the brim, so that one more function moves the border of every page behind it
 * and entries change pages: the base of an entry cannot be had from the old
 * file.  The index in front of the pages names the first function of each.  The
 * applier makes that part of the new file first, and predicts the pages by it;
 * the encoder reads it from the new file.
 */
#ifndef BSPI_UNWIND_PAGES_H
#define BSPI_UNWIND_PAGES_H

#include "address_map.h"

typedef struct bspi_unwind_page {
    uint64_t begin; /* new file offsets */
    uint64_t end;
    uint64_t base; /* address of the first function */
} bspi_unwind_page;

typedef struct bspi_unwind_pages {
    bspi_unwind_page *items; /* ascending, disjoint */
    size_t count;
    size_t capacity;
} bspi_unwind_pages;

/* Copies new [off, off + len), as far as it is known without any page, to out;
 * false when memory is refused. */
typedef bool (*bspi_read_new)(void *context, uint64_t off, uint8_t *out, size_t len);

/* Finds the pages of every image of `layout`; maps[i] is that of image i. What
 * is malformed has none.  False when memory is refused. */
bool bspi_unwind_pages_find(bspi_unwind_pages *pages, bspi_heap *heap, const bspi_file *old,
                            const bspi_layout *layout, const bspi_address_map *maps,
                            uint64_t new_size, bspi_read_new read, void *context);

/* New [*begin, *end), empty when there is none, holds all pages that there can be. */
void bspi_unwind_pages_reach(const bspi_file *old, const bspi_layout *layout, uint64_t new_size,
                             uint64_t *begin, uint64_t *end);

/* The page that holds new offset `off`, or NULL. */
const bspi_unwind_page *bspi_unwind_page_at(const bspi_unwind_page *items, size_t count,
                                            uint64_t off);

#endif
