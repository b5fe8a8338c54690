/* match.c: the search for a cover, piece by piece of the new file. */
#include "match.h"

#include <string.h>

#include "../common/bytes.h"
#include "../common/threads.h"

/* The new file is searched in pieces of this size, each on its own. */
#define PIECE ((uint64_t)4 << 20)
/* How many old positions with one hash are looked at. */
#define CHAIN_LIMIT 24u
/* An exact run this long ends the search for a better one. */
#define GOOD_ENOUGH 4096u
/* A run is followed at most so far beyond its piece.  Where it goes on, the pieces there
 * find it again; without a bound each of them would read it to its end. */
#define BEYOND (4 * PIECE)
/* Within a budget, the share of the free memory that the index may take, as a divisor,
 * and the widest stride that is tried to make it fit. */
#define INDEX_SHARE 2u
#define MOST_STRIDE 65536u
/* An entry for less than this costs more than the bytes. */
#define SHORTEST_GAP 6u
/* What correcting a run must cost, in eighths of a byte, for another to take its place. */
#define SWITCH_PRICE 40u
/* How far behind a difference the next one is looked at. */
#define SWITCH_STEP 8u
/* A run is followed over differences in steps of so many bytes, for each that is left early
 * was followed in vain; a step that ends within so many of its last bytes goes on. */
#define AHEAD ((uint64_t)64 << 10)
#define AHEAD_REST 64u

typedef struct {
    bspi_heap *heap;
    const uint8_t *old;
    const uint8_t *new_;
    uint64_t old_size;
    uint64_t new_size;
    const bspi_seed_index *index;
    bsp_control *control;
    const bspi_cover_list *cover; /* found by the passes before */
    bspi_cover_list *found;       /* one list a piece */
} search;

typedef struct {
    uint64_t old_off;
    uint64_t before; /* bytes that agree before the position */
    uint64_t after;  /* and from it on */
} candidate;

static uint64_t distance(uint64_t a, uint64_t b) {
    return a > b ? a - b : b - a;
}

static void consider(const search *s, uint64_t at, uint64_t old_off, uint64_t floor,
                     uint64_t limit, uint64_t expected, candidate *best) {
    uint64_t room = BSPI_MIN(s->old_size - old_off, limit - at);
    uint64_t after = bspi_common_prefix(s->old + old_off, s->new_ + at, room);
    if (after < s->index->window)
        return;
    uint64_t before = bspi_common_suffix(s->old + old_off, s->new_ + at,
                                         BSPI_MIN(old_off, at - floor));
    uint64_t len = before + after, best_len = best->before + best->after;
    if (len > best_len || (len == best_len && distance(old_off, expected) <
                                                  distance(best->old_off, expected))) {
        best->old_off = old_off;
        best->before = before;
        best->after = after;
    }
}

/* Considers the indexed positions that the seed at `at` may stand at, until a run of `enough`
 * is found. */
static void consider_indexed(const search *s, uint64_t at, uint64_t floor, uint64_t limit,
                             uint64_t expected, uint64_t enough, candidate *best) {
    const bspi_seed_index *index = s->index;
    uint64_t hash = bspi_seed_hash(s->new_ + at, index->window);
    uint32_t entry = index->heads[hash >> (64 - index->bits)];
    for (unsigned i = 0; entry != 0 && i < CHAIN_LIMIT; i++) {
        uint64_t old_off = index->base + (uint64_t)(entry - 1) * index->stride;
        consider(s, at, old_off, floor, limit, expected, best);
        if (best->before + best->after >= enough)
            break;
        entry = index->next[entry - 1];
    }
}

/* True when all bytes are the same. */
static bool is_filler(const uint8_t *bytes, uint64_t len) {
    return bspi_common_prefix(bytes, bytes + 1, len - 1) == len - 1;
}

/* Looks where the run of `shift` first differs from new [from, to) whether a run from
 * elsewhere, *best, is worth to leave it there; *at is the place.  `to` is the run's end. */
static bool better_elsewhere(const search *s, uint64_t from, uint64_t to, uint64_t limit,
                             uint64_t shift, uint64_t *at, candidate *best) {
    const bspi_seed_index *index = s->index;
    unsigned window = index->window;
    limit = BSPI_MIN(limit, to + window); /* what goes on behind the run is followed later */
    while (from < to) {
        from += bspi_common_prefix(s->old + (from + shift), s->new_ + from, to - from);
        if (from == to)
            return false;
        /* a seed with the differing byte in it: those without it are found along the run too */
        uint64_t first = from + 1 > index->stride ? from + 1 - index->stride : 0;
        for (uint64_t seed = first; seed <= from && limit - seed >= window; seed++) {
            candidate found = {0, 0, 0};
            consider_indexed(s, seed, seed, limit, seed + shift, UINT64_MAX, &found);
            if (found.after == 0)
                continue;
            uint64_t skip = from - seed;
            uint64_t len = BSPI_MIN(found.after - skip, to - from);
            if (found.old_off + skip != from + shift &&
                bspi_fix_price(s->old + (from + shift), s->new_ + from, len) > SWITCH_PRICE) {
                *at = from;
                *best = (candidate){found.old_off + skip, 0, found.after - skip};
                return true;
            }
        }
        from += SWITCH_STEP;
    }
    return false;
}

/* The length of the run at new_off, of which `len` bytes agree: as far as it pays, or to the
 * place at which *best is better. */
static uint64_t follow(const search *s, uint64_t old_off, uint64_t new_off, uint64_t len,
                       uint64_t limit, candidate *best) {
    uint64_t room = BSPI_MIN(s->old_size - old_off, limit - new_off) - len, more, ahead;
    do {
        ahead = BSPI_MIN(room, AHEAD);
        more = bspi_extend_forward(s->old + old_off + len, s->new_ + new_off + len, ahead);
        uint64_t from = new_off + len, at;
        if (better_elsewhere(s, from, from + more, limit, old_off - new_off, &at, best))
            return at - new_off;
        len += more;
        room -= more;
    } while (more != 0 && ahead - more < AHEAD_REST && room != 0);
    return len;
}

/* Looks for new [begin, end); a run may go on to `limit`.  `shift` is old - new of the
 * entry before, modulo 2^64. */
static bool search_piece(const search *s, uint64_t begin, uint64_t end, uint64_t limit,
                         uint64_t shift, bspi_cover_list *found) {
    unsigned window = s->index->window;
    uint64_t at = begin, floor = begin, poll = begin;
    candidate best = {0, 0, 0};
    while (at < end && limit - at >= window) {
        if (at - poll > 65536) {
            poll = at;
            if (bspi_cancelled(s->control))
                return true;
        }
        bool chosen = best.after != 0; /* where the run before was left */
        uint64_t expected = at + shift;
        if (!chosen && expected < s->old_size && s->old_size - expected >= window)
            consider(s, at, expected, floor, limit, expected, &best);
        if (!chosen && best.before + best.after < GOOD_ENOUGH)
            consider_indexed(s, at, floor, limit, expected, GOOD_ENOUGH, &best);
        if (best.after == 0) {
            at++;
            continue;
        }
        uint64_t old_off = best.old_off - best.before, new_off = at - best.before;
        uint64_t len = best.before + best.after;
        best = (candidate){0, 0, 0};
        if (!chosen) {
            uint64_t back = bspi_extend_backward(s->old + old_off, s->new_ + new_off,
                                                 BSPI_MIN(old_off, new_off - floor));
            old_off -= back;
            new_off -= back;
            len += back;
        }
        len = follow(s, old_off, new_off, len, limit, &best);
        at = new_off + len;
        if (is_filler(s->new_ + new_off, len))
            continue; /* cheaper to tell than to point at */
        bspi_cover entry = {new_off, old_off, len};
        if (!bspi_cover_push(found, entry))
            return false;
        shift = old_off - new_off;
        floor = at;
    }
    return true;
}

static bsp_status search_task(void *context, size_t piece, unsigned worker) {
    search *s = context;
    (void)worker;
    uint64_t begin = (uint64_t)piece * PIECE;
    uint64_t end = BSPI_MIN(begin + PIECE, s->new_size);
    uint64_t limit = s->new_size - end < BEYOND ? s->new_size : end + BEYOND;
    if (!search_piece(s, begin, end, limit, 0, &s->found[piece]))
        return BSP_E_NOMEM;
    bspi_progress_add(s->control, end - begin);
    return bspi_cancelled(s->control) ? BSP_E_CANCELLED : BSP_OK;
}

/* A gap too short for a seed, [begin, end) of the new file: as much of it as possible from
 * old bytes that agree with it and with enough of what stands beside it. */
static bool search_short_gap(const search *s, uint64_t begin, uint64_t end, uint64_t shift,
                             bspi_cover_list *found) {
    const bspi_seed_index *index = s->index;
    unsigned window = index->window;
    uint64_t limit = BSPI_MIN(s->new_size, end + window);
    bspi_cover best = {0, 0, 0};
    for (uint64_t at = begin > window ? begin - window + 1 : 0;
         at < end && limit - at >= window && best.len < end - begin; at++) {
        uint64_t hash = bspi_seed_hash(s->new_ + at, window);
        uint32_t entry = index->heads[hash >> (64 - index->bits)];
        for (unsigned i = 0; entry != 0 && i < CHAIN_LIMIT; i++) {
            uint64_t old_off = index->base + (uint64_t)(entry - 1) * index->stride;
            uint64_t from = BSPI_MAX(at, begin);
            candidate one = {0, 0, 0};
            consider(s, at, old_off, at, limit, at + shift, &one);
            if (at + one.after > from + best.len && BSPI_MIN(end, at + one.after) - from > best.len)
                best = (bspi_cover){from, old_off + (from - at),
                                    BSPI_MIN(end, at + one.after) - from};
            entry = index->next[entry - 1];
        }
    }
    if (best.len < SHORTEST_GAP - 1 || is_filler(s->new_ + best.new_off, best.len))
        return true;
    return bspi_cover_push(found, best);
}

/* What the cover leaves open of a piece is searched in the whole old file; what it has
 * is kept, though entries may be cut at the piece's borders. */
static bsp_status search_gaps_task(void *context, size_t piece, unsigned worker) {
    search *s = context;
    (void)worker;
    const bspi_cover_list *cover = s->cover;
    bspi_cover_list *found = &s->found[piece];
    uint64_t begin = (uint64_t)piece * PIECE, end = BSPI_MIN(begin + PIECE, s->new_size);
    uint64_t at = begin, shift = 0;
    for (size_t i = bspi_cover_find(cover->items, cover->count, begin); at < end; i++) {
        bool last = i >= cover->count || cover->items[i].new_off >= end;
        uint64_t gap_end = last ? end : BSPI_MAX(cover->items[i].new_off, at);
        bool ok = gap_end - at >= s->index->window
                      ? search_piece(s, at, gap_end, gap_end, shift, found)
                      : gap_end - at < SHORTEST_GAP ||
                            search_short_gap(s, at, gap_end, shift, found);
        if (!ok)
            return BSP_E_NOMEM;
        if (last)
            break;
        if (!bspi_cover_push(found, cover->items[i]))
            return BSP_E_NOMEM;
        at = cover->items[i].new_off + cover->items[i].len;
        shift = cover->items[i].old_off - cover->items[i].new_off;
    }
    bspi_progress_add(s->control, end - begin);
    return bspi_cancelled(s->control) ? BSP_E_CANCELLED : BSP_OK;
}

/* Appends the pieces' finds in order; where one runs into the next piece, what
 * that piece found there is cut back. */
static bool join(bspi_cover_list *found, size_t pieces, bspi_cover_list *cover) {
    uint64_t end = 0;
    for (size_t piece = 0; piece < pieces; piece++) {
        for (size_t i = 0; i < found[piece].count; i++) {
            bspi_cover entry = found[piece].items[i];
            if (entry.new_off < end) {
                uint64_t cut = end - entry.new_off;
                if (cut >= entry.len)
                    continue;
                entry.new_off += cut;
                entry.old_off += cut;
                entry.len -= cut;
            }
            end = entry.new_off + entry.len;
            bspi_cover *last = cover->count ? &cover->items[cover->count - 1] : NULL;
            if (last != NULL && last->new_off + last->len == entry.new_off &&
                last->old_off + last->len == entry.old_off) {
                last->len += entry.len;
                continue;
            }
            if (!bspi_cover_push(cover, entry))
                return false;
        }
    }
    return true;
}

/* The stride to index the old file with: the wanted one, or a wider one when a budget or
 * the 32 bits of an entry's number ask for it.  A wider one finds longer runs only. */
static unsigned affordable(const bspi_heap *heap, uint64_t old_size, unsigned window,
                           unsigned stride) {
    uint64_t in_use = __atomic_load_n(&heap->in_use, __ATOMIC_RELAXED);
    uint64_t room = UINT64_MAX;
    if (heap->budget != 0)
        room = heap->budget > in_use ? (heap->budget - in_use) / INDEX_SHARE : 0;
    while (stride < MOST_STRIDE &&
           (bspi_seed_index_bytes(old_size, window, stride) > room ||
            old_size / stride >= UINT32_MAX - 1))
        stride *= 2;
    return stride;
}

/* One look at the whole new file, or at what *cover leaves open of it. */
static bsp_status search_pass(search *s, unsigned window, unsigned stride, unsigned jobs,
                              bspi_cover_list *cover) {
    size_t pieces = (size_t)((s->new_size + PIECE - 1) / PIECE);
    bspi_seed_index index = {0};
    if (!bspi_seed_index_build(&index, s->heap, s->old, 0, s->old_size, window,
                               affordable(s->heap, s->old_size, window, stride)))
        return BSP_E_NOMEM;
    bspi_progress(s->control, BSP_PHASE_MATCH, 0, s->new_size);
    s->index = &index;
    s->cover = cover;
    bsp_status status = bspi_parallel(jobs, pieces,
                                      cover->count == 0 ? search_task : search_gaps_task, s);
    bspi_seed_index_free(&index);
    bspi_cover_list joined = {s->heap, NULL, 0, 0};
    if (status == BSP_OK && !join(s->found, pieces, &joined))
        status = BSP_E_NOMEM;
    for (size_t piece = 0; piece < pieces; piece++)
        bspi_cover_free(&s->found[piece]);
    if (status == BSP_OK) {
        bspi_cover_free(cover);
        *cover = joined;
        bspi_polish_cover(s->old, s->new_, cover);
    } else {
        bspi_cover_free(&joined);
    }
    return status;
}

/* Long runs first, so that short ones, which stand in many places, cannot take their
 * bytes; what they leave open is searched with a finer index. */
typedef struct pass {
    unsigned window, stride; /* 0: no more */
} pass;
static const pass efforts[3][2] = {{{32, 16}, {0, 0}}, {{24, 8}, {0, 0}}, {{48, 8}, {16, 4}}};

bsp_status bspi_match(bspi_heap *heap, const uint8_t *old, uint64_t old_size, const uint8_t *new_,
                      uint64_t new_size, const bspi_match_options *options, bsp_control *control,
                      bspi_cover_list *cover, bsp_fault *fault) {
    const pass *passes = efforts[BSPI_MIN(options->effort, 2u)];
    size_t pieces = (size_t)((new_size + PIECE - 1) / PIECE);
    bspi_cover_list *found = bspi_alloc(heap, pieces + 1, sizeof *found, true);
    if (found == NULL)
        return bspi_nomem(heap, fault, "match.pieces");
    for (size_t piece = 0; piece < pieces; piece++)
        found[piece].heap = heap;
    search s = {heap, old, new_, old_size, new_size, NULL, control, NULL, found};
    bsp_status status = search_pass(&s, passes[0].window, passes[0].stride, options->jobs, cover);
    if (status == BSP_OK)
        status = bspi_refine_gaps(heap, old, old_size, new_, new_size, options->jobs, control,
                                  cover, NULL);
    if (status == BSP_OK) {
        bspi_polish_cover(old, new_, cover);
        if (passes[1].window != 0)
            status = search_pass(&s, passes[1].window, passes[1].stride, options->jobs, cover);
    }
    bspi_free(heap, found);
    if (status == BSP_OK)
        status = bspi_straighten_cover(heap, old, old_size, new_, new_size, control, cover);
    if (status == BSP_E_CANCELLED)
        return bspi_fail(fault, status, "match", 0, 0, 0);
    if (status != BSP_OK)
        return bspi_nomem(heap, fault, "match");
    bspi_prune_cover(old, new_, new_size, cover);
    return BSP_OK;
}
