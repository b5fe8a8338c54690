/* dwarf_pointer.h: the encoded pointers and numbers of call frame records and
 * exception tables. */
#ifndef BSPI_DWARF_POINTER_H
#define BSPI_DWARF_POINTER_H

#include "../common/cursor.h"
#include "image.h"

/* A pointer's encoding: format in the low nibble, what it counts from above,
 * and whether it is that of a slot with the pointer. */
enum {
    BSPI_DW_ABSPTR = 0x00,
    BSPI_DW_UDATA2 = 0x02,
    BSPI_DW_UDATA4 = 0x03,
    BSPI_DW_UDATA8 = 0x04,
    BSPI_DW_SDATA2 = 0x0a,
    BSPI_DW_SDATA4 = 0x0b,
    BSPI_DW_SDATA8 = 0x0c,
    BSPI_DW_FORMAT = 0x0f,
    BSPI_DW_PCREL = 0x10,
    BSPI_DW_DATAREL = 0x30,
    BSPI_DW_ORIGIN = 0x70,
    BSPI_DW_INDIRECT = 0x80,
    BSPI_DW_OMIT = 0xff
};

/* Bytes that such a pointer takes, 0 when its length varies or is unknown. */
unsigned bspi_dwarf_width(uint8_t encoding);

/* Moves past such a pointer. */
void bspi_dwarf_skip(bspi_cursor *cursor, uint8_t encoding);

/* LEB128 numbers, padded or not; what goes beyond 64 bits is cut off. */
uint64_t bspi_dwarf_uleb(bspi_cursor *cursor);
int64_t bspi_dwarf_sleb(bspi_cursor *cursor);

/* Adds the pointer at `pos` of the section, which has room for it, unless it is
 * nothing (0) or of a form no kind of reference covers.  False only when memory
 * is refused. */
bool bspi_dwarf_ref(bspi_file *file, bspi_image *image, const bspi_section *section, uint64_t pos,
                    uint8_t encoding);

/* True and *target = the address that the pointer at `pos` names. */
bool bspi_dwarf_target(const bspi_file *file, const bspi_section *section, uint64_t pos,
                       uint8_t encoding, uint64_t *target);

#endif
