/* rebuild.h: bytes of the new file out of what a patch says, at any place. */
#ifndef BSPI_REBUILD_H
#define BSPI_REBUILD_H

#include "handle.h"

/* Makes new [begin, begin + len) but for what is hashed from it, out of what has been
 * decoded by now; several threads may at once.  Without the unwind pages their entries
 * are predicted as if there were none.  False when memory is refused. */
bool bspi_make_bytes(bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len,
                     bool with_pages);

/* How many literals new [0, end) takes, up to the last run that begins there. */
uint64_t bspi_literals_before(const bsp_patch *patch, uint64_t end);

#endif
