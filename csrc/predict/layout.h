/* layout.h: where the new file's images keep their sections.
 *
 * The applier has no new file to parse, so the patch says what it needs to
 * know of it: for each image of the new file, which old image it continues and
 * where its sections lie in the file and in memory.
 */
#ifndef BSPI_LAYOUT_H
#define BSPI_LAYOUT_H

#include "../image/image.h"

#define BSPI_NO_PAIR UINT32_MAX

typedef struct bspi_layout_section {
    uint64_t file_off;
    uint64_t file_size; /* 0 for zero-fill */
    uint64_t addr;
    uint64_t mem_size;
    uint32_t pair;   /* index of the old image's section that it continues, or BSPI_NO_PAIR */
    uint8_t role;    /* bspi_role */
    uint8_t mapped;
} bspi_layout_section;

typedef struct bspi_layout_image {
    uint32_t old_image; /* index into the old file's images */
    /* As bspi_image.sections: file-backed ones first, sorted and disjoint. */
    bspi_layout_section *sections;
    size_t section_count;
} bspi_layout_image;

typedef struct bspi_layout {
    bspi_heap *heap;
    bspi_layout_image *images;
    size_t image_count;
} bspi_layout;

/* Pairs the images and sections of two parsed files.  Images without a
 * counterpart are left out (they are raw bytes to the predictor). */
bsp_status bspi_layout_pair(bspi_heap *heap, const bspi_file *old, const bspi_file *new_,
                            bspi_layout *layout, bsp_fault *fault);
void bspi_layout_free(bspi_layout *layout);

/* The section that holds new file offset `off`, or NULL. */
const bspi_layout_section *bspi_layout_at(const bspi_layout_image *image, uint64_t off);

#endif
