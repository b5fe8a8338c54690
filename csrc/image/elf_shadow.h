/* elf_shadow.h: pointers that stand only in relocations.
 *
 * A linker that writes RELA leaves the slots that the loader will fill at zero.
 * To the matcher a table of such slots is blank and could be aligned anywhere;
 * this lists what each slot will hold, so that its view can show it.  Used by
 * the encoder alone: nothing here is part of the format.
 */
#ifndef BSPI_ELF_SHADOW_H
#define BSPI_ELF_SHADOW_H

#include "image.h"

/* slot_off: file offset of 8 bytes within the image; target: what they will
 * point at. */
typedef void (*bspi_shadow_visit)(void *context, uint64_t slot_off, uint64_t target);

/* Calls visit for each slot of a relative relocation whose bytes are zero. */
void bspi_elf_shadow(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                     void *context);

#endif
