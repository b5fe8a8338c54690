/* normalise.h: what the matcher is shown in place of a file.
 *
 * A copy of the file in which the address bits of every reference have been
 * replaced by a label of what it names, so that code that merely moved looks
 * the same in both builds.
 */
#ifndef BSPI_NORMALISE_H
#define BSPI_NORMALISE_H

#include "../predict/predictor.h"

typedef enum bspi_label_rule {
    BSPI_LABEL_SECTION, /* the name of the section that holds the target: no map needed */
    BSPI_LABEL_TARGET,  /* the target itself, as an address of the new build */
} bspi_label_rule;

/* Writes the view of `file` into view[0, file->size).  For the old file under
 * LABEL_TARGET, `predictor` (its maps) takes targets to the new build; for the
 * new file predictor is NULL.  paired[i] says whether image i has a partner. */
bsp_status bspi_normalise(const bspi_file *file, bspi_label_rule rule,
                          const bspi_predictor *predictor, const uint32_t *paired, unsigned jobs,
                          uint8_t *view, bsp_fault *fault);

#endif
