/* cursor.c: bounded reading of untrusted bytes. */
#include "cursor.h"

#include "bytes.h"

void bspi_cursor_init(bspi_cursor *cursor, const uint8_t *data, size_t len) {
    cursor->data = data;
    cursor->len = len;
    cursor->pos = 0;
    cursor->failed = false;
}

const uint8_t *bspi_cursor_take(bspi_cursor *cursor, size_t len) {
    if (cursor->failed || len > cursor->len - cursor->pos) {
        cursor->failed = true;
        return NULL;
    }
    const uint8_t *at = cursor->data + cursor->pos;
    cursor->pos += len;
    return at;
}

uint8_t bspi_cursor_u8(bspi_cursor *cursor) {
    const uint8_t *at = bspi_cursor_take(cursor, 1);
    return at != NULL ? *at : 0;
}

uint32_t bspi_cursor_u32(bspi_cursor *cursor) {
    const uint8_t *at = bspi_cursor_take(cursor, 4);
    return at != NULL ? bspi_load32(at) : 0;
}

uint64_t bspi_cursor_u64(bspi_cursor *cursor) {
    const uint8_t *at = bspi_cursor_take(cursor, 8);
    return at != NULL ? bspi_load64(at) : 0;
}

uint64_t bspi_cursor_varint(bspi_cursor *cursor) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = bspi_cursor_u8(cursor);
        if (cursor->failed)
            return 0;
        if ((shift == 63 && byte > 1) || (shift != 0 && byte == 0)) {
            cursor->failed = true;
            return 0;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return value;
    }
    cursor->failed = true;
    return 0;
}
