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
    memset(content, 0, sizeof *content);
}

uint64_t bspi_fill_hash_len(uint32_t hash) {
    return hash == BSPI_FILL_SHA256 ? 32 : 20;
}

uint64_t bspi_fill_len(const bspi_fill *fill) {
    uint64_t page = UINT64_C(1) << fill->page_bits;
    return (fill->data_len / page + (fill->data_len % page != 0)) * bspi_fill_hash_len(fill->hash);
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
        BSPI_TRY(bspi_address_map_override(&content->predictor.maps[i],
                                           content->overrides + begin, end - begin, fault));
    }
    return BSP_OK;
}

void bspi_content_forget_overrides(bspi_content *content) {
    bspi_free(content->heap, content->overrides);
    bspi_free(content->heap, content->override_starts);
    content->overrides = NULL;
    content->override_starts = NULL;
}
