/* container.h: the patch file around the streams: one reader, one writer. */
#ifndef BSPI_CONTAINER_H
#define BSPI_CONTAINER_H

#include "../common/memory.h"
#include "content.h"

#define BSPI_CHECK_LEN 8u

typedef struct bspi_stream_entry {
    uint32_t id;
    uint32_t codec;
    uint64_t plain_len;
    const uint8_t *encoded; /* NULL for MODEL */
    uint64_t encoded_len;
} bspi_stream_entry;

typedef struct bspi_container {
    uint32_t version;
    uint64_t old_size;
    uint64_t new_size;
    uint8_t old_check[BSPI_CHECK_LEN];
    uint8_t new_check[BSPI_CHECK_LEN];
    uint32_t stream_count;
    bspi_stream_entry streams[BSPI_STREAM_COUNT]; /* ascending by id */
    const uint8_t *model; /* the shared range-coded bytes, to the end of the patch */
    uint64_t model_len;
    uint64_t plain_bytes;
} bspi_container;

/* Validates everything that can be without decoding a stream: magic, version,
 * order and known ids and codecs, lengths that tile the file exactly. */
bsp_status bspi_container_read(const uint8_t *bytes, size_t len, bspi_container *container,
                               bsp_fault *fault);
bool bspi_container_write(const bspi_container *container, bspi_buffer *out);

#endif
