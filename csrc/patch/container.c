/* container.c: header, stream directory and streams of a patch file. */
#include "container.h"

#include <string.h>

#include "../common/bytes.h"
#include "../common/cursor.h"

static const uint8_t magic[4] = {'B', 'S', 'I', 'P'};

bsp_status bspi_container_read(const uint8_t *bytes, size_t len, bspi_container *container,
                               bsp_fault *fault) {
    bspi_cursor cursor;
    memset(container, 0, sizeof *container);
    bspi_cursor_init(&cursor, bytes, len);
    const uint8_t *found = bspi_cursor_take(&cursor, sizeof magic);
    if (found == NULL || memcmp(found, magic, sizeof magic) != 0)
        return bspi_fail(fault, BSP_E_MAGIC, "magic", 0, bspi_load32(magic),
                         found != NULL ? bspi_load32(found) : 0);
    container->version = bspi_cursor_u8(&cursor);
    if (cursor.failed)
        return bspi_fail(fault, BSP_E_TRUNCATED, "version", cursor.pos, 1, 0);
    if (container->version != BSP_FORMAT_VERSION)
        return bspi_fail(fault, BSP_E_VERSION, "version", 4, BSP_FORMAT_VERSION,
                         container->version);
    container->old_size = bspi_cursor_varint(&cursor);
    int64_t growth = bspi_unzigzag(bspi_cursor_varint(&cursor));
    container->new_size = container->old_size + (uint64_t)growth;
    const uint8_t *checks = bspi_cursor_take(&cursor, 2 * (size_t)BSPI_CHECK_LEN);
    if (cursor.failed)
        return bspi_fail(fault, BSP_E_TRUNCATED, "header", cursor.pos, 0, len);
    if (container->old_size > INT64_MAX || container->new_size > INT64_MAX)
        return bspi_fail(fault, BSP_E_CORRUPT, "sizes", 5, INT64_MAX, container->new_size);
    memcpy(container->old_check, checks, BSPI_CHECK_LEN);
    memcpy(container->new_check, checks + BSPI_CHECK_LEN, BSPI_CHECK_LEN);
    uint8_t count = bspi_cursor_u8(&cursor);
    if (count > BSPI_STREAM_COUNT)
        return bspi_fail(fault, BSP_E_CORRUPT, "streams", cursor.pos, BSPI_STREAM_COUNT, count);
    uint32_t last = 0;
    bool modelled = false;
    for (uint8_t i = 0; i < count; i++) {
        bspi_stream_entry *entry = &container->streams[i];
        uint8_t head = bspi_cursor_u8(&cursor);
        entry->id = head & 15;
        entry->codec = head >> 4;
        entry->plain_len = bspi_cursor_varint(&cursor);
        entry->encoded_len = entry->plain_len;
        if (entry->codec == BSP_CODEC_MODEL)
            entry->encoded_len = 0;
        else if (entry->codec != BSP_CODEC_PLAIN)
            entry->encoded_len = bspi_cursor_varint(&cursor);
        if (cursor.failed)
            return bspi_fail(fault, BSP_E_TRUNCATED, "stream directory", cursor.pos, 0, len);
        if (entry->id <= last || entry->id > BSPI_STREAM_COUNT)
            return bspi_fail(fault, BSP_E_CORRUPT, "stream id", cursor.pos, last + 1, entry->id);
        if (entry->codec > BSP_CODEC_MODEL_OWN)
            return bspi_fail(fault, BSP_E_CORRUPT, "stream codec", cursor.pos, BSP_CODEC_MODEL_OWN,
                             entry->codec);
        if (entry->plain_len == 0)
            return bspi_fail(fault, BSP_E_CORRUPT, "stream length", cursor.pos, 1, 0);
        if (!bspi_add64(container->plain_bytes, entry->plain_len, &container->plain_bytes))
            return bspi_fail(fault, BSP_E_CORRUPT, "stream length", cursor.pos, 0,
                             entry->plain_len);
        last = entry->id;
        modelled |= entry->codec == BSP_CODEC_MODEL;
    }
    if (cursor.failed)
        return bspi_fail(fault, BSP_E_TRUNCATED, "stream directory", cursor.pos, 0, len);
    container->stream_count = count;
    for (uint8_t i = 0; i < count; i++) {
        bspi_stream_entry *entry = &container->streams[i];
        if (entry->codec == BSP_CODEC_MODEL)
            continue;
        if (entry->encoded_len > bspi_cursor_left(&cursor))
            return bspi_fail(fault, BSP_E_TRUNCATED, "stream bytes", cursor.pos,
                             entry->encoded_len, bspi_cursor_left(&cursor));
        entry->encoded = bspi_cursor_take(&cursor, (size_t)entry->encoded_len);
    }
    container->model_len = bspi_cursor_left(&cursor);
    container->model = bspi_cursor_take(&cursor, (size_t)container->model_len);
    if (!modelled && container->model_len != 0)
        return bspi_fail(fault, BSP_E_CORRUPT, "trailing bytes", len - container->model_len, 0,
                         container->model_len);
    return BSP_OK;
}

bool bspi_container_write(const bspi_container *container, bspi_buffer *out) {
    uint8_t version = (uint8_t)container->version, count = (uint8_t)container->stream_count;
    int64_t growth = (int64_t)(container->new_size - container->old_size);
    bool good = bspi_buffer_put(out, magic, sizeof magic) && bspi_buffer_put(out, &version, 1) &&
                bspi_buffer_put_varint(out, container->old_size) &&
                bspi_buffer_put_varint(out, bspi_zigzag(growth)) &&
                bspi_buffer_put(out, container->old_check, BSPI_CHECK_LEN) &&
                bspi_buffer_put(out, container->new_check, BSPI_CHECK_LEN) &&
                bspi_buffer_put(out, &count, 1);
    for (uint32_t i = 0; good && i < container->stream_count; i++) {
        const bspi_stream_entry *entry = &container->streams[i];
        uint8_t head = (uint8_t)(entry->id | entry->codec << 4);
        good = bspi_buffer_put(out, &head, 1) && bspi_buffer_put_varint(out, entry->plain_len);
        if (good && entry->codec != BSP_CODEC_PLAIN && entry->codec != BSP_CODEC_MODEL)
            good = bspi_buffer_put_varint(out, entry->encoded_len);
    }
    for (uint32_t i = 0; good && i < container->stream_count; i++) {
        const bspi_stream_entry *entry = &container->streams[i];
        if (entry->codec != BSP_CODEC_MODEL)
            good = bspi_buffer_put(out, entry->encoded, (size_t)entry->encoded_len);
    }
    return good && bspi_buffer_put(out, container->model, (size_t)container->model_len);
}
