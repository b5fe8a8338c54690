/* Reads the encoded pointers and numbers of call frame records and exception
 * tables. */
#include "dwarf_pointer.h"

#include "../common/bytes.h"

unsigned bspi_dwarf_width(uint8_t encoding) {
    if (encoding == BSPI_DW_OMIT)
        return 0;
    switch (encoding & BSPI_DW_FORMAT) {
    case BSPI_DW_UDATA2:
    case BSPI_DW_SDATA2:
        return 2;
    case BSPI_DW_UDATA4:
    case BSPI_DW_SDATA4:
        return 4;
    case BSPI_DW_ABSPTR:
    case BSPI_DW_UDATA8:
    case BSPI_DW_SDATA8:
        return 8;
    default:
        return 0;
    }
}

void bspi_dwarf_skip(bspi_cursor *cursor, uint8_t encoding) {
    unsigned width = bspi_dwarf_width(encoding);
    if (width != 0)
        (void)bspi_cursor_take(cursor, width);
    else
        (void)bspi_dwarf_uleb(cursor);
}

uint64_t bspi_dwarf_uleb(bspi_cursor *cursor) {
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = bspi_cursor_u8(cursor);
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        shift = shift < 64 ? shift + 7 : shift;
    } while (byte & 0x80);
    return value;
}

int64_t bspi_dwarf_sleb(bspi_cursor *cursor) {
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = bspi_cursor_u8(cursor);
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        shift = shift < 64 ? shift + 7 : shift;
    } while (byte & 0x80);
    return bspi_sign_extend(value, BSPI_MIN(shift, 64u));
}

/* The number that is stored, extended to 64 bits. */
static uint64_t load_number(const uint8_t *bytes, uint8_t encoding) {
    bool is_signed = (encoding & 8) != 0;
    switch (bspi_dwarf_width(encoding)) {
    case 2:
        return is_signed ? (uint64_t)bspi_sign_extend(bspi_load16(bytes), 16) : bspi_load16(bytes);
    case 4:
        return is_signed ? (uint64_t)bspi_sign_extend(bspi_load32(bytes), 32) : bspi_load32(bytes);
    default:
        return bspi_load64(bytes);
    }
}

bool bspi_dwarf_target(const bspi_file *file, const bspi_section *section, uint64_t pos,
                       uint8_t encoding, uint64_t *target) {
    unsigned width = bspi_dwarf_width(encoding);
    uint8_t origin = encoding & BSPI_DW_ORIGIN;
    if (width == 0 || !bspi_within(pos, width, section->file_size) ||
        (origin != 0 && origin != BSPI_DW_PCREL))
        return false;
    uint64_t value = load_number(file->data + section->file_off + pos, encoding);
    if (value == 0)
        return false;
    *target = origin == BSPI_DW_PCREL ? section->addr + pos + value : value;
    return true;
}

bool bspi_dwarf_ref(bspi_file *file, bspi_image *image, const bspi_section *section, uint64_t pos,
                    uint8_t encoding) {
    unsigned width = bspi_dwarf_width(encoding);
    uint64_t off = section->file_off + pos, target;
    if (width < 4 || !bspi_dwarf_target(file, section, pos, encoding, &target))
        return true;
    if ((encoding & BSPI_DW_ORIGIN) == 0)
        return bspi_image_add_ref(file, image, off, width == 8 ? BSPI_REF_ABS64 : BSPI_REF_ABS32,
                                  0);
    /* The upper half of eight bytes repeats the sign of the lower, which is
     * enough to keep: distances this small do not change theirs. */
    if (width == 8) {
        uint64_t value = bspi_load64(file->data + off);
        if (value != (uint64_t)bspi_sign_extend(value, 32))
            return true;
    }
    return bspi_image_add_ref(file, image, off, BSPI_REF_PC32, 0);
}
