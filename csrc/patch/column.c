/* column.c: numbers and bytes in four modes. */
#include "column.h"

#include <string.h>

#include "../common/bytes.h"

void bspi_column_open(bspi_column *column, bspi_heap *heap, bspi_column_mode mode) {
    column->mode = mode;
    column->heap = heap;
    column->plain_done = 0;
    column->bytes = NULL;
    column->status = BSP_OK;
    column->place = "stream";
    column->item = BSPI_ITEM_NONE;
    memset(&column->ints, 0, sizeof column->ints);
    if ((mode == BSPI_WRITE_MODEL || mode == BSPI_READ_MODEL) &&
        !bspi_int_model_init(&column->ints, heap, BSPI_COLUMN_CONTEXTS))
        bspi_column_fail(column, BSP_E_NOMEM, "stream models");
}

bsp_status bspi_column_close(bspi_column *column, bsp_fault *fault) {
    bspi_column_end_bytes(column);
    bspi_int_model_free(&column->ints);
    if (column->status == BSP_OK && column->mode == BSPI_READ_PLAIN &&
        bspi_cursor_left(&column->cursor) != 0)
        return bspi_fail(fault, BSP_E_CORRUPT, "stream length", 0, column->cursor.pos,
                         column->cursor.len);
    if (column->status == BSP_OK && column->mode == BSPI_READ_MODEL &&
        column->plain_done != column->plain_len)
        return bspi_fail(fault, BSP_E_CORRUPT, "stream length", 0, column->plain_len,
                         column->plain_done);
    if (column->status == BSP_E_NOMEM)
        return bspi_nomem(column->heap, fault, column->place);
    if (column->status != BSP_OK)
        return bspi_fail(fault, column->status, column->place, column->cursor.pos, 0, 0);
    return BSP_OK;
}

void bspi_column_fail(bspi_column *column, bsp_status status, const char *place) {
    if (column->status != BSP_OK)
        return;
    column->status = status;
    column->place = place;
}

static unsigned varint_len(uint64_t value) {
    unsigned len = 1;
    while (value >= 0x80) {
        value >>= 7;
        len++;
    }
    return len;
}

/* Counts what the value would take plainly, so that a modelled stream cannot
 * hold more than the patch declared. */
static bool account(bspi_column *column, uint64_t len) {
    column->plain_done += len;
    if ((++column->steps & 0xffff) == 0 && bspi_cancelled(column->control))
        bspi_column_fail(column, BSP_E_CANCELLED, "stream");
    if (column->mode == BSPI_READ_MODEL && column->plain_done > column->plain_len) {
        bspi_column_fail(column, BSP_E_CORRUPT, "stream length");
        return false;
    }
    return true;
}

/* Tells a listener what has been spent since it was last told. */
static void tell(bspi_column *column) {
    if (column->spend == NULL)
        return;
    uint64_t spent = column->mode == BSPI_WRITE_MODEL ? bspi_encoder_spent(column->encoder)
                                                      : column->plain_done << 19;
    column->spend(column->spend_context, column->item, spent - column->spent);
    column->spent = spent;
}

bool bspi_column_u64(bspi_column *column, uint32_t context, uint64_t *value) {
    if (column->status != BSP_OK) {
        if (bspi_column_reads(column))
            *value = 0;
        return false;
    }
    switch (column->mode) {
    case BSPI_WRITE_PLAIN:
        if (!bspi_buffer_put_varint(column->plain, *value))
            bspi_column_fail(column, BSP_E_NOMEM, "stream");
        break;
    case BSPI_WRITE_MODEL:
        bspi_int_encode(&column->ints, column->encoder, context, *value);
        break;
    case BSPI_READ_PLAIN:
        *value = bspi_cursor_varint(&column->cursor);
        if (column->cursor.failed)
            bspi_column_fail(column, BSP_E_CORRUPT, "stream number");
        break;
    case BSPI_READ_MODEL:
        *value = bspi_int_decode(&column->ints, column->decoder, context);
        break;
    }
    if (column->mode != BSPI_READ_PLAIN && !account(column, varint_len(*value)))
        *value = 0;
    tell(column);
    return column->status == BSP_OK;
}

bool bspi_column_s64(bspi_column *column, uint32_t context, int64_t *value) {
    if (column->status == BSP_OK && column->mode == BSPI_WRITE_MODEL) {
        bspi_int_encode_signed(&column->ints, column->encoder, context, *value);
        account(column, varint_len(bspi_zigzag(*value)));
        tell(column);
        return true;
    }
    if (column->status == BSP_OK && column->mode == BSPI_READ_MODEL) {
        *value = bspi_int_decode_signed(&column->ints, column->decoder, context);
        if (account(column, varint_len(bspi_zigzag(*value))))
            return true;
        *value = 0;
        return false;
    }
    uint64_t packed = bspi_zigzag(*value);
    bool good = bspi_column_u64(column, context, &packed);
    if (bspi_column_reads(column))
        *value = bspi_unzigzag(packed);
    return good;
}

bool bspi_column_begin_bytes(bspi_column *column, uint32_t contexts, uint32_t selectors,
                             uint64_t count) {
    if (column->status != BSP_OK)
        return false;
    if (column->mode == BSPI_READ_PLAIN && count > bspi_cursor_left(&column->cursor)) {
        bspi_column_fail(column, BSP_E_CORRUPT, "stream bytes");
        return false;
    }
    if (column->mode == BSPI_READ_MODEL && count > column->plain_len - column->plain_done) {
        bspi_column_fail(column, BSP_E_CORRUPT, "stream bytes");
        return false;
    }
    if (count == 0 || column->mode == BSPI_WRITE_PLAIN || column->mode == BSPI_READ_PLAIN)
        return true;
    bspi_byte_options options = bspi_byte_options_for(contexts, selectors, count);
    column->bytes = bspi_byte_model_new(column->heap, &options);
    if (column->bytes == NULL)
        bspi_column_fail(column, BSP_E_NOMEM, "byte model");
    return column->bytes != NULL;
}

bool bspi_column_byte(bspi_column *column, const uint32_t *contexts, uint32_t selector,
                      uint8_t *value) {
    if (column->status != BSP_OK) {
        if (bspi_column_reads(column))
            *value = 0;
        return false;
    }
    switch (column->mode) {
    case BSPI_WRITE_PLAIN:
        if (!bspi_buffer_put(column->plain, value, 1))
            bspi_column_fail(column, BSP_E_NOMEM, "stream");
        break;
    case BSPI_WRITE_MODEL:
        bspi_byte_encode(column->bytes, column->encoder, contexts, selector, *value);
        break;
    case BSPI_READ_PLAIN:
        *value = bspi_cursor_u8(&column->cursor);
        if (column->cursor.failed)
            bspi_column_fail(column, BSP_E_CORRUPT, "stream byte");
        break;
    case BSPI_READ_MODEL:
        *value = bspi_byte_decode(column->bytes, column->decoder, contexts, selector);
        break;
    }
    if (column->mode != BSPI_READ_PLAIN)
        account(column, 1);
    tell(column);
    return column->status == BSP_OK;
}

void bspi_column_end_bytes(bspi_column *column) {
    bspi_byte_model_free(column->bytes);
    column->bytes = NULL;
}
