/* fuzz_streams.c: what a plain stream says survives being written and read
 * again, plainly and through the models. */
#include <string.h>

#include "../common/bytes.h"
#include "../patch/column.h"
#include "../patch/streams.h"
#include "fuzz.h"

typedef struct {
    bspi_heap heap;
    bspi_file old;
    bspi_content content;
} side;

/* Plain bytes and modelled code of each stream. */
typedef struct {
    bspi_buffer plain[FUZZ_STREAMS];
    bspi_buffer model[FUZZ_STREAMS];
} written;

static void side_close(side *s) {
    bspi_content_free(&s->content);
    bspi_file_free(&s->old);
}

static bool side_open(side *s, const fuzz_parts *in) {
    memset(s, 0, sizeof *s);
    bspi_heap_init(&s->heap, FUZZ_BUDGET);
    bspi_content_init(&s->content, &s->heap);
    s->content.old_size = in->old_len;
    s->content.new_size = in->new_size;
    return bspi_file_parse(&s->heap, in->old, in->old_len, &s->old, NULL) == BSP_OK;
}

static bool disjoint(const bspi_content *content) {
    for (size_t i = 0; i < content->fill_count; i++) {
        const bspi_fill *fill = &content->fills[i];
        size_t at = bspi_cover_find(content->cover.items, content->cover.count, fill->new_off);
        if (at < content->cover.count &&
            content->cover.items[at].new_off < fill->new_off + bspi_fill_len(fill))
            return false;
    }
    return true;
}

/* What a stream makes possible for those after it. */
static bool after(side *s, uint32_t id) {
    if (id == BSPI_STREAM_COVER)
        return disjoint(&s->content) &&
               bspi_content_predictor(&s->content, &s->old, NULL) == BSP_OK;
    if (id == BSPI_STREAM_OVERRIDES)
        return bspi_content_override(&s->content, NULL) == BSP_OK;
    if (id == BSPI_STREAM_BYTES)
        s->content.literal_count = bspi_literal_total(&s->content);
    return true;
}

static bool read_all(side *s, bspi_column_mode mode, const uint8_t *const *bytes,
                     const size_t *len, const size_t *plain_len) {
    for (uint32_t id = 1; id <= FUZZ_STREAMS; id++) {
        bspi_column column;
        bspi_decoder decoder;
        memset(&column, 0, sizeof column);
        bspi_column_open(&column, &s->heap, mode);
        bspi_cursor_init(&column.cursor, bytes[id - 1], len[id - 1]);
        bspi_decoder_init(&decoder, bytes[id - 1], len[id - 1]);
        column.decoder = &decoder;
        column.plain_len = plain_len[id - 1];
        bspi_stream_transfer((bspi_stream_id)id, &column, &s->content, &s->old);
        bsp_status status = bspi_column_close(&column, NULL);
        if (mode == BSPI_READ_MODEL && status == BSP_OK)
            CHECK(bspi_decoder_done(&decoder));
        if (status != BSP_OK || !after(s, id))
            return false;
    }
    return true;
}

static bool write_all(side *s, bspi_heap *heap, written *out) {
    for (uint32_t id = 1; id <= FUZZ_STREAMS; id++) {
        for (unsigned modelled = 0; modelled < 2; modelled++) {
            bspi_column column;
            bspi_encoder encoder;
            out->plain[id - 1].heap = out->model[id - 1].heap = heap;
            memset(&column, 0, sizeof column);
            bspi_column_open(&column, &s->heap, modelled ? BSPI_WRITE_MODEL : BSPI_WRITE_PLAIN);
            column.plain = &out->plain[id - 1];
            bspi_encoder_init(&encoder, &out->model[id - 1]);
            column.encoder = &encoder;
            bspi_stream_transfer((bspi_stream_id)id, &column, &s->content, &s->old);
            if (bspi_column_close(&column, NULL) != BSP_OK ||
                (modelled && !bspi_encoder_flush(&encoder)))
                return false;
        }
    }
    return true;
}

static void free_written(written *w) {
    for (unsigned i = 0; i < FUZZ_STREAMS; i++) {
        if (w->plain[i].heap == NULL)
            continue;
        bspi_buffer_free(&w->plain[i]);
        bspi_buffer_free(&w->model[i]);
    }
}

/* Reads what was written and writes it once more: the same bytes. */
static void repeat(const fuzz_parts *in, bspi_column_mode mode, const written *first) {
    const uint8_t *bytes[FUZZ_STREAMS];
    size_t len[FUZZ_STREAMS], plain_len[FUZZ_STREAMS];
    for (unsigned i = 0; i < FUZZ_STREAMS; i++) {
        const bspi_buffer *from = mode == BSPI_READ_PLAIN ? &first->plain[i] : &first->model[i];
        bytes[i] = from->data;
        len[i] = from->len;
        plain_len[i] = first->plain[i].len;
    }
    side s;
    written second;
    bspi_heap heap;
    memset(&second, 0, sizeof second);
    bspi_heap_init(&heap, 0);
    CHECK(side_open(&s, in));
    CHECK(read_all(&s, mode, bytes, len, plain_len));
    CHECK(write_all(&s, &heap, &second));
    for (unsigned i = 0; i < FUZZ_STREAMS; i++) {
        const bspi_buffer *a = &first->plain[i], *b = &second.plain[i];
        CHECK(a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0));
    }
    free_written(&second);
    side_close(&s);
    CHECK(heap.in_use == 0 && s.heap.in_use == 0);
}

FUZZ_TARGET(streams) {
    fuzz_parts in;
    if (!fuzz_split(data, size, &in))
        return 0;
    static const uint8_t nothing[2] = {1, 0};
    for (unsigned i = 0; i < FUZZ_STREAMS; i++) /* an empty stream stands for none */
        if (in.len[i] == 0 && i + 1 != BSPI_STREAM_LITERALS) {
            in.bytes[i] = nothing + (i != 0);
            in.len[i] = i != 0 ? 1 : 2;
        }
    side s;
    written first;
    bspi_heap heap;
    memset(&first, 0, sizeof first);
    bspi_heap_init(&heap, 0);
    if (side_open(&s, &in) && read_all(&s, BSPI_READ_PLAIN, in.bytes, in.len, in.len) &&
        write_all(&s, &heap, &first)) {
        repeat(&in, BSPI_READ_PLAIN, &first);
        repeat(&in, BSPI_READ_MODEL, &first);
    }
    free_written(&first);
    side_close(&s);
    CHECK(heap.in_use == 0 && s.heap.in_use == 0);
    return 0;
}
