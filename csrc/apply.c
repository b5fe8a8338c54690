/* apply.c: the second verb: from the old file and a patch, once prepared (prepare.c), to
 * the new one, window by window. */
#include <string.h>

#include "common/bytes.h"
#include "common/sha1.h"
#include "common/sha256.h"
#include "patch/rebuild.h"

bsp_status bsp_patch_open(const uint8_t *bytes, size_t len, uint64_t max_plain,
                          uint64_t memory_budget, bsp_patch **patch, bsp_fault *fault) {
    if (bytes == NULL || patch == NULL)
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_open", 0, 0, 0);
    bspi_container container;
    BSPI_TRY(bspi_container_read(bytes, len, &container, fault));
    if (container.plain_bytes > max_plain)
        return bspi_fail(fault, BSP_E_LIMIT, "decoded streams", 0, max_plain,
                         container.plain_bytes);
    bspi_heap heap;
    bspi_heap_init(&heap, memory_budget);
    bsp_patch *made = bspi_alloc(&heap, 1, sizeof *made, true);
    if (made == NULL)
        return bspi_nomem(&heap, fault, "bsp_patch_open");
    if (pthread_mutex_init(&made->lock, NULL) != 0) {
        bspi_free(&heap, made);
        return bspi_nomem(&heap, fault, "bsp_patch_open");
    }
    if (pthread_cond_init(&made->changed, NULL) != 0) {
        pthread_mutex_destroy(&made->lock);
        bspi_free(&heap, made);
        return bspi_nomem(&heap, fault, "bsp_patch_open");
    }
    made->heap = heap;
    made->container = container;
    made->patch_len = len;
    bspi_content_init(&made->content, &made->heap);
    *patch = made;
    return BSP_OK;
}

void bsp_patch_get_info(const bsp_patch *patch, bsp_patch_info *info) {
    const bspi_container *c = &patch->container;
    info->old_size = c->old_size;
    info->new_size = c->new_size;
    memcpy(info->old_check, c->old_check, BSPI_CHECK_LEN);
    memcpy(info->new_check, c->new_check, BSPI_CHECK_LEN);
    info->format_version = c->version;
    info->stream_count = c->stream_count;
    info->plain_bytes = c->plain_bytes;
}

bsp_status bsp_patch_stream(const bsp_patch *patch, uint32_t index, bsp_stream_info *info) {
    if (patch == NULL || info == NULL || index >= patch->container.stream_count)
        return BSP_E_ARG;
    const bspi_stream_entry *entry = &patch->container.streams[index];
    bool core = entry->codec == BSP_CODEC_MODEL || entry->codec == BSP_CODEC_MODEL_OWN;
    info->id = entry->id;
    info->codec = entry->codec;
    info->bytes = core ? NULL : entry->encoded;
    info->bytes_len = entry->encoded_len;
    info->plain_len = entry->plain_len;
    info->modelled_len = entry->codec == BSP_CODEC_MODEL ? patch->container.model_len : 0;
    return BSP_OK;
}

bsp_status bsp_patch_provide(bsp_patch *patch, uint32_t index, const uint8_t *plain,
                             size_t plain_len) {
    if (patch == NULL || index >= patch->container.stream_count || plain == NULL)
        return BSP_E_ARG;
    const bspi_stream_entry *entry = &patch->container.streams[index];
    if ((entry->codec != BSP_CODEC_ZSTD && entry->codec != BSP_CODEC_LZMA) ||
        plain_len != entry->plain_len)
        return BSP_E_ARG;
    patch->provided[index] = plain;
    return BSP_OK;
}

/* Waits until all that new [begin, begin + len) is made of has been decoded. */
static bsp_status await(bsp_patch *patch, uint64_t begin, size_t len, bool with_pages,
                        bsp_fault *fault) {
    uint64_t literals = bspi_literals_before(patch, begin + len);
    pthread_mutex_lock(&patch->lock);
    while (patch->failed.code == BSP_OK && !patch->prepared &&
           (with_pages || patch->literals_ready < literals))
        pthread_cond_wait(&patch->changed, &patch->lock);
    bsp_fault failed = patch->failed;
    pthread_mutex_unlock(&patch->lock);
    if (failed.code != BSP_OK && fault != NULL)
        *fault = failed;
    return (bsp_status)failed.code;
}

/* Hashes as many pages at the start of data[0, len) as is quickest at once; gives their
 * number, and in *done the bytes. */
static size_t hash_some(const bsp_patch *patch, uint32_t hash, const uint8_t *data, uint64_t page,
                        uint64_t len, uint8_t digests[BSPI_SHA256_LANES][BSPI_SHA256_LEN],
                        uint64_t *done) {
    *done = BSPI_MIN(page, len);
    if (hash == BSPI_FILL_SHA1) {
        bspi_sha1(data, (size_t)*done, digests[0]);
        return 1;
    }
    if (patch->sha256_lanes != NULL && len / page >= BSPI_SHA256_LANES) {
        bspi_sha256_pages(patch->sha256_lanes, data, (size_t)page, digests);
        *done = page * BSPI_SHA256_LANES;
        return BSPI_SHA256_LANES;
    }
    if (len / page >= 2) {
        bspi_sha256_pair(patch->sha256, patch->sha256_two, data, data + page, (size_t)page,
                         digests[0], digests[1]);
        *done = page * 2;
        return 2;
    }
    bspi_sha256(patch->sha256, data, (size_t)*done, digests[0]);
    return 1;
}

/* Hashes the pages of fill `index` that begin in this window; none leaves it. */
static void hash_fill(bsp_patch *patch, size_t index, uint64_t begin, const uint8_t *out,
                      size_t len) {
    const bspi_fill *fill = &patch->content.fills[index];
    uint64_t page = UINT64_C(1) << fill->page_bits, hash_len = bspi_fill_hash_len(fill->hash);
    uint64_t end = BSPI_MIN(begin + len, fill->data_off + fill->data_len);
    uint64_t at = BSPI_MAX(fill->data_off, begin);
    uint8_t *to = patch->fill_bytes[index];
    if (at < end)
        to += (at - fill->data_off) / page * hash_len;
    while (at < end) {
        uint8_t digests[BSPI_SHA256_LANES][BSPI_SHA256_LEN];
        uint64_t done = 0;
        size_t count = hash_some(patch, fill->hash, out + (at - begin), page, end - at, digests,
                                 &done);
        for (size_t i = 0; i < count; i++, to += hash_len)
            memcpy(to, digests[i], (size_t)hash_len);
        at += done;
    }
}

/* Leaves zeros where the window's fills belong and hashes what fills are made of. */
static void hash_pages(bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len) {
    const bspi_content *content = &patch->content;
    uint64_t end = begin + len;
    for (size_t i = 0; i < content->fill_count; i++) {
        const bspi_fill *fill = &content->fills[i];
        uint64_t fill_end = fill->new_off + bspi_fill_len(fill);
        if (fill->new_off < end && fill_end > begin)
            memset(out + (BSPI_MAX(fill->new_off, begin) - begin), 0,
                   (size_t)(BSPI_MIN(fill_end, end) - BSPI_MAX(fill->new_off, begin)));
    }
    for (size_t i = 0; i < content->fill_count; i++)
        hash_fill(patch, i, begin, out, len);
}

bsp_status bsp_patch_window(bsp_patch *patch, uint64_t new_off, uint8_t *out, size_t len,
                            bsp_fault *fault) {
    if (patch == NULL || !patch->begun || (out == NULL && len != 0) ||
        new_off % BSP_WINDOW_ALIGN != 0 ||
        !bspi_within(new_off, len, patch->content.new_size) ||
        (len % BSP_WINDOW_ALIGN != 0 && new_off + len != patch->content.new_size))
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_window", 0, 0, new_off);
    if (len == 0)
        return BSP_OK;
    /* A field that begins before the window may reach into it. */
    bool with_pages = new_off < patch->pages_end + BSPI_FIELD_MAX &&
                      new_off + len > patch->pages_begin;
    BSPI_TRY(await(patch, new_off, len, with_pages, fault));
    if (!bspi_make_bytes(patch, new_off, out, len, with_pages))
        return bspi_nomem(&patch->heap, fault, "window");
    hash_pages(patch, new_off, out, len);
    return BSP_OK;
}

uint32_t bsp_patch_fill_count(const bsp_patch *patch) {
    return (uint32_t)patch->content.fill_count;
}

bsp_status bsp_patch_fill_range(const bsp_patch *patch, uint32_t index, uint64_t *new_off,
                                uint64_t *len) {
    if (patch == NULL || index >= patch->content.fill_count)
        return BSP_E_ARG;
    *new_off = patch->content.fills[index].new_off;
    *len = bspi_fill_len(&patch->content.fills[index]);
    return BSP_OK;
}

bsp_status bsp_patch_fill_needs(const bsp_patch *patch, uint32_t index, uint64_t *new_end) {
    if (patch == NULL || index >= patch->content.fill_count)
        return BSP_E_ARG;
    *new_end = patch->content.fills[index].data_off + patch->content.fills[index].data_len;
    return BSP_OK;
}

bsp_status bsp_patch_fill(bsp_patch *patch, uint32_t index, uint8_t *out, size_t len,
                          bsp_fault *fault) {
    if (patch == NULL || !patch->begun || index >= patch->content.fill_count ||
        len != bspi_fill_len(&patch->content.fills[index]))
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_fill", 0, 0, len);
    memcpy(out, patch->fill_bytes[index], len);
    return BSP_OK;
}

uint64_t bsp_patch_peak_memory(const bsp_patch *patch) {
    return patch->heap.peak;
}

void bsp_patch_close(bsp_patch *patch) {
    if (patch == NULL)
        return;
    for (unsigned i = 0; i < patch->idle_count; i++) {
        bspi_walker_free(patch->idle[i]);
        bspi_free(&patch->heap, patch->idle[i]);
    }
    for (size_t i = 0; patch->fill_bytes != NULL && i < patch->content.fill_count; i++)
        bspi_free(&patch->heap, patch->fill_bytes[i]);
    bspi_free(&patch->heap, patch->fill_bytes);
    bspi_free(&patch->heap, patch->runs);
    bspi_content_free(&patch->content);
    bspi_file_free(&patch->old);
    pthread_cond_destroy(&patch->changed);
    pthread_mutex_destroy(&patch->lock);
    bspi_heap heap = patch->heap;
    bspi_free(&heap, patch);
}
