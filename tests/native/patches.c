/* patches.c: makes the patch between two files in every way there is, applies it, and prints
 * its SHA-256.  Whatever the processor, the same files give the same lines.
 *
 *   patches OLD NEW [OLD NEW ...] */
#include <stdlib.h>
#include <string.h>

#include "../../csrc/fuzz/fuzz.h"
#include "files.h"

static void print_digest(const char *what, const uint8_t *data, size_t len) {
    uint8_t digest[32];
    bsp_sha256(data, len, digest);
    printf("%s %zu ", what, len);
    for (unsigned i = 0; i < sizeof digest; i++)
        printf("%02x", digest[i]);
}

static void make_and_apply(bytes old, bytes new_, const bsp_diff_options *options) {
    static const uint8_t check[8] = {0};
    const uint8_t *patch;
    size_t patch_len, made_len;
    bsp_diff *diff;
    uint8_t *made;
    bsp_status status = bsp_diff_new(old.data, old.len, new_.data, new_.len, options, NULL, &diff,
                                     NULL);
    CHECK(status == BSP_OK);
    for (uint32_t i = 0; i < bsp_diff_stream_count(diff); i++) {
        bsp_stream_info info;
        CHECK(bsp_diff_stream(diff, i, &info) == BSP_OK);
        /* Where it is no better than nothing; the other codecs are not the core's. */
        if (info.plain_len <= info.modelled_len || options->profile == BSP_PROFILE_FAST)
            CHECK(bsp_diff_set_codec(diff, i, BSP_CODEC_PLAIN, NULL, 0) == BSP_OK);
    }
    CHECK(bsp_diff_finish(diff, check, check, &patch, &patch_len, NULL) == BSP_OK);
    status = fuzz_apply_patch(patch, patch_len, old.data, old.len, new_.len, &made, &made_len);
    CHECK(status == BSP_OK && made_len == new_.len && memcmp(made, new_.data, new_.len) == 0);
    print_digest("  patch", patch, patch_len);
    printf(" profile %d, flags %u\n", (int)options->profile, (unsigned)options->flags);
    free(made);
    bsp_diff_free(diff);
}

int main(int count, char **names) {
    for (int i = 1; i + 1 < count; i += 2) {
        bytes old = read_file(names[i]), new_ = read_file(names[i + 1]);
        print_digest("old", old.data, old.len);
        print_digest(", new", new_.data, new_.len);
        printf("\n");
        for (unsigned way = 0; way < 6; way++) {
            bsp_diff_options options = {.profile = way % 3, .jobs = 1 + way % 2,
                                        .flags = way < 3 ? 0 : BSP_DIFF_RAW};
            make_and_apply(old, new_, &options);
        }
        free(old.data);
        free(new_.data);
    }
    return 0;
}
