/* overrides.c: which old targets are worth telling the new address of. */
#include <stdlib.h>
#include <string.h>

#include "../common/threads.h"
#include "corrections.h"

/* Prices in tenths of a byte: telling an override, putting right one
 * reference at its own place, and letting an override reach further than one
 * address. */
#define OVERRIDE_PRICE 26
#define FIX_PRICE 28
#define REACH_PRICE 8

typedef struct {
    uint64_t old_target;
    uint64_t actual;
    uint32_t image;
    uint32_t wrong; /* references that this pair would put right */
    uint32_t right; /* references to old_target that the map has right */
    uint32_t between; /* the same of targets between this one and the next claim's */
} claim;

typedef struct {
    claim *items;
    size_t count, capacity;
} claim_list;

typedef struct {
    bspi_content *content;
    const bspi_file *new_;
    bsp_control *control;
    claim_list *windows;   /* first pass: wrong references, one list a window */
    claim *candidates;     /* second pass: the best claim of each target, sorted */
    size_t candidate_count;
    size_t *image_starts;
    int64_t least; /* gain that an override must have */
    struct override_worker {
        bool ready;
        bspi_walker walker;
        bspi_new_refs new_refs;
    } *workers;
} chooser;

typedef struct {
    chooser *c;
    struct override_worker *w;
    claim_list *list;
    bool failed;
} visit_context;

static int by_target(const void *left, const void *right) {
    const claim *a = left, *b = right;
    if (a->image != b->image)
        return a->image < b->image ? -1 : 1;
    if (a->old_target != b->old_target)
        return a->old_target < b->old_target ? -1 : 1;
    if (a->actual != b->actual)
        return a->actual < b->actual ? -1 : 1;
    return 0;
}

static void note_wrong(void *context, const bspi_ref_site *site) {
    visit_context *v = context;
    uint64_t actual;
    if (site->local || !bspi_actual_target(&v->w->new_refs, site, &actual) ||
        actual == site->predicted)
        return;
    if (!BSPI_ENSURE(v->list->items, v->list->count, v->list->capacity, v->c->content->heap)) {
        v->failed = true;
        return;
    }
    claim item = {site->old_target, actual, site->image, 1, 0, 0};
    v->list->items[v->list->count++] = item;
}

static void note_right(void *context, const bspi_ref_site *site) {
    visit_context *v = context;
    chooser *c = v->c;
    if (site->local)
        return;
    size_t low = c->image_starts[site->image], high = c->image_starts[site->image + 1];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->candidates[middle].old_target < site->old_target)
            low = middle + 1;
        else
            high = middle;
    }
    bool claimed = low < c->image_starts[site->image + 1] &&
                   c->candidates[low].old_target == site->old_target;
    if (!claimed && low == c->image_starts[site->image])
        return;
    uint64_t actual;
    if (!bspi_actual_target(&v->w->new_refs, site, &actual) || actual != site->predicted)
        return;
    uint32_t *count = claimed ? &c->candidates[low].right : &c->candidates[low - 1].between;
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

static bsp_status visit_window(chooser *c, size_t index, unsigned worker, bspi_visit visit) {
    struct override_worker *w = &c->workers[worker];
    if (bspi_cancelled(c->control))
        return BSP_E_CANCELLED;
    if (!w->ready) {
        bspi_walker_init(&w->walker, &c->content->predictor);
        bspi_new_refs_init(&w->new_refs, c->new_);
        w->ready = true;
    }
    uint64_t begin = (uint64_t)index * BSPI_ENCODE_WINDOW;
    uint64_t end = BSPI_MIN(begin + BSPI_ENCODE_WINDOW, c->new_->size);
    visit_context v = {c, w, &c->windows[index], false};
    if (!bspi_walk(&w->walker, begin, end, visit, &v) || v.failed || w->new_refs.refs.failed)
        return BSP_E_NOMEM;
    bspi_progress_add(c->control, (end - begin) / 2);
    return BSP_OK;
}

static bsp_status wrong_task(void *context, size_t index, unsigned worker) {
    return visit_window(context, index, worker, note_wrong);
}

static bsp_status right_task(void *context, size_t index, unsigned worker) {
    return visit_window(context, index, worker, note_right);
}

/* Of each target's claims keeps the one with most references behind it. */
static bool elect(chooser *c, size_t windows) {
    size_t total = 0;
    for (size_t i = 0; i < windows; i++)
        total += c->windows[i].count;
    c->candidates = bspi_alloc(c->content->heap, total + 1, sizeof *c->candidates, false);
    if (c->candidates == NULL)
        return false;
    size_t at = 0;
    for (size_t i = 0; i < windows; i++) {
        if (c->windows[i].count != 0)
            memcpy(c->candidates + at, c->windows[i].items,
                   c->windows[i].count * sizeof *c->candidates);
        at += c->windows[i].count;
    }
    qsort(c->candidates, total, sizeof *c->candidates, by_target);
    size_t kept = 0;
    for (size_t i = 0; i < total;) {
        claim best = c->candidates[i];
        size_t j = i;
        best.wrong = 0;
        while (j < total && c->candidates[j].image == best.image &&
               c->candidates[j].old_target == best.old_target) {
            size_t k = j;
            while (k < total && by_target(&c->candidates[k], &c->candidates[j]) == 0)
                k++;
            if (k - j > best.wrong) {
                best.wrong = (uint32_t)BSPI_MIN(k - j, (size_t)UINT32_MAX);
                best.actual = c->candidates[j].actual;
            }
            j = k;
        }
        i = j;
        c->candidates[kept++] = best;
    }
    c->candidate_count = kept;
    size_t images = c->content->layout.image_count, candidate = 0;
    for (size_t image = 0; image <= images; image++) {
        while (candidate < kept && c->candidates[candidate].image < image)
            candidate++;
        c->image_starts[image] = candidate;
    }
    return true;
}

static int64_t gain_of(const claim *item) {
    return ((int64_t)item->wrong - (int64_t)item->right) * FIX_PRICE;
}

/* Looks at the claims from `first` on that share one shift, and keeps those up
 * to where an override that reaches from the first gains most, if it gains at
 * all.  Returns the claim to go on with. */
static size_t take_run(chooser *c, size_t first, size_t end, size_t *used) {
    const claim *items = c->candidates;
    uint64_t shift = items[first].actual - items[first].old_target;
    int64_t gain = gain_of(&items[first]) - OVERRIDE_PRICE, best = gain;
    size_t last = first;
    if (gain_of(&items[first]) <= 0)
        return first + 1;
    for (size_t i = first + 1; i < end; i++) {
        if (items[i].actual - items[i].old_target != shift)
            break;
        gain += gain_of(&items[i]) - (int64_t)items[i - 1].between * FIX_PRICE;
        if (gain > best) {
            if (last == first)
                gain -= REACH_PRICE;
            best = gain;
            last = i;
        } else if (gain < best - 2 * OVERRIDE_PRICE) {
            break;
        }
    }
    if (best <= c->least)
        return first + 1;
    bspi_override override = {items[first].old_target, items[first].actual,
                              items[last].old_target - items[first].old_target};
    c->content->overrides[(*used)++] = override;
    return last + 1;
}

static bsp_status keep_worthwhile(chooser *c, bsp_fault *fault) {
    bspi_content *content = c->content;
    size_t images = content->layout.image_count;
    content->overrides = bspi_alloc(content->heap, c->candidate_count + 1,
                                    sizeof *content->overrides, false);
    content->override_starts = bspi_alloc(content->heap, images + 1, sizeof(size_t), true);
    if (content->overrides == NULL || content->override_starts == NULL)
        return bspi_nomem(content->heap, fault, "overrides");
    size_t used = 0;
    for (size_t image = 0; image < images; image++) {
        for (size_t i = c->image_starts[image]; i < c->image_starts[image + 1];)
            i = take_run(c, i, c->image_starts[image + 1], &used);
        content->override_starts[image + 1] = used;
    }
    return bspi_content_override(content, fault);
}

bsp_status bspi_choose_overrides(bspi_content *content, const bspi_file *old,
                                 const bspi_file *new_, bool sure, unsigned jobs,
                                 bsp_control *control, bsp_fault *fault) {
    bspi_heap *heap = content->heap;
    (void)old;
    size_t windows = (size_t)((new_->size + BSPI_ENCODE_WINDOW - 1) / BSPI_ENCODE_WINDOW);
    unsigned workers = BSPI_MAX(jobs, 1u);
    chooser c = {content, new_, control, NULL, NULL, 0, NULL, sure ? FIX_PRICE : 0, NULL};
    bsp_status status = BSP_E_NOMEM;
    c.windows = bspi_alloc(heap, windows + 1, sizeof *c.windows, true);
    c.workers = bspi_alloc(heap, workers, sizeof *c.workers, true);
    c.image_starts = bspi_alloc(heap, content->layout.image_count + 1, sizeof(size_t), true);
    if (c.windows != NULL && c.workers != NULL && c.image_starts != NULL) {
        bspi_progress(control, BSP_PHASE_PREDICT, 0, new_->size);
        status = bspi_parallel(jobs, windows, wrong_task, &c);
        if (status == BSP_OK && !elect(&c, windows))
            status = BSP_E_NOMEM;
        if (status == BSP_OK)
            status = bspi_parallel(jobs, windows, right_task, &c);
        if (status == BSP_OK)
            status = keep_worthwhile(&c, fault);
    }
    for (unsigned i = 0; c.workers != NULL && i < workers; i++) {
        if (!c.workers[i].ready)
            continue;
        bspi_walker_free(&c.workers[i].walker);
        bspi_new_refs_free(&c.workers[i].new_refs);
    }
    for (size_t i = 0; c.windows != NULL && i < windows; i++)
        bspi_free(heap, c.windows[i].items);
    bspi_free(heap, c.windows);
    bspi_free(heap, c.workers);
    bspi_free(heap, c.image_starts);
    bspi_free(heap, c.candidates);
    if (status == BSP_E_CANCELLED)
        return bspi_fail(fault, status, "overrides", 0, 0, 0);
    return status == BSP_OK ? BSP_OK : bspi_nomem(heap, fault, "overrides");
}
