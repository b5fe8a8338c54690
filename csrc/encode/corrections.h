/* corrections.h: what the predictor gets wrong, and how it is told. */
#ifndef BSPI_CORRECTIONS_H
#define BSPI_CORRECTIONS_H

#include "../patch/content.h"

/* Chooses overrides: pairs (old target, new target) that put right more
 * references than they put wrong.  With `sure` only those that several
 * references ask for: one that stands alone may come from a misplaced run of the
 * cover, and must not be shown to the matcher as a fact.  content must have its predictor (without
 * overrides); fills content->overrides and override_starts and installs them. */
bsp_status bspi_choose_overrides(bspi_content *content, const bspi_file *old,
                                 const bspi_file *new_, bool sure, unsigned jobs,
                                 bsp_control *control, bsp_fault *fault);

/* Finds reference and byte corrections and gathers the literals. */
bsp_status bspi_find_corrections(bspi_content *content, const bspi_file *old,
                                 const bspi_file *new_, unsigned jobs, bsp_control *control,
                                 bsp_fault *fault);

/* Moves entries of the cover to equal bytes elsewhere in the old file where the
 * overrides say that references expect them.  The views are those that the
 * cover was found in. */
void bspi_repoint_cover(bspi_content *content, const bspi_file *old, const uint8_t *old_view,
                        const uint8_t *new_view);

/* --- shared by the two --- */

/* References of the new file, found block by block; one for each thread. */
typedef struct bspi_new_refs {
    const bspi_file *file;
    uint64_t block_plus_1;
    bspi_ref_list refs;
} bspi_new_refs;

void bspi_new_refs_init(bspi_new_refs *refs, const bspi_file *file);
void bspi_new_refs_free(bspi_new_refs *refs);

/* The address that the new file's field at site names in fact.  False when the
 * bytes there are no such field (or memory is refused: refs->refs.failed). */
bool bspi_actual_target(bspi_new_refs *refs, const bspi_ref_site *site, uint64_t *target);

/* The fix that turns `predicted` into `actual`, in units of kind. */
int64_t bspi_ref_delta(uint8_t kind, uint64_t predicted, uint64_t actual);

/* The new file is worked through in windows of this size. */
#define BSPI_ENCODE_WINDOW ((uint64_t)1 << 20)

#endif
