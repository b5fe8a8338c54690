/* content.c: the life of a patch's content. */
#include "content.h"

#include <string.h>

void bspi_content_init(bspi_content *content, bspi_heap *heap) {
    memset(content, 0, sizeof *content);
    content->heap = heap;
    content->cover.heap = heap;
    content->layout.heap = heap;
}

void bspi_content_free(bspi_content *content) {
    if (content->heap == NULL)
        return;
    if (content->has_predictor)
        bspi_predictor_free(&content->predictor);
    bspi_layout_free(&content->layout);
    bspi_cover_free(&content->cover);
    bspi_free(content->heap, content->fills);
    bspi_free(content->heap, content->overrides);
    bspi_free(content->heap, content->override_starts);
    bspi_free(content->heap, content->refs);
    bspi_free(content->heap, content->bytes);
    bspi_free(content->heap, content->literals);
    bspi_free(content->heap, content->pages.items);
    memset(content, 0, sizeof *content);
}

uint64_t bspi_fill_hash_len(uint32_t hash) {
    return hash == BSPI_FILL_SHA256 ? 32 : 20;
}

uint64_t bspi_fill_len(const bspi_fill *fill) {
    uint64_t page = UINT64_C(1) << fill->page_bits;
    return (fill->data_len / page + (fill->data_len % page != 0)) * bspi_fill_hash_len(fill->hash);
}

bool bspi_fill_is_one_block(const bspi_fill *fill) {
    return fill->data_len != 0 &&
           fill->data_off >> BSPI_FILL_BLOCK_BITS ==
               (fill->data_off + (fill->data_len - 1)) >> BSPI_FILL_BLOCK_BITS &&
           fill->data_len <= UINT64_C(1) << BSPI_FILL_BLOCK_BITS;
}

bsp_status bspi_content_predictor(bspi_content *content, const bspi_file *old, bsp_fault *fault) {
    BSPI_TRY(bspi_predictor_init(&content->predictor, content->heap, old, &content->layout,
                                 content->cover.items, content->cover.count, fault));
    content->has_predictor = true;
    return BSP_OK;
}

bsp_status bspi_content_override(bspi_content *content, bsp_fault *fault) {
    for (size_t i = 0; i < content->layout.image_count; i++) {
        size_t begin = content->override_starts[i], end = content->override_starts[i + 1];
        const bspi_override *items = begin < end ? content->overrides + begin : NULL;
        BSPI_TRY(bspi_address_map_override(&content->predictor.maps[i], items, end - begin,
                                           fault));
    }
    return BSP_OK;
}

typedef struct new_reader {
    const bspi_content *content;
    bspi_read_new read;
    void *context;
} new_reader;

/* Fills are not known yet when the pages are looked for: both sides see zeros. */
static bool read_but_fills(void *context, uint64_t off, uint8_t *out, size_t len) {
    const new_reader *reader = context;
    if (!reader->read(reader->context, off, out, len))
        return false;
    for (size_t i = 0; i < reader->content->fill_count; i++) {
        const bspi_fill *fill = &reader->content->fills[i];
        uint64_t from = BSPI_MAX(fill->new_off, off);
        uint64_t to = BSPI_MIN(fill->new_off + bspi_fill_len(fill), off + len);
        if (from < to)
            memset(out + (from - off), 0, (size_t)(to - from));
    }
    return true;
}

bsp_status bspi_content_pages(bspi_content *content, const bspi_file *old, bspi_read_new read,
                              void *context, bsp_fault *fault) {
    bspi_predictor *predictor = &content->predictor;
    new_reader reader = {content, read, context};
    if (!bspi_unwind_pages_find(&content->pages, content->heap, old, &content->layout,
                                predictor->maps, content->new_size, read_but_fills, &reader))
        return bspi_nomem(content->heap, fault, "unwind pages");
    predictor->pages = content->pages.items;
    predictor->page_count = content->pages.count;
    return BSP_OK;
}

void bspi_content_forget_overrides(bspi_content *content) {
    bspi_free(content->heap, content->overrides);
    bspi_free(content->heap, content->override_starts);
    content->overrides = NULL;
    content->override_starts = NULL;
}
