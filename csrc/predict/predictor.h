/* predictor.h: "what would the new file be, if only things had moved?"
 *
 * One piece of code for both sides.  The encoder asks it what it would predict
 * in order to correct it; the applier asks it in order to be corrected.
 */
#ifndef BSPI_PREDICTOR_H
#define BSPI_PREDICTOR_H

#include "address_map.h"
#include "unwind_pages.h"

/* The actual target of the field at new_off is the predicted one plus delta
 * (in units of the kind, bspi_ref_unit_bits). */
typedef struct bspi_ref_fix {
    uint64_t new_off;
    int64_t delta;
} bspi_ref_fix;

typedef struct bspi_predictor {
    bspi_heap *heap;
    const bspi_file *old;
    const bspi_layout *layout;
    const bspi_cover *cover;
    size_t cover_count;
    bspi_address_map *maps; /* one for each image of the layout */
    const bspi_ref_fix *fixes; /* ascending by new_off; may be empty */
    size_t fix_count;
    const bspi_unwind_page *pages; /* of the new file; borrowed, may be empty */
    size_t page_count;
} bspi_predictor;

/* One reference of the old file that the cover carries into the new one. */
typedef struct bspi_ref_site {
    uint64_t new_off;
    uint64_t old_off;
    uint64_t old_target;
    uint64_t old_base;
    uint64_t new_site;  /* address of the field in the new build */
    uint64_t new_base;  /* predicted */
    uint64_t predicted; /* predicted target, before any fix */
    uint32_t image;     /* index into layout->images */
    uint8_t kind;
    uint8_t size;
    bool local;         /* target and site lie in one run of the cover */
} bspi_ref_site;

/* What one entry of the cover brings to a window: references whose fields start
 * in old [old_off, old_end). */
typedef struct bspi_piece {
    const bspi_cover *entry;
    uint64_t old_off;
    uint64_t old_end;
} bspi_piece;

/* References of old [begin, end). */
typedef struct bspi_found {
    uint64_t begin, end;
    bspi_ref_list refs;
} bspi_found;

/* Per-thread state: recently found references of the old file, block by block
 * for walking and chunk by chunk for rewriting, and room for a window's pieces. */
#define BSPI_WALKER_BLOCKS 128u
#define BSPI_WALKER_CHUNKS 8u
typedef struct bspi_walker {
    const bspi_predictor *predictor;
    bspi_found blocks[BSPI_WALKER_BLOCKS];
    bspi_found chunks[BSPI_WALKER_CHUNKS];
    bspi_piece *pieces;
    size_t piece_capacity;
    bool without_pages; /* rewriting: the predictor's pages are not known yet */
} bspi_walker;

/* Borrows everything; builds the maps (without overrides). */
bsp_status bspi_predictor_init(bspi_predictor *predictor, bspi_heap *heap, const bspi_file *old,
                               const bspi_layout *layout, const bspi_cover *cover,
                               size_t cover_count, bsp_fault *fault);
void bspi_predictor_free(bspi_predictor *predictor);

void bspi_walker_init(bspi_walker *walker, const bspi_predictor *predictor);
void bspi_walker_free(bspi_walker *walker);

/* Makes `found` hold the references of old [begin, end), if it does not hold
 * them already, perhaps with more.  False when memory is refused. */
bool bspi_find_refs(const bspi_predictor *predictor, uint64_t begin, uint64_t end,
                    bspi_found *found);
static inline bool bspi_found_holds(const bspi_found *found, uint64_t begin, uint64_t end) {
    return begin >= found->begin && end <= found->end;
}
/* Index of the first reference at or behind old offset `off`. */
size_t bspi_first_ref(const bspi_ref_list *refs, uint64_t off);

/* The layout's image that continues the old image at old_off, -1 for none; the
 * answer holds for old offsets [*begin, *end). */
int bspi_image_of(const bspi_predictor *predictor, uint64_t old_off, uint64_t *begin,
                  uint64_t *end);

/* log2 of the step of a fix's delta for `kind`. */
unsigned bspi_ref_unit_bits(uint8_t kind);

/* The slow and plain way: calls visit for every carried reference whose field starts in new
 * [begin, end), in ascending order. False when memory is refused. */
typedef void (*bspi_visit)(void *context, const bspi_ref_site *site);
bool bspi_walk(bspi_walker *walker, uint64_t begin, uint64_t end, bspi_visit visit, void *context);

/* The fast way to the same (rewrite.c).  Predicts new [begin, begin + len): bytes of the cover, references rewritten
 * and fixed; bytes outside the cover are left as they are. */
bool bspi_predict(bspi_walker *walker, uint64_t begin, uint8_t *out, size_t len);

#endif
