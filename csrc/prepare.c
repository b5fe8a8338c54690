/* prepare.c: the second verb's first half: decodes a patch against the old file. */
#include <string.h>

#include "common/bytes.h"
#include "common/threads.h"
#include "patch/column.h"
#include "patch/rebuild.h"
#include "patch/streams.h"

static uint32_t find_stream(const bspi_container *c, uint32_t id) {
    uint32_t index = 0;
    while (index < c->stream_count && c->streams[index].id != id)
        index++;
    return index;
}

/* Whether stream `id` has a code of its own. */
static bool has_own_code(const bsp_patch *patch, uint32_t id) {
    const bspi_container *c = &patch->container;
    uint32_t index = find_stream(c, id);
    return index < c->stream_count && c->streams[index].codec == BSP_CODEC_MODEL_OWN;
}

/* Reads stream `id`, or what its absence stands for. */
static bsp_status read_stream(bsp_patch *patch, uint32_t id, const bspi_file *old,
                              bspi_decoder *shared, bsp_fault *fault) {
    static const uint8_t nothing[2] = {1, 0};
    const bspi_container *c = &patch->container;
    bspi_column column;
    bspi_decoder own;
    memset(&column, 0, sizeof column);
    column.control = patch->control;
    uint32_t index = find_stream(c, id);
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
        bspi_stream_transfer((bspi_stream_id)id, &column, &patch->content, old);
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
    bspi_stream_transfer((bspi_stream_id)id, &column, &patch->content, old);
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

static bool read_new(void *context, uint64_t off, uint8_t *out, size_t len) {
    return bspi_make_bytes(context, off, out, len, false);
}

/* Preparing.  Of the streams that have a code of their own some need nothing of the
 * others: the cover and the byte corrections are read while the old file is parsed, and
 * the literals, which take longest, while windows are made already. */
typedef struct preparing {
    bsp_patch *patch;
    bspi_file raw; /* the old file, of which nothing is known but its bytes */
    bspi_decoder shared;
    bool cover_apart, bytes_apart;
    bsp_fault faults[2];
} preparing;

static bsp_status read_early(void *context, size_t index, unsigned worker) {
    preparing *p = context;
    bsp_patch *patch = p->patch;
    bsp_fault *fault = &p->faults[index];
    (void)worker;
    if (index == 0)
        return bspi_file_parse(&patch->heap, p->raw.data, p->raw.size, &patch->old, fault);
    if (p->cover_apart)
        BSPI_TRY(read_stream(patch, BSPI_STREAM_COVER, &p->raw, &p->shared, fault));
    if (p->bytes_apart)
        BSPI_TRY(read_stream(patch, BSPI_STREAM_BYTES, &p->raw, &p->shared, fault));
    return BSP_OK;
}

/* The rest in its order, but for literals that have a code of their own. */
static bsp_status read_others(preparing *p, bsp_fault *fault) {
    bsp_patch *patch = p->patch;
    bspi_content *content = &patch->content;
    const bspi_file *old = &patch->old;
    BSPI_TRY(read_stream(patch, BSPI_STREAM_LAYOUT, old, &p->shared, fault));
    if (!p->cover_apart)
        BSPI_TRY(read_stream(patch, BSPI_STREAM_COVER, old, &p->shared, fault));
    BSPI_TRY(check_fills(content, fault));
    BSPI_TRY(bspi_content_predictor(content, old, fault));
    content->literal_count = bspi_literal_total(content);
    BSPI_TRY(read_stream(patch, BSPI_STREAM_OVERRIDES, old, &p->shared, fault));
    BSPI_TRY(bspi_content_override(content, fault));
    BSPI_TRY(read_stream(patch, BSPI_STREAM_REFS, old, &p->shared, fault));
    if (!p->bytes_apart)
        BSPI_TRY(read_stream(patch, BSPI_STREAM_BYTES, old, &p->shared, fault));
    if (!has_own_code(patch, BSPI_STREAM_LITERALS)) {
        BSPI_TRY(read_stream(patch, BSPI_STREAM_LITERALS, old, &p->shared, fault));
        patch->literals_ready = content->literal_count;
    }
    content->predictor.fixes = content->refs;
    content->predictor.fix_count = content->ref_count;
    return BSP_OK;
}

static bsp_status begin(bsp_patch *patch, const uint8_t *old, size_t old_len, bsp_fault *fault) {
    const bspi_container *c = &patch->container;
    preparing p = {.patch = patch, .raw = {.data = old, .size = old_len}};
    bspi_decoder_init(&p.shared, c->model, (size_t)c->model_len);
    p.cover_apart = has_own_code(patch, BSPI_STREAM_COVER);
    p.bytes_apart = p.cover_apart && has_own_code(patch, BSPI_STREAM_BYTES);
    bsp_status status = bspi_parallel(patch->jobs, 2, read_early, &p);
    if (status != BSP_OK) {
        if (fault != NULL)
            *fault = p.faults[p.faults[0].code == BSP_OK];
        return status;
    }
    BSPI_TRY(read_others(&p, fault));
    bool modelled = false;
    for (uint32_t i = 0; i < c->stream_count; i++)
        modelled |= c->streams[i].codec == BSP_CODEC_MODEL;
    if (modelled && !bspi_decoder_done(&p.shared))
        return bspi_fail(fault, BSP_E_CORRUPT, "modelled streams end", 0, c->model_len,
                         p.shared.pos);
    BSPI_TRY(gather_runs(patch, fault));
    bspi_unwind_pages_reach(&patch->old, &patch->content.layout, c->new_size,
                            &patch->pages_begin, &patch->pages_end);
    patch->sha256 = bspi_sha256_best();
    patch->sha256_two = bspi_sha256_two();
    patch->sha256_lanes = bspi_sha256_lanes();
    return BSP_OK;
}

bsp_status bsp_patch_set_jobs(bsp_patch *patch, uint32_t jobs) {
    if (patch == NULL)
        return BSP_E_ARG;
    patch->jobs = jobs;
    return BSP_OK;
}

bsp_status bsp_patch_begin(bsp_patch *patch, const uint8_t *old, size_t old_len,
                           bsp_control *control, bsp_fault *fault) {
    if (patch == NULL || (old == NULL && old_len != 0) || patch->begun || patch->old.heap != NULL)
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_begin", 0, 0, 0);
    const bspi_container *c = &patch->container;
    if (old_len != c->old_size)
        return bspi_fail(fault, BSP_E_OLD_MISMATCH, "old size", 0, c->old_size, old_len);
    patch->content.old_size = c->old_size;
    patch->content.new_size = c->new_size;
    patch->control = control;
    bspi_progress(control, BSP_PHASE_DECODE, 0, c->new_size);
    bsp_status status = begin(patch, old, old_len, fault);
    patch->control = NULL;
    if (status == BSP_OK && bspi_cancelled(control))
        return bspi_fail(fault, BSP_E_CANCELLED, "bsp_patch_begin", 0, 0, 0);
    patch->begun = status == BSP_OK;
    return status;
}

static void literals_made(void *context, uint64_t count) {
    bsp_patch *patch = context;
    pthread_mutex_lock(&patch->lock);
    patch->literals_ready = count;
    pthread_cond_broadcast(&patch->changed);
    pthread_mutex_unlock(&patch->lock);
}

static bsp_status finish(bsp_patch *patch, const bsp_control *control, bsp_fault *fault) {
    bspi_content *content = &patch->content;
    if (has_own_code(patch, BSPI_STREAM_LITERALS)) {
        content->literals_made = literals_made;
        content->literals_context = patch;
        BSPI_TRY(read_stream(patch, BSPI_STREAM_LITERALS, &patch->old, NULL, fault));
        literals_made(patch, content->literal_count);
    }
    BSPI_TRY(bspi_content_pages(content, &patch->old, read_new, patch, fault));
    if (bspi_cancelled(control))
        return bspi_fail(fault, BSP_E_CANCELLED, "bsp_patch_finish", 0, 0, 0);
    return BSP_OK;
}

bsp_status bsp_patch_finish(bsp_patch *patch, bsp_control *control, bsp_fault *fault) {
    if (patch == NULL || !patch->begun || patch->failed.code != BSP_OK)
        return bspi_fail(fault, BSP_E_ARG, "bsp_patch_finish", 0, 0, 0);
    if (patch->prepared)
        return BSP_OK;
    bsp_fault found = {0};
    patch->control = control;
    bsp_status status = finish(patch, control, &found);
    patch->control = NULL;
    pthread_mutex_lock(&patch->lock);
    if (status == BSP_OK)
        patch->prepared = true;
    else
        patch->failed = found;
    pthread_cond_broadcast(&patch->changed);
    pthread_mutex_unlock(&patch->lock);
    if (status != BSP_OK && fault != NULL)
        *fault = found;
    return status;
}

bsp_status bsp_patch_prepare(bsp_patch *patch, const uint8_t *old, size_t old_len,
                             bsp_control *control, bsp_fault *fault) {
    BSPI_TRY(bsp_patch_begin(patch, old, old_len, control, fault));
    return bsp_patch_finish(patch, control, fault);
}
