/* macho_names.h: what Mach-O symbols and imports are called.
 *
 * Rows of the symbol and imports tables are all alike once their addresses are
 * masked, and so are the pointers that name a row.  Names tell them apart before
 * any address is mapped.  Used by the encoder alone: nothing here is part of the
 * format.
 */
#ifndef BSPI_MACHO_NAMES_H
#define BSPI_MACHO_NAMES_H

#include "image.h"

/* True, and *label a number for a name, when `ref` names one or a row that has
 * one. The images of a fat file have names in common, so each has labels of its
 * own. */
bool bspi_macho_name(const bspi_file *file, const bspi_image *image, const bspi_ref *ref,
                     uint64_t *label);

#endif
