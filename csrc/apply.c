/* apply.c: the second verb: from the old file and a patch to the new one. */
#include <string.h>

#include "common/bytes.h"
#include "common/sha1.h"
#include "common/sha256.h"
#include "common/threads.h"
#include "patch/column.h"
#include "patch/handle.h"
#include "patch/streams.h"

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

/* Reads stream `id`, or what its absence stands for. */
static bsp_status read_stream(bsp_patch *patch, uint32_t id, bspi_decoder *shared,
                              bsp_fault *fault) {
    static const uint8_t nothing[2] = {1, 0};
    const bspi_container *c = &patch->container;
    bspi_column column;
    bspi_decoder own;
    memset(&column, 0, sizeof column);
    column.control = patch->control;
    uint32_t index = 0;
    while (index < c->stream_count && c->streams[index].id != id)
        index++;
    if (index == c->stream_count) {
        if (id == BSPI_STREAM_OVERRIDES) {
            patch->content.override_starts = bspi_alloc(
                &patch->heap, patch->content.layout.image_count + 1, sizeof(size_t), true);
            return patch->content.override_starts != NULL
                       ? BSP_OK
                       : bspi_nomem(&patch->heap, fault, "overrides");
        }
        size_t len = id == BSPI_STREAM_LAYOUT ? 2 : id == BSPI_STREAM_LITERALS ? 0 : 1;
        bspi_column_open(&column, &patch->heap, BSPI_READ_PLAIN);
        bspi_cursor_init(&column.cursor, nothing + (len == 1), len);
        bspi_stream_transfer((bspi_stream_id)id, &column, &patch->content, &patch->old);
        return bspi_column_close(&column, fault);
    }
    const bspi_stream_entry *entry = &c->streams[index];
    switch (entry->codec) {
    case BSP_CODEC_MODEL:
        bspi_column_open(&column, &patch->heap, BSPI_READ_MODEL);
        column.decoder = shared;
        break;
    case BSP_CODEC_MODEL_OWN:
        bspi_column_open(&column, &patch->heap, BSPI_READ_MODEL);
        bspi_decoder_init(&own, entry->encoded, (size_t)entry->encoded_len);
        column.decoder = &own;
        break;
    default: {
        const uint8_t *plain = entry->codec == BSP_CODEC_PLAIN ? entry->encoded
                                                               : patch->provided[index];
        if (plain == NULL)
            return bspi_fail(fault, BSP_E_ARG, "stream not provided", 0, id, 0);
        bspi_column_open(&column, &patch->heap, BSPI_READ_PLAIN);
        bspi_cursor_init(&column.cursor, plain, (size_t)entry->plain_len);
    }
    }
    column.plain_len = entry->plain_len;
    bspi_stream_transfer((bspi_stream_id)id, &column, &patch->content, &patch->old);
    BSPI_TRY(bspi_column_close(&column, fault));
    if (entry->codec == BSP_CODEC_MODEL_OWN && !bspi_decoder_done(&own))
        return bspi_fail(fault, BSP_E_CORRUPT, "stream end", 0, entry->encoded_len, own.pos);
    return BSP_OK;
}

/* Fills and cover are known: they must not overlap. */
static bsp_status check_fills(const bspi_content *content, bsp_fault *fault) {
    for (size_t i = 0; i < content->fill_count; i++) {
        const bspi_fill *fill = &content->fills[i];
        size_t at = bspi_cover_find(content->cover.items, content->cover.count, fill->new_off);
        if (at < content->cover.count &&
            content->cover.items[at].new_off < fill->new_off + bspi_fill_len(fill))
            return bspi_fail(fault, BSP_E_CORRUPT, "fills overlap the cover", 0, fill->new_off,
                             content->cover.items[at].new_off);
    }
    return BSP_OK;
}

static bsp_status gather_runs(bsp_patch *patch, bsp_fault *fault) {
    const bspi_content *content = &patch->content;
    size_t most = content->cover.count + content->fill_count + 1;
    patch->runs = bspi_alloc(&patch->heap, most, sizeof *patch->runs, false);
    patch->fill_bytes = bspi_alloc(&patch->heap, content->fill_count + 1,
                                   sizeof *patch->fill_bytes, true);
    if (patch->runs == NULL || patch->fill_bytes == NULL)
        return bspi_nomem(&patch->heap, fault, "literal runs");
    bspi_literal_run run = {0};
    uint64_t literal = 0;
    while (bspi_next_literal_run(content, &run)) {
        bspi_placed_literals item = {run.new_off, run.len, literal};
        patch->runs[patch->run_count++] = item;
        literal += run.len;
    }
    for (size_t i = 0; i < content->fill_count; i++) {
        patch->fill_bytes[i] = bspi_alloc(&patch->heap,
                                          (size_t)bspi_fill_len(&content->fills[i]), 1, true);
        if (patch->fill_bytes[i] == NULL)
            return bspi_nomem(&patch->heap, fault, "fills");
    }
    return BSP_OK;
}

static bspi_walker *borrow_walker(bsp_patch *patch) {
    bspi_walker *walker = NULL;
    pthread_mutex_lock(&patch->lock);
    if (patch->idle_count > 0)
        walker = patch->idle[--patch->idle_count];
    pthread_mutex_unlock(&patch->lock);
    if (walker != NULL)
        return walker;
    walker = bspi_alloc(&patch->heap, 1, sizeof *walker, false);
    if (walker != NULL)
        bspi_walker_init(walker, &patch->content.predictor);
    return walker;
}

static void return_walker(bsp_patch *patch, bspi_walker *walker) {
    pthread_mutex_lock(&patch->lock);
    if (patch->idle_count < BSPI_WALKER_POOL) {
        patch->idle[patch->idle_count++] = walker;
        walker = NULL;
    }
    pthread_mutex_unlock(&patch->lock);
    if (walker != NULL) {
        bspi_walker_free(walker);
        bspi_free(&patch->heap, walker);
    }
}

static void put_bytes(const bspi_content *content, uint64_t begin, uint8_t *out, size_t len) {
    size_t low = 0, high = content->byte_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (content->bytes[middle].new_off < begin)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < content->byte_count && content->bytes[low].new_off - begin < len; low++) {
        uint8_t *at = &out[content->bytes[low].new_off - begin];
        *at = (uint8_t)(*at + content->bytes[low].diff);
    }
}

static void put_literals(const bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len) {
    size_t low = 0, high = patch->run_count;
    uint64_t end = begin + len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (patch->runs[middle].new_off + patch->runs[middle].len <= begin)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < patch->run_count && patch->runs[low].new_off < end; low++) {
        const bspi_placed_literals *run = &patch->runs[low];
        uint64_t from = BSPI_MAX(run->new_off, begin);
        uint64_t to = BSPI_MIN(run->new_off + run->len, end);
        memcpy(out + (from - begin), patch->content.literals + run->literal + (from - run->new_off),
               (size_t)(to - from));
    }
}

/* New [begin, begin + len) but for what is hashed from it. */
static bool make_bytes(bsp_patch *patch, uint64_t begin, uint8_t *out, size_t len) {
    bspi_walker *walker = borrow_walker(patch);
    if (walker == NULL)
        return false;
    bool good = bspi_predict(walker, begin, out, len);
    return_walker(patch, walker);
    if (!good)
        return false;
    put_bytes(&patch->content, begin, out, len);
    put_literals(patch, begin, out, len);
    return true;
}

static bool read_new(void *context, uint64_t off, uint8_t *out, size_t len) {
    return make_bytes(context, off, out, len);
}

/* The streams that corrections come from.  Bytes and literals need the layout and
 * the cover, but nothing of one another or of the overrides. */
typedef struct corrections {
    bsp_patch *patch;
    bspi_decoder *shared;
    bsp_fault faults[3];
} corrections;

static bsp_status read_correction(void *context, size_t index, unsigned worker) {
    corrections *c = context;
    bsp_fault *fault = &c->faults[index];
    (void)worker;
    if (index == 1)
        return read_stream(c->patch, BSPI_STREAM_BYTES, c->shared, fault);
    if (index == 2)
        return read_stream(c->patch, BSPI_STREAM_LITERALS, c->shared, fault);
    BSPI_TRY(read_stream(c->patch, BSPI_STREAM_OVERRIDES, c->shared, fault));
    BSPI_TRY(bspi_content_override(&c->patch->content, fault));
    return read_stream(c->patch, BSPI_STREAM_REFS, c->shared, fault);
}

static bsp_status read_corrections(bsp_patch *patch, bspi_decoder *shared, bool modelled,
                                   bsp_fault *fault) {
    corrections c = {.patch = patch, .shared = shared};
    /* What shares a coder can only be read in order. */
    bsp_status status = bspi_parallel(modelled ? 1 : patch->jobs, 3, read_correction, &c);
    for (size_t i = 3; i-- > 0;)
        if (c.faults[i].code != BSP_OK && fault != NULL)
            *fault = c.faults[i];
    return status;
}

bsp_status bsp_patch_set_jobs(bsp_patch *patch, uint32_t jobs) {
    if (patch == NULL)
        return BSP_E_ARG;
    patch->jobs = jobs;
    return BSP_OK;
}

bsp_status bsp_patch_prepare(bsp_patch *patch, const uint8_t *old, size_t old_len,
                             bsp_control *control, bsp_fault *fault) {
    if (patch == NULL || (old == NULL && old_len != 0) || patch->prepared ||
        patch->old.heap != NULL)
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_prepare", 0, 0, 0);
    const bspi_container *c = &patch->container;
    bspi_content *content = &patch->content;
    if (old_len != c->old_size)
        return bspi_fail(fault, BSP_E_OLD_MISMATCH, "old size", 0, c->old_size, old_len);
    content->old_size = c->old_size;
    content->new_size = c->new_size;
    patch->control = control;
    bspi_progress(control, BSP_PHASE_DECODE, 0, c->new_size);
    BSPI_TRY(bspi_file_parse(&patch->heap, old, old_len, &patch->old, fault));
    bspi_decoder shared;
    bspi_decoder_init(&shared, c->model, (size_t)c->model_len);
    BSPI_TRY(read_stream(patch, BSPI_STREAM_LAYOUT, &shared, fault));
    BSPI_TRY(read_stream(patch, BSPI_STREAM_COVER, &shared, fault));
    BSPI_TRY(check_fills(content, fault));
    BSPI_TRY(bspi_content_predictor(content, &patch->old, fault));
    content->literal_count = bspi_literal_total(content);
    bool modelled = false;
    for (uint32_t i = 0; i < c->stream_count; i++)
        modelled |= c->streams[i].codec == BSP_CODEC_MODEL;
    BSPI_TRY(read_corrections(patch, &shared, modelled, fault));
    if (modelled && !bspi_decoder_done(&shared))
        return bspi_fail(fault, BSP_E_CORRUPT, "modelled streams end", 0, c->model_len,
                         shared.pos);
    content->predictor.fixes = content->refs;
    content->predictor.fix_count = content->ref_count;
    BSPI_TRY(gather_runs(patch, fault));
    BSPI_TRY(bspi_content_pages(content, &patch->old, read_new, patch, fault));
    patch->sha256 = bspi_sha256_best();
    patch->sha256_two = bspi_sha256_two();
    patch->prepared = true;
    patch->control = NULL;
    if (bspi_cancelled(control))
        return bspi_fail(fault, BSP_E_CANCELLED, "bsp_patch_prepare", 0, 0, 0);
    return BSP_OK;
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
        uint8_t digests[2][BSPI_SHA256_LEN];
        const uint8_t *data = out + (at - begin);
        uint64_t size = BSPI_MIN(page, end - at);
        bool two = fill->hash != BSPI_FILL_SHA1 && size == page && end - at - page >= page;
        if (two)
            bspi_sha256_pair(patch->sha256, patch->sha256_two, data, data + page, (size_t)page,
                             digests[0], digests[1]);
        else if (fill->hash == BSPI_FILL_SHA1)
            bspi_sha1(data, (size_t)size, digests[0]);
        else
            bspi_sha256(patch->sha256, data, (size_t)size, digests[0]);
        for (unsigned i = 0; i <= two; i++, to += hash_len)
            memcpy(to, digests[i], (size_t)hash_len);
        at += two ? 2 * page : size;
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
    if (patch == NULL || !patch->prepared || (out == NULL && len != 0) ||
        new_off % BSP_WINDOW_ALIGN != 0 ||
        !bspi_within(new_off, len, patch->content.new_size) ||
        (len % BSP_WINDOW_ALIGN != 0 && new_off + len != patch->content.new_size))
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_window", 0, 0, new_off);
    if (len == 0)
        return BSP_OK;
    if (!make_bytes(patch, new_off, out, len))
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
    if (patch == NULL || !patch->prepared || index >= patch->content.fill_count ||
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
    pthread_mutex_destroy(&patch->lock);
    bspi_heap heap = patch->heap;
    bspi_free(&heap, patch);
}
