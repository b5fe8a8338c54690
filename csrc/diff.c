/* diff.c: the first verb: from two files to the streams of a patch. */
#include <string.h>

#include "common/bytes.h"
#include "common/threads.h"
#include "encode/corrections.h"
#include "encode/fills.h"
#include "encode/search.h"
#include "patch/column.h"
#include "patch/container.h"
#include "patch/streams.h"

/* Below this sum the modelled streams share one code: each of their own would
 * cost a length and a few bytes to end it. */
#define SHARE_LIMIT 4096u

typedef struct {
    uint32_t id;
    uint32_t codec;
    bspi_buffer plain;
    bspi_buffer modelled; /* coded on its own */
    bspi_buffer encoded;  /* by a generic codec, from the caller */
} stream;

struct bsp_diff {
    bspi_heap heap;
    bsp_diff_options options;
    bspi_file old;
    bspi_file new_;
    bspi_content content;
    stream streams[BSPI_STREAM_COUNT];
    uint32_t stream_count;
    bspi_buffer patch;
};

static void write_stream(bsp_diff *diff, uint32_t id, bspi_column_mode mode, bspi_buffer *plain,
                         bspi_encoder *encoder, bsp_status *status, bsp_fault *fault) {
    bspi_column column;
    memset(&column, 0, sizeof column);
    bspi_column_open(&column, &diff->heap, mode);
    column.plain = plain;
    column.encoder = encoder;
    bspi_stream_transfer((bspi_stream_id)id, &column, &diff->content, &diff->old);
    *status = bspi_column_close(&column, fault);
}

static bsp_status encode_stream(void *context, size_t index, unsigned worker) {
    bsp_diff *diff = context;
    stream *s = &diff->streams[index];
    bsp_status status;
    (void)worker;
    write_stream(diff, s->id, BSPI_WRITE_PLAIN, &s->plain, NULL, &status, NULL);
    if (status != BSP_OK || diff->options.profile == BSP_PROFILE_FAST)
        return status;
    bspi_encoder encoder;
    bspi_encoder_init(&encoder, &s->modelled);
    write_stream(diff, s->id, BSPI_WRITE_MODEL, NULL, &encoder, &status, NULL);
    if (status == BSP_OK && !bspi_encoder_flush(&encoder))
        status = BSP_E_NOMEM;
    return status;
}

/* A stream that says nothing is left out. */
static bool says_nothing(const bsp_diff *diff, const stream *s) {
    static const uint8_t no_layout[2] = {1, 0};
    size_t len = s->plain.len;
    if (s->id == BSPI_STREAM_LAYOUT)
        return len == 2 && memcmp(s->plain.data, no_layout, 2) == 0;
    if (s->id == BSPI_STREAM_OVERRIDES)
        return diff->content.override_starts[diff->content.layout.image_count] == 0;
    return len == 0 || (s->id != BSPI_STREAM_LITERALS && len == 1 && s->plain.data[0] == 0);
}

static bsp_status encode_streams(bsp_diff *diff, bsp_control *control, bsp_fault *fault) {
    bspi_progress(control, BSP_PHASE_ENCODE, 0, diff->new_.size);
    for (uint32_t i = 0; i < BSPI_STREAM_COUNT; i++) {
        diff->streams[i].id = i + 1;
        diff->streams[i].plain.heap = &diff->heap;
        diff->streams[i].modelled.heap = &diff->heap;
        diff->streams[i].encoded.heap = &diff->heap;
    }
    diff->stream_count = BSPI_STREAM_COUNT;
    bsp_status status = bspi_parallel(diff->options.jobs, BSPI_STREAM_COUNT, encode_stream, diff);
    if (status == BSP_E_NOMEM)
        return bspi_nomem(&diff->heap, fault, "streams");
    if (status != BSP_OK)
        return bspi_fail(fault, status, "streams", 0, 0, 0);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < BSPI_STREAM_COUNT; i++) {
        stream *s = &diff->streams[i];
        if (says_nothing(diff, s)) {
            bspi_buffer_free(&s->plain);
            bspi_buffer_free(&s->modelled);
            continue;
        }
        s->codec = diff->options.profile == BSP_PROFILE_FAST ? BSP_CODEC_PLAIN : BSP_CODEC_MODEL;
        stream moved = *s;
        memset(s, 0, sizeof *s);
        diff->streams[kept++] = moved;
    }
    diff->stream_count = kept;
    return BSP_OK;
}

static bsp_status gather_literals(bspi_content *content, const uint8_t *new_, bsp_fault *fault) {
    content->literal_count = bspi_literal_total(content);
    content->literals = bspi_alloc(content->heap, (size_t)content->literal_count + 1, 1, false);
    if (content->literals == NULL)
        return bspi_nomem(content->heap, fault, "literals");
    bspi_literal_run run = {0};
    uint64_t done = 0;
    while (bspi_next_literal_run(content, &run)) {
        memcpy(content->literals + done, new_ + run.new_off, (size_t)run.len);
        done += run.len;
    }
    return BSP_OK;
}

static bool read_new(void *context, uint64_t off, uint8_t *out, size_t len) {
    const bspi_file *new_ = context;
    memcpy(out, new_->data + off, len);
    return true;
}

static bsp_status build(bsp_diff *diff, const uint8_t *old, size_t old_len, const uint8_t *new_,
                        size_t new_len, bsp_control *control, bsp_fault *fault) {
    bspi_content *content = &diff->content;
    bspi_heap *heap = &diff->heap;
    bspi_progress(control, BSP_PHASE_PARSE, 0, new_len);
    content->old_size = old_len;
    content->new_size = new_len;
    if (diff->options.flags & BSP_DIFF_RAW) {
        BSPI_TRY(bspi_file_parse(heap, old, old_len, &diff->old, fault));
        content->raw = diff->old.image_count != 0; /* the applier will find them */
        bspi_file_free(&diff->old);
        bspi_file raw_old = {.heap = heap, .data = old, .size = old_len};
        bspi_file raw_new = {.heap = heap, .data = new_, .size = new_len};
        diff->old = raw_old;
        diff->new_ = raw_new;
    } else {
        BSPI_TRY(bspi_file_parse(heap, old, old_len, &diff->old, fault));
        BSPI_TRY(bspi_file_parse(heap, new_, new_len, &diff->new_, fault));
    }
    BSPI_TRY(bspi_layout_pair(heap, &diff->old, &diff->new_, &content->layout, fault));
    BSPI_TRY(bspi_find_fills(content, &diff->old, &diff->new_, fault));
    BSPI_TRY(bspi_search_cover(content, &diff->old, &diff->new_, &diff->options, control, fault));
    BSPI_TRY(bspi_content_predictor(content, &diff->old, fault));
    BSPI_TRY(bspi_content_pages(content, &diff->old, read_new, &diff->new_, fault));
    BSPI_TRY(bspi_choose_overrides(content, &diff->old, &diff->new_, false, diff->options.jobs,
                                   control, fault));
    BSPI_TRY(bspi_find_corrections(content, &diff->old, &diff->new_, diff->options.jobs, control,
                                   fault));
    BSPI_TRY(gather_literals(content, new_, fault));
    return encode_streams(diff, control, fault);
}

bsp_status bsp_diff_new(const uint8_t *old, size_t old_len, const uint8_t *new_, size_t new_len,
                        const bsp_diff_options *options, bsp_control *control, bsp_diff **diff,
                        bsp_fault *fault) {
    if ((old == NULL && old_len != 0) || (new_ == NULL && new_len != 0) || options == NULL ||
        diff == NULL || options->profile > BSP_PROFILE_MAX)
        return bspi_fail(fault, BSP_E_ARG, "bsp_diff_new", 0, 0, 0);
    bspi_heap heap;
    bspi_heap_init(&heap, options->memory_budget);
    bsp_diff *made = bspi_alloc(&heap, 1, sizeof *made, true);
    if (made == NULL)
        return bspi_nomem(&heap, fault, "bsp_diff_new");
    made->heap = heap;
    made->options = *options;
    made->options.jobs = BSPI_MIN(BSPI_MAX(options->jobs, 1u), BSPI_MAX_JOBS);
    made->patch.heap = &made->heap;
    bspi_content_init(&made->content, &made->heap);
    bsp_status status = build(made, old, old_len, new_, new_len, control, fault);
    if (status != BSP_OK) {
        bsp_diff_free(made);
        return status;
    }
    *diff = made;
    return BSP_OK;
}

uint32_t bsp_diff_stream_count(const bsp_diff *diff) {
    return diff->stream_count;
}

bsp_status bsp_diff_stream(const bsp_diff *diff, uint32_t index, bsp_stream_info *info) {
    if (diff == NULL || info == NULL || index >= diff->stream_count)
        return BSP_E_ARG;
    const stream *s = &diff->streams[index];
    info->id = s->id;
    info->codec = s->codec;
    info->bytes = s->plain.data;
    info->bytes_len = s->plain.len;
    info->plain_len = s->plain.len;
    info->modelled_len = s->modelled.len;
    return BSP_OK;
}

bsp_status bsp_diff_set_codec(bsp_diff *diff, uint32_t index, uint32_t codec,
                              const uint8_t *encoded, size_t encoded_len) {
    if (diff == NULL || index >= diff->stream_count)
        return BSP_E_ARG;
    bool generic = codec == BSP_CODEC_ZSTD || codec == BSP_CODEC_LZMA;
    if ((generic && encoded == NULL) || (!generic && encoded_len != 0) ||
        (!generic && codec != BSP_CODEC_PLAIN && codec != BSP_CODEC_MODEL))
        return BSP_E_ARG;
    if (codec == BSP_CODEC_MODEL && diff->options.profile == BSP_PROFILE_FAST)
        return BSP_E_ARG;
    stream *s = &diff->streams[index];
    bspi_buffer_free(&s->encoded);
    if (generic && !bspi_buffer_put(&s->encoded, encoded, encoded_len))
        return BSP_E_NOMEM;
    s->codec = codec;
    return BSP_OK;
}

/* Codes all modelled streams into one. */
static bsp_status share(bsp_diff *diff, bspi_buffer *shared, bsp_fault *fault) {
    bspi_encoder encoder;
    bspi_encoder_init(&encoder, shared);
    for (uint32_t i = 0; i < diff->stream_count; i++) {
        if (diff->streams[i].codec != BSP_CODEC_MODEL)
            continue;
        bsp_status status;
        write_stream(diff, diff->streams[i].id, BSPI_WRITE_MODEL, NULL, &encoder, &status, fault);
        BSPI_TRY(status);
    }
    return bspi_encoder_flush(&encoder) ? BSP_OK : bspi_nomem(&diff->heap, fault, "streams");
}

bsp_status bsp_diff_finish(bsp_diff *diff, const uint8_t old_check[8], const uint8_t new_check[8],
                           const uint8_t **patch, size_t *patch_len, bsp_fault *fault) {
    if (diff == NULL || old_check == NULL || new_check == NULL || patch == NULL ||
        patch_len == NULL)
        return bspi_fail(fault, BSP_E_ARG, "bsp_diff_finish", 0, 0, 0);
    bspi_container container;
    memset(&container, 0, sizeof container);
    container.version = BSP_FORMAT_VERSION;
    container.old_size = diff->content.old_size;
    container.new_size = diff->content.new_size;
    memcpy(container.old_check, old_check, BSPI_CHECK_LEN);
    memcpy(container.new_check, new_check, BSPI_CHECK_LEN);
    container.stream_count = diff->stream_count;
    uint64_t modelled = 0;
    for (uint32_t i = 0; i < diff->stream_count; i++)
        if (diff->streams[i].codec == BSP_CODEC_MODEL)
            modelled += diff->streams[i].modelled.len;
    bspi_buffer shared = {&diff->heap, NULL, 0, 0};
    bsp_status status = BSP_OK;
    bool own = modelled >= SHARE_LIMIT;
    if (!own && modelled != 0)
        status = share(diff, &shared, fault);
    for (uint32_t i = 0; i < diff->stream_count; i++) {
        const stream *s = &diff->streams[i];
        bspi_stream_entry *entry = &container.streams[i];
        const bspi_buffer *bytes = s->codec == BSP_CODEC_PLAIN   ? &s->plain
                                   : s->codec == BSP_CODEC_MODEL ? &s->modelled
                                                                 : &s->encoded;
        entry->id = s->id;
        entry->codec = s->codec == BSP_CODEC_MODEL && own ? BSP_CODEC_MODEL_OWN : s->codec;
        entry->plain_len = s->plain.len;
        entry->encoded = bytes->data;
        entry->encoded_len = bytes->len;
    }
    container.model = shared.data;
    container.model_len = shared.len;
    diff->patch.len = 0;
    if (status == BSP_OK && !bspi_container_write(&container, &diff->patch))
        status = bspi_nomem(&diff->heap, fault, "patch");
    bspi_buffer_free(&shared);
    if (status != BSP_OK)
        return status;
    *patch = diff->patch.data;
    *patch_len = diff->patch.len;
    return BSP_OK;
}

void bsp_diff_free(bsp_diff *diff) {
    if (diff == NULL)
        return;
    for (uint32_t i = 0; i < BSPI_STREAM_COUNT; i++) {
        stream *s = &diff->streams[i];
        if (s->plain.heap == NULL)
            continue;
        bspi_buffer_free(&s->plain);
        bspi_buffer_free(&s->modelled);
        bspi_buffer_free(&s->encoded);
    }
    bspi_buffer_free(&diff->patch);
    bspi_content_free(&diff->content);
    bspi_file_free(&diff->old);
    bspi_file_free(&diff->new_);
    bspi_heap heap = diff->heap;
    bspi_free(&heap, diff);
}
