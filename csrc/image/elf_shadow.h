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

/* What will stand in `size` (4 or 8) bytes at a file offset. */
typedef struct bspi_shadow {
    uint64_t off;
    uint64_t target; /* an address of the image, or a hash of what is meant elsewhere */
    uint8_t size;
    bool elsewhere;  /* `target` is no address */
} bspi_shadow;

typedef void (*bspi_shadow_visit)(void *context, const bspi_shadow *slot);

/* Calls visit for each slot of a relative relocation whose bytes are zero; in a
 * relocatable file for each slot of any relocation.  Each relocation's r_offset
 * gets the same treatment: what it names is known once the slots are aligned,
 * and a blank table and its relocations could else agree on a wrong alignment. */
void bspi_elf_shadow(const bspi_file *file, const bspi_image *image, bspi_shadow_visit visit,
                     void *context);

/* The strings that the .BTF of a kernel module names, by what they say. */
void bspi_elf_btf_shadow(const bspi_file *file, uint64_t off, uint64_t size,
                         bspi_shadow_visit visit, void *context);

#endif
