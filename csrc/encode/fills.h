/* fills.h: finds what the finished bytes determine. */
#ifndef BSPI_FILLS_H
#define BSPI_FILLS_H

#include "../patch/content.h"

/* Finds the page hashes of the new file's code signatures, and the hashes of their
 * blobs that are not in the old file; keeps those that really are the hashes. */
bsp_status bspi_find_fills(bspi_content *content, const bspi_file *old, const bspi_file *new_,
                           bsp_fault *fault);
/* Takes the fills' bytes out of the cover. */
bsp_status bspi_cut_fills(bspi_content *content, bsp_fault *fault);

#endif
