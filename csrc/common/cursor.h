/* cursor.h: the one way to read untrusted bytes.  A cursor never reads past
 * its end; the first failure sticks, so that a run of reads needs one check. */
#ifndef BSPI_CURSOR_H
#define BSPI_CURSOR_H

#include "status.h"

typedef struct bspi_cursor {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool failed; /* a read went past the end or a varint was malformed */
} bspi_cursor;

void bspi_cursor_init(bspi_cursor *cursor, const uint8_t *data, size_t len);
/* The rest of these give 0 or NULL once failed. */
uint8_t bspi_cursor_u8(bspi_cursor *cursor);
uint32_t bspi_cursor_u32(bspi_cursor *cursor);
uint64_t bspi_cursor_u64(bspi_cursor *cursor);
/* LEB128, at most ten bytes, no bits beyond 64, no needless last zero byte
 * (each value has one spelling). */
uint64_t bspi_cursor_varint(bspi_cursor *cursor);
const uint8_t *bspi_cursor_take(bspi_cursor *cursor, size_t len);
static inline size_t bspi_cursor_left(const bspi_cursor *cursor) {
    return cursor->len - cursor->pos;
}

#endif
