/* fuzz_alloc_failure.c: when any one allocation is refused, making a patch and
 * applying it fail as they should and give everything back.
 *
 * Both verbs are compiled in once more, with a heap that can be told which
 * request to refuse; linked before the core, they stand in for its own.  Input:
 * that number, 2 bytes; the profile; the old file's length, 2 bytes; old and new
 * file. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "fuzz.h"

size_t fuzz_alloc_run(uint32_t profile, const uint8_t *old, size_t old_len, const uint8_t *new_,
                      size_t new_len, size_t fail_at);

static _Thread_local uint64_t refuse;   /* the request to refuse, over both verbs */
static _Thread_local uint64_t requests; /* made by verbs that are done */
static _Thread_local uint64_t in_use;   /* of the heap that last gave something back */

static void start_heap(bspi_heap *heap, uint64_t budget) {
    bspi_heap_init(heap, budget);
    heap->fail_at = refuse > requests ? refuse - requests : 0;
}

/* The last one that a handle gives back is itself. */
static void watched_free(bspi_heap *heap, void *block) {
    bspi_free(heap, block);
    in_use = heap->in_use;
    if (in_use == 0)
        requests += heap->requests;
}

#define bspi_heap_init start_heap
#define bspi_free watched_free
#define read_new read_new_of_diff
#define build build_of_diff
#include "../diff.c"
#undef read_new
#undef build
#include "../apply.c"

static bool refused(bsp_status status) {
    CHECK(status == BSP_OK || status == BSP_E_NOMEM);
    return status != BSP_OK;
}

static bsp_status make_patch(const bsp_diff_options *options, const uint8_t *old, size_t old_len,
                             const uint8_t *new_, size_t new_len, uint8_t **patch, size_t *len) {
    static const uint8_t check[8] = {0};
    const uint8_t *made;
    bsp_diff *diff;
    bsp_status status = bsp_diff_new(old, old_len, new_, new_len, options, NULL, &diff, NULL);
    if (status != BSP_OK)
        return status;
    status = bsp_diff_finish(diff, check, check, &made, len, NULL);
    if (status == BSP_OK) {
        *patch = malloc(*len + 1);
        CHECK(*patch != NULL);
        memcpy(*patch, made, *len);
    }
    bsp_diff_free(diff);
    return status;
}

static bsp_status use_patch(const uint8_t *bytes, size_t len, const uint8_t *old, size_t old_len,
                            const uint8_t *new_, size_t new_len) {
    bsp_patch *patch;
    bsp_status status = bsp_patch_open(bytes, len, UINT64_MAX, 0, &patch, NULL);
    if (status != BSP_OK)
        return status;
    uint8_t *out = malloc(new_len + 1);
    CHECK(out != NULL);
    status = bsp_patch_prepare(patch, old, old_len, NULL, NULL);
    for (size_t at = 0; status == BSP_OK && at < new_len; at += BSP_WINDOW_ALIGN)
        status = bsp_patch_window(patch, at, out + at,
                                  BSPI_MIN(new_len - at, (size_t)BSP_WINDOW_ALIGN), NULL);
    for (uint32_t i = 0; status == BSP_OK && i < bsp_patch_fill_count(patch); i++) {
        uint64_t off, fill_len;
        CHECK(bsp_patch_fill_range(patch, i, &off, &fill_len) == BSP_OK);
        CHECK(bsp_patch_fill(patch, i, out + off, (size_t)fill_len, NULL) == BSP_OK);
    }
    CHECK(status != BSP_OK || memcmp(out, new_, new_len) == 0);
    bsp_patch_close(patch);
    free(out);
    return status;
}

/* The number of requests that were made; below fail_at none was refused. */
size_t fuzz_alloc_run(uint32_t profile, const uint8_t *old, size_t old_len, const uint8_t *new_,
                      size_t new_len, size_t fail_at) {
    bsp_diff_options options = {.profile = profile % 3, .jobs = 1};
    uint8_t *patch = NULL;
    size_t len = 0;
    refuse = fail_at;
    requests = in_use = 0;
    bool failed = refused(make_patch(&options, old, old_len, new_, new_len, &patch, &len));
    CHECK(in_use == 0);
    if (!failed) {
        failed = refused(use_patch(patch, len, old, old_len, new_, new_len));
        CHECK(in_use == 0);
    }
    free(patch);
    CHECK(!failed || fail_at != 0);
    return failed ? fail_at : (size_t)requests;
}

FUZZ_TARGET(alloc_failure) {
    if (size < 5)
        return 0;
    size_t old_len = BSPI_MIN((size_t)bspi_load16(data + 3), size - 5);
    const uint8_t *old = data + 5;
    fuzz_alloc_run(data[2], old, old_len, old + old_len, size - 5 - old_len, bspi_load16(data));
    return 0;
}
