/* fuzz_explain.c: the streams of a patch and an executable, as for apply_executable:
 * what the explanation counts adds up, and both ways of predicting agree. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "../patch/handle.h"
#include "fuzz.h"

#define BUCKETS 16u

/* --- predicting --- */

typedef struct plain_way {
    const bspi_predictor *predictor;
    uint8_t *out;
    size_t size;
} plain_way;

static void write_site(void *context, const bspi_ref_site *site) {
    plain_way *way = context;
    const bspi_predictor *p = way->predictor;
    uint64_t target = site->predicted, base = site->new_base;
    for (size_t i = 0; i < p->fix_count; i++)
        if (p->fixes[i].new_off == site->new_off)
            target += (uint64_t)p->fixes[i].delta << bspi_ref_unit_bits(site->kind);
    if (site->kind == BSPI_REF_A64_ADD12 || site->kind == BSPI_REF_A64_LDST12)
        base = target & ~UINT64_C(0xfff);
    CHECK(bspi_within(site->new_off, site->size, way->size));
    (void)bspi_ref_write(site->kind, way->out + site->new_off, site->new_site, base, target);
}

static void compare_ways(const bsp_patch *patch) {
    const bspi_content *content = &patch->content;
    if (!content->has_predictor || content->new_size == 0 || content->ref_count > 256)
        return;
    size_t size = (size_t)content->new_size;
    uint8_t *plain = calloc(1, size), *quick = calloc(1, size);
    CHECK(plain != NULL && quick != NULL);
    for (size_t i = 0; i < content->cover.count; i++) {
        const bspi_cover *entry = &content->cover.items[i];
        memcpy(plain + entry->new_off, patch->old.data + entry->old_off, (size_t)entry->len);
    }
    bspi_walker walker;
    bspi_walker_init(&walker, &content->predictor);
    plain_way way = {&content->predictor, plain, size};
    CHECK(bspi_walk(&walker, 0, size, write_site, &way));
    bspi_walker_free(&walker);
    bspi_walker_init(&walker, &content->predictor);
    for (size_t at = 0; at < size; at += BSP_WINDOW_ALIGN)
        CHECK(bspi_predict(&walker, at, quick + at, BSPI_MIN(BSP_WINDOW_ALIGN, size - at)));
    bspi_walker_free(&walker);
    CHECK(memcmp(plain, quick, size) == 0);
    free(plain);
    free(quick);
}

/* --- explaining --- */

static void check_explanation(bsp_patch *patch, uint64_t new_size) {
    bsp_explanation *told;
    bsp_status status = bsp_explain_new(patch, BUCKETS, NULL, &told, NULL);
    CHECK(status == BSP_OK || status == BSP_E_MEMLIMIT || status == BSP_E_NOMEM);
    if (status != BSP_OK)
        return;
    bsp_explain_bucket buckets[BUCKETS];
    uint64_t all = 0, in_rows = 0;
    CHECK(bsp_explain_buckets(told, buckets, BUCKETS) == BUCKETS);
    for (unsigned i = 0; i < BUCKETS; i++)
        all += buckets[i].carried + buckets[i].predicted + buckets[i].corrected +
               buckets[i].literal + buckets[i].filled;
    CHECK(all == new_size);
    size_t count = bsp_explain_rows(told, NULL, 0);
    bsp_explain_row *rows = calloc(count + 1, sizeof *rows);
    CHECK(rows != NULL && bsp_explain_rows(told, rows, count) == count);
    for (size_t i = 0; i < count; i++) {
        const bsp_explain_row *r = &rows[i];
        CHECK(r->refs == r->refs_right + r->refs_overridden + r->refs_fixed + r->refs_corrected);
        in_rows += r->literal_bytes + r->cover_bytes + r->fill_bytes;
    }
    CHECK(in_rows == new_size);
    free(rows);
    bsp_explain_free(told);
}

FUZZ_TARGET(explain) {
    fuzz_parts streams;
    if (!fuzz_split(data, size, &streams))
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, 0);
    bspi_buffer bytes = {.heap = &heap};
    fuzz_join(&streams, &bytes);
    bsp_patch *patch = NULL;
    if (streams.new_size <= FUZZ_MAX_FILE / 4 &&
        bsp_patch_open(bytes.data, bytes.len, FUZZ_MAX_PLAIN, FUZZ_BUDGET, &patch, NULL) ==
            BSP_OK &&
        bsp_patch_prepare(patch, streams.old, streams.old_len, NULL, NULL) == BSP_OK) {
        compare_ways(patch);
        check_explanation(patch, streams.new_size);
    }
    bsp_patch_close(patch);
    bspi_buffer_free(&bytes);
    CHECK(heap.in_use == 0);
    return 0;
}
