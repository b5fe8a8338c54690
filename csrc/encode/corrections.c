/* corrections.c: compares the prediction with the new file. */
#include "corrections.h"

#include <string.h>

#include "../common/bytes.h"
#include "../common/threads.h"

void bspi_new_refs_init(bspi_new_refs *refs, const bspi_file *file) {
    memset(refs, 0, sizeof *refs);
    refs->file = file;
    refs->refs.heap = file->heap;
}

void bspi_new_refs_free(bspi_new_refs *refs) {
    if (refs->file != NULL)
        bspi_ref_list_free(&refs->refs);
}

static const bspi_ref *find_new_ref(bspi_new_refs *refs, uint64_t off) {
    uint64_t block = off >> BSPI_BLOCK_BITS;
    if (refs->block_plus_1 != block + 1) {
        refs->refs.count = 0;
        refs->block_plus_1 = block + 1;
        bspi_block_refs(refs->file, block, &refs->refs);
    }
    size_t low = 0, high = refs->refs.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (refs->refs.items[middle].off < off)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < refs->refs.count && refs->refs.items[low].off == off)
        return &refs->refs.items[low];
    return NULL;
}

bool bspi_actual_target(bspi_new_refs *refs, const bspi_ref_site *site, uint64_t *target) {
    const bspi_ref *ref = find_new_ref(refs, site->new_off);
    if (ref != NULL && ref->kind == site->kind) {
        *target = ref->target;
        return true;
    }
    if (site->size > refs->file->size - site->new_off)
        return false;
    return bspi_ref_read(site->kind, refs->file->data + site->new_off, site->new_site,
                         site->new_base, target);
}

int64_t bspi_ref_delta(uint8_t kind, uint64_t predicted, uint64_t actual) {
    switch (kind) {
    case BSPI_REF_A64_ADRP:
        return (int64_t)((actual >> 12) - (predicted >> 12));
    case BSPI_REF_A64_ADD12:
    case BSPI_REF_A64_LDST12:
        return bspi_sign_extend(actual - predicted, 12);
    default:
        return (int64_t)(actual - predicted) >> bspi_ref_unit_bits(kind);
    }
}

/* What one window needs put right. */
typedef struct {
    bspi_ref_fix *refs;
    size_t ref_count, ref_capacity;
    bspi_byte_fix *bytes;
    size_t byte_count, byte_capacity;
} window_fixes;

typedef struct {
    bspi_content *content;
    const bspi_file *old;
    const bspi_file *new_;
    bsp_control *control;
    window_fixes *windows;
    struct worker {
        bool ready;
        bspi_predictor predictor; /* a copy whose fixes are the window's */
        bspi_walker walker;
        bspi_new_refs new_refs;
        uint8_t *buffer;
        window_fixes scratch; /* refs of this window and just before it */
    } *workers;
} corrector;

typedef struct {
    corrector *c;
    struct worker *w;
    bool failed;
} site_context;

/* True when writing `target` makes the field's address bits those of the new
 * file: judged by writing into a copy of the new bytes. */
static bool reproduces(const bspi_ref_site *site, const uint8_t *actual, uint64_t target) {
    uint8_t field[8];
    uint64_t base = site->new_base;
    if (site->kind == BSPI_REF_A64_ADD12 || site->kind == BSPI_REF_A64_LDST12)
        base = target & ~UINT64_C(0xfff);
    memcpy(field, actual, site->size);
    return bspi_ref_write(site->kind, field, site->new_site, base, target) &&
           memcmp(field, actual, site->size) == 0;
}

static void correct_site(void *context, const bspi_ref_site *site) {
    site_context *s = context;
    const bspi_file *new_ = s->c->new_;
    if (site->size > new_->size - site->new_off)
        return;
    const uint8_t *actual = new_->data + site->new_off;
    if (reproduces(site, actual, site->predicted))
        return;
    uint64_t target;
    if (!bspi_actual_target(&s->w->new_refs, site, &target))
        return; /* no such field any more: byte corrections */
    bspi_ref_fix fix = {site->new_off, bspi_ref_delta(site->kind, site->predicted, target)};
    if (fix.delta == 0)
        return;
    uint64_t fixed = site->predicted + ((uint64_t)fix.delta << bspi_ref_unit_bits(site->kind));
    if (!reproduces(site, actual, fixed))
        return;
    window_fixes *scratch = &s->w->scratch;
    if (!BSPI_ENSURE(scratch->refs, scratch->ref_count, scratch->ref_capacity,
                     s->c->content->heap)) {
        s->failed = true;
        return;
    }
    scratch->refs[scratch->ref_count++] = fix;
}

static bool compare_window(corrector *c, uint64_t begin, uint64_t end, const uint8_t *predicted,
                           window_fixes *fixes) {
    const bspi_cover_list *cover = &c->content->cover;
    for (size_t i = bspi_cover_find(cover->items, cover->count, begin); i < cover->count; i++) {
        const bspi_cover *entry = &cover->items[i];
        if (entry->new_off >= end)
            break;
        uint64_t at = BSPI_MAX(entry->new_off, begin);
        uint64_t stop = BSPI_MIN(entry->new_off + entry->len, end);
        while (at < stop) {
            if (stop - at >= 8 && memcmp(predicted + (at - begin), c->new_->data + at, 8) == 0) {
                at += 8;
                continue;
            }
            uint8_t diff = (uint8_t)(c->new_->data[at] - predicted[at - begin]);
            if (diff != 0) {
                if (!BSPI_ENSURE(fixes->bytes, fixes->byte_count, fixes->byte_capacity,
                                 c->content->heap))
                    return false;
                bspi_byte_fix fix = {at, diff};
                fixes->bytes[fixes->byte_count++] = fix;
            }
            at++;
        }
    }
    return true;
}

static bsp_status correct_window(void *context, size_t index, unsigned worker) {
    corrector *c = context;
    struct worker *w = &c->workers[worker];
    window_fixes *fixes = &c->windows[index];
    if (bspi_cancelled(c->control))
        return BSP_E_CANCELLED;
    if (!w->ready) {
        w->predictor = c->content->predictor;
        bspi_walker_init(&w->walker, &w->predictor);
        bspi_new_refs_init(&w->new_refs, c->new_);
        w->buffer = bspi_alloc(c->content->heap, BSPI_ENCODE_WINDOW, 1, false);
        w->ready = true;
    }
    if (w->buffer == NULL)
        return BSP_E_NOMEM;
    uint64_t begin = (uint64_t)index * BSPI_ENCODE_WINDOW;
    uint64_t end = BSPI_MIN(begin + BSPI_ENCODE_WINDOW, c->new_->size);
    w->scratch.ref_count = 0;
    site_context s = {c, w, false};
    /* Fields that begin before the window may reach into it. */
    if (!bspi_walk(&w->walker, begin > 7 ? begin - 7 : 0, end, correct_site, &s) || s.failed ||
        w->new_refs.refs.failed)
        return BSP_E_NOMEM;
    w->predictor.fixes = w->scratch.refs;
    w->predictor.fix_count = w->scratch.ref_count;
    if (!bspi_predict(&w->walker, begin, w->buffer, (size_t)(end - begin)))
        return BSP_E_NOMEM;
    for (size_t i = 0; i < w->scratch.ref_count; i++) {
        if (w->scratch.refs[i].new_off < begin)
            continue;
        if (!BSPI_ENSURE(fixes->refs, fixes->ref_count, fixes->ref_capacity, c->content->heap))
            return BSP_E_NOMEM;
        fixes->refs[fixes->ref_count++] = w->scratch.refs[i];
    }
    if (!compare_window(c, begin, end, w->buffer, fixes))
        return BSP_E_NOMEM;
    bspi_progress_add(c->control, end - begin);
    return BSP_OK;
}

static bool gather(bspi_content *content, const window_fixes *windows, size_t count) {
    size_t refs = 0, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        refs += windows[i].ref_count;
        bytes += windows[i].byte_count;
    }
    content->refs = bspi_alloc(content->heap, refs + 1, sizeof *content->refs, false);
    content->bytes = bspi_alloc(content->heap, bytes + 1, sizeof *content->bytes, false);
    if (content->refs == NULL || content->bytes == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const window_fixes *window = &windows[i];
        if (window->ref_count != 0)
            memcpy(content->refs + content->ref_count, window->refs,
                   window->ref_count * sizeof *window->refs);
        if (window->byte_count != 0)
            memcpy(content->bytes + content->byte_count, window->bytes,
                   window->byte_count * sizeof *window->bytes);
        content->ref_count += window->ref_count;
        content->byte_count += window->byte_count;
    }
    return true;
}

bsp_status bspi_find_corrections(bspi_content *content, const bspi_file *old,
                                 const bspi_file *new_, unsigned jobs, bsp_control *control,
                                 bsp_fault *fault) {
    bspi_heap *heap = content->heap;
    size_t count = (size_t)((new_->size + BSPI_ENCODE_WINDOW - 1) / BSPI_ENCODE_WINDOW);
    unsigned workers = BSPI_MAX(jobs, 1u);
    corrector c = {content, old, new_, control, NULL, NULL};
    bsp_status status = BSP_E_NOMEM;
    c.windows = bspi_alloc(heap, count + 1, sizeof *c.windows, true);
    c.workers = bspi_alloc(heap, workers, sizeof *c.workers, true);
    if (c.windows != NULL && c.workers != NULL) {
        bspi_progress(control, BSP_PHASE_PREDICT, 0, new_->size);
        status = bspi_parallel(jobs, count, correct_window, &c);
        if (status == BSP_OK && !gather(content, c.windows, count))
            status = BSP_E_NOMEM;
    }
    for (unsigned i = 0; c.workers != NULL && i < workers; i++) {
        if (!c.workers[i].ready)
            continue;
        bspi_walker_free(&c.workers[i].walker);
        bspi_new_refs_free(&c.workers[i].new_refs);
        bspi_free(heap, c.workers[i].buffer);
        bspi_free(heap, c.workers[i].scratch.refs);
    }
    for (size_t i = 0; c.windows != NULL && i < count; i++) {
        bspi_free(heap, c.windows[i].refs);
        bspi_free(heap, c.windows[i].bytes);
    }
    bspi_free(heap, c.windows);
    bspi_free(heap, c.workers);
    if (status == BSP_E_CANCELLED)
        return bspi_fail(fault, status, "corrections", 0, 0, 0);
    return status == BSP_OK ? BSP_OK : bspi_nomem(heap, fault, "corrections");
}
