/* Finds the type references in language specific data areas, the exception
 * tables of C++ and its like that frame records point to. */
#include "../common/bytes.h"
#include "dwarf_pointer.h"
#include "tables.h"

/* Reads one area from its header to the table of types it refers to.  `limit`
 * is where the next area begins, or the end of the section.
 *
 *   start encoding [start] | types encoding [offset of the types' end]
 *   call site encoding, length, call sites | actions | types, last one first
 *
 * Actions are pairs of signed numbers, the first of which is the number of a
 * type when positive.  They are read one after another and not along their
 * links, up to where the types begin: that bounds the walk. */
static bool area_refs(bspi_file *file, bspi_image *image, const bspi_section *section,
                      uint64_t start, uint64_t limit) {
    bspi_cursor cursor;
    bspi_cursor_init(&cursor, file->data + section->file_off, (size_t)limit);
    cursor.pos = (size_t)start;
    uint8_t start_encoding = bspi_cursor_u8(&cursor);
    if (start_encoding != BSPI_DW_OMIT)
        bspi_dwarf_skip(&cursor, start_encoding);
    uint8_t encoding = bspi_cursor_u8(&cursor);
    if (cursor.failed || encoding == BSPI_DW_OMIT)
        return true;
    uint64_t types_len = bspi_dwarf_uleb(&cursor);
    uint64_t types_end = cursor.pos + types_len;
    (void)bspi_cursor_u8(&cursor); /* call sites' encoding */
    uint64_t sites_len = bspi_dwarf_uleb(&cursor);
    unsigned width = bspi_dwarf_width(encoding);
    if (cursor.failed || types_len > limit || types_end > limit || width == 0 ||
        sites_len > bspi_cursor_left(&cursor))
        return true;
    cursor.pos += (size_t)sites_len;
    uint64_t types = 0;
    for (;;) {
        int64_t type = bspi_dwarf_sleb(&cursor);
        (void)bspi_dwarf_sleb(&cursor); /* link to the next action */
        uint64_t room = types_end > cursor.pos ? (types_end - cursor.pos) / width : 0;
        if (cursor.failed || types_end < cursor.pos || types > room)
            break; /* this was padding */
        if (type > 0 && (uint64_t)type > types) {
            if ((uint64_t)type > room)
                break;
            types = (uint64_t)type;
        }
    }
    for (uint64_t i = 1; i <= types; i++)
        if (!bspi_dwarf_ref(file, image, section, types_end - i * width, encoding))
            return false;
    return true;
}

bool bspi_lsda_refs(bspi_file *file, bspi_image *image, const bspi_section *section,
                    const uint8_t *starts) {
    uint64_t size = section->file_size, start = size;
    for (uint64_t pos = 0; pos < size; pos++) {
        if (pos % 8 == 0 && starts[pos / 8] == 0) {
            pos += 7;
            continue;
        }
        if (!(starts[pos / 8] >> pos % 8 & 1))
            continue;
        if (start < size && !area_refs(file, image, section, start, pos))
            return false;
        start = pos;
    }
    return start == size || area_refs(file, image, section, start, size);
}
