/* straighten.c: takes the short way where the cover makes a detour.
 *
 * The search takes the longest run that it finds, wherever that lies.  Where a few bytes
 * were put in, a run elsewhere in the old file can be a little longer than what lies next
 * to the entry before; the way there and back costs more than it brings.  A detour is a
 * row of entries between two neighbours that lie close together; it gives way to what a
 * search around those two finds, when that is cheaper.
 */
#include "match.h"

#include "../common/bytes.h"

/* Diagonals that differ by at most this much lie close together. */
#define NEAR ((uint64_t)4 << 10)
/* The longest detour, in entries and in bytes of the new file. */
#define MOST_ENTRIES 64u
#define MOST_BYTES ((uint64_t)4 << 10)
/* How far around the two neighbours the old file is searched. */
#define REACH ((uint64_t)1 << 10)
/* So much of either neighbour may be given to what stands between them. */
#define MARGIN ((uint64_t)256)

static bool is_near(const bspi_cover *a, const bspi_cover *b) {
    uint64_t shift = (b->old_off - b->new_off) - (a->old_off - a->new_off);
    return shift + NEAR <= 2 * NEAR;
}

/* The entry at which a detour behind items[first] is over, or 0. */
static size_t detour_end(const bspi_cover_list *cover, size_t first) {
    const bspi_cover *items = cover->items, *left = &items[first];
    if (first + 2 >= cover->count || is_near(left, &items[first + 1]))
        return 0;
    uint64_t end = left->new_off + left->len;
    for (size_t i = first + 2; i < cover->count && i <= first + 1 + MOST_ENTRIES; i++) {
        if (items[i].new_off - end > MOST_BYTES)
            return 0;
        if (is_near(left, &items[i]))
            return i;
    }
    return 0;
}

typedef struct {
    const uint8_t *old;
    const uint8_t *new_;
    uint64_t old_size;
    bspi_prices price;
    bspi_cover_list detour; /* the way as it is, with a part of either neighbour */
    bspi_cover_list direct; /* and as it could be */
} straightening;

/* Fills s->detour with what stands from `left` to `right`, s->direct with what a search
 * around them finds, and says in *better whether the second is cheaper.  False when memory
 * is short. */
static bool compare(straightening *s, const bspi_cover *left, const bspi_cover *right,
                    bool *better) {
    uint64_t tail = BSPI_MIN(MARGIN, left->len), head = BSPI_MIN(MARGIN, right->len);
    bspi_cover from = {left->new_off + left->len - tail, left->old_off + left->len - tail, tail};
    bspi_cover to = {right->new_off, right->old_off, head};
    s->detour.count = s->direct.count = 0;
    bool good = bspi_cover_push(&s->detour, from) && bspi_cover_push(&s->direct, from);
    for (const bspi_cover *entry = left + 1; good && entry < right; entry++)
        good = bspi_cover_push(&s->detour, *entry);
    good = good && bspi_cover_push(&s->detour, to);
    uint64_t low = BSPI_MIN(from.old_off + tail, to.old_off);
    uint64_t high = BSPI_MAX(from.old_off + tail, to.old_off);
    bspi_near_search search = {
        s->old, s->new_, s->old_size, from.new_off + tail, to.new_off,
        low > REACH ? low - REACH : 0, BSPI_MIN(s->old_size, high + REACH),
        from.old_off - from.new_off,
    };
    if (!good || !bspi_search_near(&search, &s->direct) || !bspi_cover_push(&s->direct, to))
        return false;
    bspi_polish_cover(s->old, s->new_, &s->direct);
    uint64_t begin = from.new_off, end = to.new_off + head;
    *better = bspi_price_cover(s->old, s->new_, begin, end, &s->direct, &s->price) <
              bspi_price_cover(s->old, s->new_, begin, end, &s->detour, &s->price);
    return true;
}

bsp_status bspi_straighten_cover(bspi_heap *heap, const uint8_t *old, uint64_t old_size,
                                 const uint8_t *new_, uint64_t new_size, bsp_control *control,
                                 bspi_cover_list *cover) {
    straightening s = {old, new_, old_size, bspi_prices_of(new_, new_size, cover),
                       {heap, NULL, 0, 0}, {heap, NULL, 0, 0}};
    bspi_cover_list kept = {heap, NULL, 0, 0};
    bsp_status status = BSP_OK;
    for (size_t i = 0; i < cover->count && status == BSP_OK; i++) {
        bool good = bspi_cover_push(&kept, cover->items[i]);
        size_t last = detour_end(cover, i);
        bool better = false;
        if (good && last != 0)
            good = compare(&s, &cover->items[i], &cover->items[last], &better);
        if (better) {
            /* the direct way begins and ends with parts of the neighbours; they join again */
            bspi_cover *left = &kept.items[kept.count - 1], *right = &cover->items[last];
            uint64_t tail = BSPI_MIN(MARGIN, left->len), head = BSPI_MIN(MARGIN, right->len);
            left->len -= tail;
            right->new_off += head;
            right->old_off += head;
            right->len -= head;
            for (size_t k = 0; good && k < s.direct.count; k++)
                good = bspi_cover_push(&kept, s.direct.items[k]);
            i = last - 1;
        }
        if (!good)
            status = BSP_E_NOMEM;
        else if (bspi_cancelled(control))
            status = BSP_E_CANCELLED;
    }
    bspi_cover_free(&s.detour);
    bspi_cover_free(&s.direct);
    if (status == BSP_OK) {
        bspi_cover_free(cover);
        *cover = kept;
        bspi_polish_cover(old, new_, cover);
    } else {
        bspi_cover_free(&kept);
    }
    return status;
}
