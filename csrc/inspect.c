/* inspect.c: the third verb: where the bytes of a patch went. */
#include <string.h>

#include "inspect/account.h"
#include "patch/prices.h"

#define MAX_BUCKETS 65536u
#define WINDOW (UINT64_C(1) << BSPI_BLOCK_BITS)
/* No reference's field is longer than this. */
#define FIELD_MAX 8u

/* --- prices --- */

static uint64_t entries_of(const bspi_content *content, uint32_t id) {
    uint64_t sections = content->fill_count;
    switch (id) {
    case BSPI_STREAM_COVER:
        return content->cover.count;
    case BSPI_STREAM_OVERRIDES:
        return content->override_starts[content->layout.image_count];
    case BSPI_STREAM_REFS:
        return content->ref_count;
    case BSPI_STREAM_BYTES:
        return content->byte_count;
    case BSPI_STREAM_LITERALS:
        return content->literal_count;
    default:
        for (size_t i = 0; i < content->layout.image_count; i++)
            sections += content->layout.images[i].section_count;
        return sections;
    }
}

/* A listener to the prices of one stream. */
typedef struct bill {
    bsp_explanation *e;
    bsp_explain_stream *stream;
    size_t run; /* of literals, the one at hand */
} bill;

static void take_price(void *context, uint64_t item, uint64_t price) {
    bill *b = context;
    const bsp_patch *patch = b->e->patch;
    b->stream->price += price;
    if (item == BSPI_ITEM_NONE) {
        b->stream->price_frame += price;
    } else if (b->stream->id == BSPI_STREAM_LITERALS) {
        while (b->run + 1 < patch->run_count && patch->runs[b->run + 1].literal <= item)
            b->run++;
        const bspi_placed_literals *run = &patch->runs[b->run];
        bspi_plain_row(b->e, run->new_off + (item - run->literal))->price[b->stream->id] += price;
    } else {
        b->e->item_prices[b->stream->id][item] += price;
    }
}

static bsp_status find_prices(bsp_explanation *e, bsp_control *control, bsp_fault *fault) {
    bsp_patch *patch = e->patch;
    for (uint32_t id = BSPI_STREAM_COVER; id < BSPI_STREAM_LITERALS; id++) {
        size_t count = (size_t)entries_of(&patch->content, id);
        e->item_prices[id] = bspi_alloc(e->heap, count + 1, sizeof(uint64_t), true);
        if (e->item_prices[id] == NULL)
            return bspi_nomem(e->heap, fault, "explain.prices");
    }
    for (uint32_t i = 0; i < patch->container.stream_count; i++) {
        const bspi_stream_entry *entry = &patch->container.streams[i];
        bsp_explain_stream *stream = &e->streams[e->stream_count++];
        *stream = (bsp_explain_stream){.id = entry->id,
                                       .codec = entry->codec,
                                       .entries = entries_of(&patch->content, entry->id),
                                       .plain_len = entry->plain_len,
                                       .coded_len = entry->encoded_len};
        if (bspi_cancelled(control))
            return bspi_fail(fault, BSP_E_CANCELLED, "bsp_explain_new", 0, 0, 0);
        bill b = {e, stream, 0};
        BSPI_TRY(bspi_stream_prices((bspi_stream_id)entry->id, entry->codec != BSP_CODEC_PLAIN,
                                    &patch->content, &patch->old, take_price, &b, fault));
    }
    return BSP_OK;
}

/* --- the walk over the new file --- */

typedef enum byte_class { CARRIED, PREDICTED, CORRECTED, LITERAL, FILLED, CLASSES } byte_class;

/* One window at a time, with FIELD_MAX bytes on either side so that fields on
 * its borders are seen whole. */
typedef struct sweep {
    bsp_explanation *e;
    uint64_t begin, end; /* the window */
    uint64_t lead;       /* the offset of made[0] */
    size_t ref_fix;      /* the next reference correction to account for */
    size_t byte_fix;     /* the next byte correction */
    uint64_t run_end;    /* behind the byte correction before it */
    uint8_t classes[WINDOW];
    uint8_t made[WINDOW + 2 * FIELD_MAX]; /* as predicted */
} sweep;

static void mark(sweep *s, uint64_t from, uint64_t to, byte_class class) {
    from = BSPI_MAX(from, s->begin);
    to = BSPI_MIN(to, s->end);
    if (from < to)
        memset(s->classes + (from - s->begin), (int)class, (size_t)(to - from));
}

/* Accounts for the byte corrections before new offset `stop` under `kind`; how
 * many.  `row` is NULL where each is in its own place. */
static uint64_t take_byte_fixes(sweep *s, uint64_t stop, bsp_explain_row *row) {
    bsp_explanation *e = s->e;
    const bspi_content *content = &e->patch->content;
    uint64_t count = 0;
    for (; s->byte_fix < content->byte_count && content->bytes[s->byte_fix].new_off < stop;
         s->byte_fix++, count++) {
        uint64_t off = content->bytes[s->byte_fix].new_off;
        bsp_explain_row *at = row != NULL ? row : bspi_plain_row(e, off);
        at->byte_fixes++;
        at->byte_runs += off != s->run_end;
        at->price[BSPI_STREAM_BYTES] += e->item_prices[BSPI_STREAM_BYTES][s->byte_fix];
        s->run_end = off + 1;
    }
    return count;
}

/* The number of the override that answers the reference, or BSPI_ITEM_NONE. */
static uint64_t override_of(const bsp_explanation *e, const bspi_ref_site *site) {
    const bspi_content *content = &e->patch->content;
    size_t low = content->override_starts[site->image], begin = low;
    size_t high = content->override_starts[site->image + 1];
    if (site->local)
        return BSPI_ITEM_NONE;
    while (low < high) { /* the first that begins behind the target */
        size_t middle = low + (high - low) / 2;
        if (content->overrides[middle].old_addr <= site->old_target)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == begin || site->old_target - content->overrides[low - 1].old_addr >
                            content->overrides[low - 1].reach)
        return BSPI_ITEM_NONE;
    return low - 1;
}

static void count_override(void *context, const bspi_ref_site *site) {
    bsp_explanation *e = context;
    uint64_t which = override_of(e, site);
    if (which != BSPI_ITEM_NONE)
        e->override_uses[which]++;
}

/* This user's share of what the override cost; the last one takes what is left. */
static uint64_t override_share(bsp_explanation *e, uint64_t which) {
    uint64_t *price = &e->item_prices[BSPI_STREAM_OVERRIDES][which];
    if (e->override_uses[which] == 0)
        return 0;
    uint64_t share = *price / e->override_uses[which]--;
    *price -= share;
    return share;
}

static void take_ref(void *context, const bspi_ref_site *site) {
    sweep *s = context;
    bsp_explanation *e = s->e;
    const bspi_content *content = &e->patch->content;
    const uint64_t *ref_prices = e->item_prices[BSPI_STREAM_REFS];
    bool moved = memcmp(s->made + (site->new_off - s->lead), e->patch->old.data + site->old_off,
                        site->size) != 0;
    if (site->new_off < s->begin) { /* accounted for in the window before */
        if (moved)
            mark(s, site->new_off, site->new_off + site->size, PREDICTED);
        return;
    }
    uint64_t place_end, field_end = site->new_off + site->size;
    uint32_t place = bspi_place_at(e, site->new_off, &place_end);
    /* Corrections that belong to no reference; the rows may move in memory. */
    take_byte_fixes(s, site->new_off, NULL);
    for (; s->ref_fix < content->ref_count && content->refs[s->ref_fix].new_off < site->new_off;
         s->ref_fix++)
        bspi_plain_row(e, content->refs[s->ref_fix].new_off)->price[BSPI_STREAM_REFS] +=
            ref_prices[s->ref_fix];
    bsp_explain_row *plain = bspi_row_at(e, place, BSPI_REF_NONE), *row;
    plain->cover_bytes -= BSPI_MIN(field_end, place_end) - site->new_off;
    row = bspi_row_at(e, place, site->kind);
    row->cover_bytes += BSPI_MIN(field_end, place_end) - site->new_off;
    row->refs++;
    row->refs_moved += moved;
    bool fixed = s->ref_fix < content->ref_count &&
                 content->refs[s->ref_fix].new_off == site->new_off;
    if (fixed)
        row->price[BSPI_STREAM_REFS] += ref_prices[s->ref_fix++];
    uint64_t which = override_of(e, site);
    if (which != BSPI_ITEM_NONE)
        row->price[BSPI_STREAM_OVERRIDES] += override_share(e, which);
    bool corrected = take_byte_fixes(s, field_end, row) != 0;
    if (fixed)
        row->refs_fixed++;
    else if (corrected)
        row->refs_corrected++;
    else if (which != BSPI_ITEM_NONE)
        row->refs_overridden++;
    else
        row->refs_right++;
    if (fixed || moved)
        mark(s, site->new_off, field_end, fixed ? CORRECTED : PREDICTED);
}

/* Marks what the cover, fills and byte corrections make of the window; the
 * references have been marked by take_ref in between. */
static void mark_cover(sweep *s) {
    const bspi_content *content = &s->e->patch->content;
    const bspi_cover *items = content->cover.items;
    memset(s->classes, LITERAL, sizeof s->classes);
    for (size_t i = bspi_cover_find(items, content->cover.count, s->begin);
         i < content->cover.count && items[i].new_off < s->end; i++) {
        mark(s, items[i].new_off, items[i].new_off + items[i].len, CARRIED);
        if (items[i].new_off >= s->begin) {
            bsp_explain_row *row = bspi_plain_row(s->e, items[i].new_off);
            row->cover_entries++;
            row->price[BSPI_STREAM_COVER] += s->e->item_prices[BSPI_STREAM_COVER][i];
        }
    }
    for (size_t i = 0; i < content->fill_count; i++)
        mark(s, content->fills[i].new_off,
             content->fills[i].new_off + bspi_fill_len(&content->fills[i]), FILLED);
}

static void mark_byte_fixes(sweep *s, size_t first) {
    const bspi_content *content = &s->e->patch->content;
    for (size_t i = first; i < content->byte_count && content->bytes[i].new_off < s->end; i++) {
        if (content->bytes[i].new_off < s->begin)
            continue;
        uint8_t *class = &s->classes[content->bytes[i].new_off - s->begin];
        if (*class < LITERAL) /* literals and fills overwrite corrections */
            *class = CORRECTED;
    }
}

/* Adds the window's bytes to the buckets and to the rows of no reference. */
static void count_window(sweep *s) {
    bsp_explanation *e = s->e;
    for (uint64_t at = s->begin; at < s->end;) {
        uint64_t place_end, counts[CLASSES] = {0};
        uint32_t place = bspi_place_at(e, at, &place_end), bucket = bspi_bucket_at(e, at);
        uint64_t stop = BSPI_MIN(BSPI_MIN(place_end, s->end), bspi_bucket_begin(e, bucket + 1));
        for (; at < stop; at++)
            counts[s->classes[at - s->begin]]++;
        bsp_explain_bucket *b = &e->buckets[bucket];
        b->carried += counts[CARRIED];
        b->predicted += counts[PREDICTED];
        b->corrected += counts[CORRECTED];
        b->literal += counts[LITERAL];
        b->filled += counts[FILLED];
        bsp_explain_row *row = bspi_row_at(e, place, BSPI_REF_NONE);
        row->cover_bytes += counts[CARRIED] + counts[PREDICTED] + counts[CORRECTED];
        row->literal_bytes += counts[LITERAL];
        row->fill_bytes += counts[FILLED];
    }
}

static bsp_status sweep_window(sweep *s, bspi_walker *walker, bsp_fault *fault) {
    bsp_explanation *e = s->e;
    const bspi_content *content = &e->patch->content;
    s->end = BSPI_MIN(s->begin + WINDOW, content->new_size);
    s->lead = s->begin - BSPI_MIN(s->begin, FIELD_MAX);
    uint64_t tail = BSPI_MIN(s->end + FIELD_MAX, content->new_size);
    size_t first = s->byte_fix;
    while (first > 0 && content->bytes[first - 1].new_off >= s->begin)
        first--; /* taken with a field that began in the window before */
    mark_cover(s);
    if (!bspi_predict(walker, s->lead, s->made, (size_t)(tail - s->lead)) ||
        !bspi_walk(walker, s->lead, s->end, take_ref, s))
        return bspi_nomem(e->heap, fault, "explain");
    take_byte_fixes(s, s->end, NULL);
    mark_byte_fixes(s, first);
    count_window(s);
    return e->failed ? bspi_nomem(e->heap, fault, "explain.rows") : BSP_OK;
}

/* What no reference has asked for: corrections behind the last one and
 * overrides that nothing uses. */
static void take_rest(sweep *s) {
    bsp_explanation *e = s->e;
    const bspi_content *content = &e->patch->content;
    for (; s->ref_fix < content->ref_count; s->ref_fix++)
        bspi_plain_row(e, content->refs[s->ref_fix].new_off)->price[BSPI_STREAM_REFS] +=
            e->item_prices[BSPI_STREAM_REFS][s->ref_fix];
    for (size_t i = 0; i < e->stream_count; i++)
        for (uint64_t j = 0; e->streams[i].id == BSPI_STREAM_OVERRIDES && j < e->streams[i].entries;
             j++)
            e->streams[i].price_frame += e->item_prices[BSPI_STREAM_OVERRIDES][j];
}

static bsp_status sweep_all(bsp_explanation *e, bsp_control *control, bsp_fault *fault) {
    const bspi_content *content = &e->patch->content;
    bsp_status status = BSP_OK;
    bspi_walker walker;
    bspi_walker_init(&walker, &content->predictor);
    sweep *s = bspi_alloc(e->heap, 1, sizeof *s, true);
    size_t overrides = content->override_starts[content->layout.image_count];
    e->override_uses = bspi_alloc(e->heap, overrides + 1, sizeof *e->override_uses, true);
    if (s == NULL || e->override_uses == NULL ||
        (overrides != 0 && !bspi_walk(&walker, 0, content->new_size, count_override, e)))
        status = bspi_nomem(e->heap, fault, "explain");
    if (status == BSP_OK)
        s->e = e;
    for (; status == BSP_OK && s->begin < content->new_size; s->begin += WINDOW) {
        bspi_progress(control, BSP_PHASE_PREDICT, s->begin, content->new_size);
        status = bspi_cancelled(control)
                     ? bspi_fail(fault, BSP_E_CANCELLED, "bsp_explain_new", 0, 0, 0)
                     : sweep_window(s, &walker, fault);
    }
    if (status == BSP_OK)
        take_rest(s);
    bspi_free(e->heap, s);
    bspi_walker_free(&walker);
    return status;
}

/* --- the interface --- */

bsp_status bsp_explain_new(bsp_patch *patch, uint32_t bucket_count, bsp_control *control,
                           bsp_explanation **explanation, bsp_fault *fault) {
    if (patch == NULL || !patch->prepared || explanation == NULL || bucket_count == 0 ||
        bucket_count > MAX_BUCKETS)
        return bspi_fail(fault, BSP_E_ARG, "bsp_explain_new", 0, 0, bucket_count);
    bsp_explanation *e = bspi_alloc(&patch->heap, 1, sizeof *e, true);
    if (e == NULL)
        return bspi_nomem(&patch->heap, fault, "bsp_explain_new");
    e->heap = &patch->heap;
    e->patch = patch;
    e->bucket_count = bucket_count;
    e->buckets = bspi_alloc(e->heap, bucket_count, sizeof *e->buckets, true);
    bsp_status status = bspi_find_places(e, fault);
    if (status == BSP_OK && (e->buckets == NULL || !bspi_make_rows(e)))
        status = bspi_nomem(e->heap, fault, "bsp_explain_new");
    if (status == BSP_OK)
        status = find_prices(e, control, fault);
    if (status == BSP_OK)
        status = sweep_all(e, control, fault);
    if (status == BSP_OK)
        status = bspi_order_rows(e, fault);
    if (status != BSP_OK) {
        bsp_explain_free(e);
        return status;
    }
    *explanation = e;
    return BSP_OK;
}

#define COPY_OUT(from, count, to, capacity)                              \
    do {                                                                 \
        size_t copied_ = BSPI_MIN((size_t)(count), (size_t)(capacity));  \
        if (copied_ != 0)                                                \
            memcpy((to), (from), copied_ * sizeof *(to));                \
        return (count);                                                  \
    } while (0)

size_t bsp_explain_places(const bsp_explanation *explanation, bsp_explain_place *places,
                          size_t capacity) {
    COPY_OUT(explanation->places, explanation->place_count, places, capacity);
}

size_t bsp_explain_rows(const bsp_explanation *explanation, bsp_explain_row *rows,
                        size_t capacity) {
    COPY_OUT(explanation->rows, explanation->row_count, rows, capacity);
}

size_t bsp_explain_streams(const bsp_explanation *explanation, bsp_explain_stream *streams,
                           size_t capacity) {
    COPY_OUT(explanation->streams, explanation->stream_count, streams, capacity);
}

size_t bsp_explain_buckets(const bsp_explanation *explanation, bsp_explain_bucket *buckets,
                           size_t capacity) {
    COPY_OUT(explanation->buckets, explanation->bucket_count, buckets, capacity);
}

void bsp_explain_free(bsp_explanation *explanation) {
    if (explanation == NULL)
        return;
    bspi_heap *heap = explanation->heap;
    for (unsigned i = 0; i < BSP_EXPLAIN_STREAMS; i++)
        bspi_free(heap, explanation->item_prices[i]);
    bspi_free(heap, explanation->override_uses);
    bspi_free(heap, explanation->places);
    bspi_free(heap, explanation->spans);
    bspi_free(heap, explanation->row_of);
    bspi_free(heap, explanation->rows);
    bspi_free(heap, explanation->buckets);
    bspi_free(heap, explanation);
}
