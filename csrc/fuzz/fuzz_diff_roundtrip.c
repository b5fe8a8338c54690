/* fuzz_diff_roundtrip.c: the patch between any two files applies, gives the new
 * file and is never much larger than it.
 *
 * The first byte chooses profile and view, the next two the old file's length. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "fuzz.h"

FUZZ_TARGET(diff_roundtrip) {
    if (size < 3)
        return 0;
    bsp_diff_options options = {
        .profile = data[0] % 3u,
        .jobs = 1 + (data[0] >> 4 & 1u),
        .flags = data[0] & 64 ? BSP_DIFF_RAW : 0,
    };
    size_t old_len = BSPI_MIN((size_t)bspi_load16(data + 1), size - 3);
    const uint8_t *old = data + 3, *new_ = old + old_len, *patch;
    size_t new_len = size - 3 - old_len, patch_len, made_len;
    static const uint8_t check[8] = {0};
    bsp_diff *diff;
    uint8_t *made;
    CHECK(bsp_diff_new(old, old_len, new_, new_len, &options, NULL, &diff, NULL) == BSP_OK);
    for (uint32_t i = 0; i < bsp_diff_stream_count(diff); i++) {
        bsp_stream_info info;
        CHECK(bsp_diff_stream(diff, i, &info) == BSP_OK && info.plain_len == info.bytes_len);
        if (info.plain_len + 2 <= info.modelled_len || options.profile == BSP_PROFILE_FAST)
            CHECK(bsp_diff_set_codec(diff, i, BSP_CODEC_PLAIN, NULL, 0) == BSP_OK);
    }
    CHECK(bsp_diff_finish(diff, check, check, &patch, &patch_len, NULL) == BSP_OK);
    CHECK(patch_len <= new_len + new_len / 5 + 300);
    CHECK(fuzz_apply_patch(patch, patch_len, old, old_len, new_len, &made, &made_len) == BSP_OK);
    CHECK(made_len == new_len && memcmp(made, new_, new_len) == 0);
    free(made);
    bsp_diff_free(diff);
    return 0;
}
