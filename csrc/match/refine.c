/* refine.c: a second, finer look at what the first search left open. */
#include <string.h>

#include "../common/bytes.h"
#include "../common/threads.h"
#include "match.h"

/* Seeds of this many bytes are enough inside a gap, where there is little to
 * mistake them for. */
#define WINDOW 8u
/* How far behind and before a gap's neighbours the old file is searched. */
#define REACH ((uint64_t)16 << 10)
/* Gaps longer than this are searched only in their neighbourhood's first bytes. */
#define OLD_LIMIT ((uint64_t)256 << 10)
#define CHAIN_LIMIT 16u
/* What an entry must save to be worth its own cost, in bytes that agree. */
#define MINIMUM 12u
#define MINIMUM_SAME_DIAGONAL 6u

typedef struct {
    const uint8_t *old;
    const uint8_t *new_;
    uint64_t old_size;
    uint64_t new_size;
    const bspi_cover_list *cover;
    bspi_cover_list *found; /* one list a slice of gaps */
    size_t slices;
    bspi_heap *heap;
    bsp_control *control;
} refinement;

typedef struct {
    uint64_t begin, end;         /* of the gap in the new file */
    uint64_t before;             /* old position behind the left neighbour */
    uint64_t after;              /* old position where the right neighbour begins */
    bool has_before, has_after;
} gap;

static gap gap_before(const refinement *r, size_t i) {
    const bspi_cover *items = r->cover->items;
    gap g;
    g.has_before = i > 0;
    g.has_after = i < r->cover->count;
    g.begin = g.has_before ? items[i - 1].new_off + items[i - 1].len : 0;
    g.end = g.has_after ? items[i].new_off : r->new_size;
    g.before = g.has_before ? items[i - 1].old_off + items[i - 1].len : 0;
    g.after = g.has_after ? items[i].old_off : r->old_size;
    return g;
}

/* The part of the old file in which a gap's bytes most likely lie. */
static void old_range(const refinement *r, const gap *g, uint64_t *low, uint64_t *high) {
    uint64_t len = g->end - g->begin;
    uint64_t reach = BSPI_MIN(len + REACH, OLD_LIMIT);
    uint64_t left = g->before, right = g->after;
    if (!(g->has_before && g->has_after && left <= right && right - left <= OLD_LIMIT)) {
        /* The neighbours lie apart: look around the left one, or the right. */
        if (g->has_before)
            right = left;
        else
            left = right;
    }
    *low = left > reach ? left - reach : 0;
    *high = BSPI_MIN(r->old_size, right + reach);
}

bool bspi_search_near(const bspi_near_search *s, bspi_cover_list *found) {
    if (s->end - s->begin < MINIMUM_SAME_DIAGONAL || s->high - s->low < WINDOW)
        return true;
    const uint8_t *old = s->old, *new_ = s->new_;
    bspi_seed_index index = {0};
    if (!bspi_seed_index_build(&index, found->heap, old, s->low, s->high, WINDOW, 1))
        return false;
    uint64_t at = s->begin, floor = s->begin;
    uint64_t shift = s->shift;
    bool good = true;
    while (good && at + WINDOW <= s->end) {
        uint64_t best_len = 0, best_old = 0, best_back = 0;
        uint64_t expected = at + shift;
        uint64_t hash = bspi_seed_hash(new_ + at, WINDOW);
        uint32_t entry = index.heads[hash >> (64 - index.bits)];
        for (unsigned i = 0; i <= CHAIN_LIMIT; i++) {
            uint64_t old_off;
            if (i == 0) {
                old_off = expected; /* the diagonal that we are on */
                if (old_off >= s->old_size)
                    continue;
            } else {
                if (entry == 0)
                    break;
                old_off = index.base + (uint64_t)(entry - 1);
                entry = index.next[entry - 1];
            }
            uint64_t len = bspi_common_prefix(old + old_off, new_ + at,
                                              BSPI_MIN(s->end - at, s->old_size - old_off));
            if (len < WINDOW)
                continue;
            uint64_t back = bspi_common_suffix(old + old_off, new_ + at,
                                               BSPI_MIN(at - floor, old_off));
            if (len + back > best_len) {
                best_len = len + back;
                best_old = old_off;
                best_back = back;
            }
        }
        bool same = best_len != 0 && best_old == expected;
        if (best_len < (same ? MINIMUM_SAME_DIAGONAL : MINIMUM)) {
            at++;
            continue;
        }
        uint64_t old_off = best_old - best_back, new_off = at - best_back, len = best_len;
        uint64_t more = bspi_extend_backward(old + old_off, new_ + new_off,
                                             BSPI_MIN(old_off, new_off - floor));
        old_off -= more;
        new_off -= more;
        len += more;
        len += bspi_extend_forward(old + old_off + len, new_ + new_off + len,
                                   BSPI_MIN(s->end - new_off - len,
                                            s->old_size - old_off - len));
        bspi_cover entry_found = {new_off, old_off, len};
        good = bspi_cover_push(found, entry_found);
        shift = old_off - new_off;
        at = new_off + len;
        floor = at;
    }
    bspi_seed_index_free(&index);
    return good;
}

static bool search_gap(const refinement *r, const gap *g, bspi_cover_list *found) {
    bspi_near_search s = {r->old, r->new_, r->old_size, g->begin, g->end, 0, 0,
                          g->before - g->begin};
    old_range(r, g, &s.low, &s.high);
    return bspi_search_near(&s, found);
}

static bsp_status refine_task(void *context, size_t slice, unsigned worker) {
    refinement *r = context;
    (void)worker;
    size_t gaps = r->cover->count + 1;
    size_t first = gaps / r->slices * slice + BSPI_MIN(slice, gaps % r->slices);
    size_t count = gaps / r->slices + (slice < gaps % r->slices ? 1 : 0);
    for (size_t i = first; i < first + count; i++) {
        gap g = gap_before(r, i);
        if (!search_gap(r, &g, &r->found[slice]))
            return BSP_E_NOMEM;
        if (bspi_cancelled(r->control))
            return BSP_E_CANCELLED;
        if (i < r->cover->count && !bspi_cover_push(&r->found[slice], r->cover->items[i]))
            return BSP_E_NOMEM;
    }
    return BSP_OK;
}

bsp_status bspi_refine_gaps(bspi_heap *heap, const uint8_t *old, uint64_t old_size,
                            const uint8_t *new_, uint64_t new_size, unsigned jobs,
                            bsp_control *control, bspi_cover_list *cover, bsp_fault *fault) {
    size_t slices = BSPI_MIN(cover->count + 1, (size_t)64);
    bspi_cover_list *found = bspi_alloc(heap, slices, sizeof *found, true);
    if (found == NULL)
        return bspi_nomem(heap, fault, "refine.slices");
    for (size_t i = 0; i < slices; i++)
        found[i].heap = heap;
    refinement r = {old, new_, old_size, new_size, cover, found, slices, heap, control};
    bsp_status status = bspi_parallel(jobs, slices, refine_task, &r);
    if (status == BSP_OK) {
        bspi_cover_list joined = {heap, NULL, 0, 0};
        for (size_t slice = 0; slice < slices && status == BSP_OK; slice++)
            for (size_t i = 0; i < found[slice].count && status == BSP_OK; i++)
                if (!bspi_cover_push(&joined, found[slice].items[i]))
                    status = BSP_E_NOMEM;
        if (status == BSP_OK) {
            bspi_cover_free(cover);
            *cover = joined;
        } else {
            bspi_cover_free(&joined);
        }
    }
    for (size_t i = 0; i < slices; i++)
        bspi_cover_free(&found[i]);
    bspi_free(heap, found);
    if (status == BSP_E_CANCELLED)
        return bspi_fail(fault, status, "refine", 0, 0, 0);
    return status == BSP_OK ? BSP_OK : bspi_nomem(heap, fault, "refine.cover");
}

/* Where two neighbours touch, the border moves to the split with the most
 * agreement.  Only to the left: the left one went on as far as it agreed. */
static void settle_border(const uint8_t *old, const uint8_t *new_, bspi_cover *left,
                          bspi_cover *right) {
    if (left->new_off + left->len != right->new_off)
        return;
    uint64_t reach = BSPI_MIN(BSPI_MIN(left->len, right->len), (uint64_t)256);
    uint64_t border = right->new_off;
    int64_t score = 0, best = 0;
    int64_t best_shift = 0;
    /* To the left: the right one's diagonal takes bytes from the left one. */
    uint64_t room = BSPI_MIN(reach, right->old_off);
    for (uint64_t i = 1; i < left->len && i <= room; i++) {
        uint8_t byte = new_[border - i];
        score += (old[right->old_off - i] == byte) - (old[left->old_off + left->len - i] == byte);
        if (score > best) {
            best = score;
            best_shift = -(int64_t)i;
        }
    }
    if (best_shift < 0) {
        uint64_t i = (uint64_t)-best_shift;
        left->len -= i;
        right->new_off -= i;
        right->old_off -= i;
        right->len += i;
    }
}

/* True when the right one's diagonal has all of the left one's bytes: then the left one
 * is needless. */
static bool absorbs(const uint8_t *old, const uint8_t *new_, const bspi_cover *left,
                    const bspi_cover *right) {
    return left->new_off + left->len == right->new_off && left->len <= right->old_off &&
           memcmp(old + (right->old_off - left->len), new_ + left->new_off,
                  (size_t)left->len) == 0;
}

void bspi_polish_cover(const uint8_t *old, const uint8_t *new_, bspi_cover_list *cover) {
    size_t kept = 0;
    for (size_t i = 0; i < cover->count; i++) {
        bspi_cover entry = cover->items[i];
        if (entry.len == 0)
            continue;
        while (kept > 0 && absorbs(old, new_, &cover->items[kept - 1], &entry)) {
            const bspi_cover *last = &cover->items[--kept];
            entry = (bspi_cover){last->new_off, entry.old_off - last->len, entry.len + last->len};
        }
        if (kept > 0) {
            bspi_cover *last = &cover->items[kept - 1];
            if (last->new_off + last->len == entry.new_off &&
                last->old_off + last->len == entry.old_off) {
                last->len += entry.len;
                continue;
            }
            settle_border(old, new_, last, &entry);
        }
        cover->items[kept++] = entry;
    }
    cover->count = kept;
}
