/* search.h: the cover of a file that is understood. */
#ifndef BSPI_SEARCH_H
#define BSPI_SEARCH_H

#include "../patch/content.h"

/* Fills content->cover; content has its layout and fills. */
bsp_status bspi_search_cover(bspi_content *content, const bspi_file *old, const bspi_file *new_,
                             const bsp_diff_options *options, bsp_control *control,
                             bsp_fault *fault);

#endif
