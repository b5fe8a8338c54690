/* prune.c: weighs each entry of a cover, and each gap between two on one
 * diagonal, by what it costs against what it saves. */
#include "match.h"

#include "../common/bytes.h"

/* Prices in eighths of a byte, as the models code them on average. */
#define ENTRY_FAR 40u    /* an entry that leaves its neighbour's diagonal */
#define ENTRY_MANY 52u   /* the same where much is new: the ways are longer */
#define ENTRY_NEAR 26u   /* one that goes on along it behind a gap */
#define FIX_ALONE 14u    /* a correction: a position and a value */
#define FIX_NEXT 8u      /* one right behind the last */
#define FIX_REPEATED 6u  /* less when its difference is one of the last two */
/* A byte that nothing foretells costs between these, by how random they are. */
#define LITERAL_LEAST 4u
#define LITERAL_MOST 8u
#define LITERAL_REPEATED 1u
/* With this many uncovered bytes the models have learnt well: they get cheaper. */
#define MUCH_NEW ((uint64_t)4 << 20)
/* With so few the models have not learnt anything yet. */
#define FEW_NEW 64u
/* Longer gaps and entries are left as they are. */
#define SPAN_LIMIT 4096u
/* Diagonals that differ by at most this much cost as little to reach as one's own. */
#define SHORT_WAY ((uint64_t)256)

/* The price of correcting new[0, len) against old[0, len). */
uint64_t bspi_fix_price(const uint8_t *old, const uint8_t *new_, uint64_t len) {
    uint64_t price = 0;
    uint8_t last = 0, before = 0;
    bool adjacent = false;
    for (uint64_t i = 0; i < len;) {
        uint64_t run = bspi_common_prefix(old + i, new_ + i, len - i);
        if (run != 0) {
            i += run;
            adjacent = run == 1 && adjacent; /* every other byte: nearly as regular */
            continue;
        }
        uint8_t diff = (uint8_t)(new_[i] - old[i]);
        price += adjacent ? FIX_NEXT : FIX_ALONE;
        if (diff == last || diff == before)
            price -= FIX_REPEATED;
        before = last;
        last = diff;
        adjacent = true;
        i++;
    }
    return price;
}

/* The price of telling new[0, len) outright.  What repeats the byte before it or
 * four back is nearly free to the models. */
static uint64_t tell_price(const uint8_t *new_, uint64_t len, uint64_t literal) {
    uint64_t price = 0;
    for (uint64_t i = 0; i < len; i++) {
        bool repeats = (i >= 1 && new_[i] == new_[i - 1]) || (i >= 4 && new_[i] == new_[i - 4]);
        price += repeats ? LITERAL_REPEATED : literal;
    }
    return price;
}

static bool same_diagonal(const bspi_cover *a, const bspi_cover *b) {
    return b->old_off - a->old_off == b->new_off - a->new_off && b->old_off > a->old_off;
}

uint64_t bspi_price_cover(const uint8_t *old, const uint8_t *new_, uint64_t begin, uint64_t end,
                          const bspi_cover_list *cover, const bspi_prices *price) {
    uint64_t sum = 0, at = begin;
    for (size_t i = 0; i < cover->count; i++) {
        const bspi_cover *entry = &cover->items[i];
        sum += tell_price(new_ + at, entry->new_off - at, price->literal);
        sum += bspi_fix_price(old + entry->old_off, new_ + entry->new_off, entry->len);
        if (i > 0) {
            uint64_t shift = (entry->old_off - entry->new_off) -
                             (entry[-1].old_off - entry[-1].new_off);
            sum += shift + SHORT_WAY <= 2 * SHORT_WAY ? ENTRY_NEAR : price->far;
        }
        at = entry->new_off + entry->len;
    }
    return sum + tell_price(new_ + at, end - at, price->literal);
}

/* Joins neighbours on one diagonal when correcting the gap between them is
 * cheaper than a second entry and literals. */
static void close_gaps(const uint8_t *old, const uint8_t *new_, bspi_cover_list *cover,
                       const bspi_prices *price) {
    size_t kept = 0;
    for (size_t i = 0; i < cover->count; i++) {
        bspi_cover entry = cover->items[i];
        if (kept > 0) {
            bspi_cover *last = &cover->items[kept - 1];
            uint64_t end = last->new_off + last->len, gap = entry.new_off - end;
            if (same_diagonal(last, &entry) && gap <= SPAN_LIMIT &&
                bspi_fix_price(old + last->old_off + last->len, new_ + end, gap) <=
                    ENTRY_NEAR + tell_price(new_ + end, gap, price->literal)) {
                last->len = entry.new_off + entry.len - last->new_off;
                continue;
            }
        }
        cover->items[kept++] = entry;
    }
    cover->count = kept;
}

/* Drops an entry that stands between two of one diagonal, or among literals,
 * and costs more than it saves. */
static void drop_losers(const uint8_t *old, const uint8_t *new_, bspi_cover_list *cover,
                       const bspi_prices *price) {
    size_t kept = 0;
    for (size_t i = 0; i < cover->count; i++) {
        const bspi_cover *entry = &cover->items[i];
        const bspi_cover *left = kept > 0 ? &cover->items[kept - 1] : NULL;
        const bspi_cover *right = i + 1 < cover->count ? &cover->items[i + 1] : NULL;
        if (entry->len > SPAN_LIMIT || left == NULL || same_diagonal(left, entry)) {
            cover->items[kept++] = *entry;
            continue;
        }
        uint64_t with = bspi_fix_price(old + entry->old_off, new_ + entry->new_off, entry->len) +
                        price->far;
        uint64_t without = tell_price(new_ + entry->new_off, entry->len, price->literal);
        if (right != NULL && same_diagonal(left, right)) {
            uint64_t left_end = left->new_off + left->len;
            uint64_t span = right->new_off - left_end;
            uint64_t told = span <= SPAN_LIMIT ? tell_price(new_ + left_end, span, price->literal)
                                               : span * price->literal;
            with += price->far + told - BSPI_MIN(told, without);
            without = ENTRY_NEAR + told;
            if (span <= SPAN_LIMIT) {
                uint64_t bridge = bspi_fix_price(old + left->old_off + left->len, new_ + left_end,
                                            span);
                without = BSPI_MIN(without, bridge);
            }
        } else if (right != NULL && same_diagonal(entry, right)) {
            cover->items[kept++] = *entry; /* the next one goes on from it */
            continue;
        }
        if (with < without)
            cover->items[kept++] = *entry;
    }
    cover->count = kept;
}

/* The price of a literal, from how evenly the uncovered bytes are spread over
 * their 256 values: the chance that two of them agree is 1/256 for noise (which
 * stays at 8 bits) and a multiple of it for what the models can foretell. */
bspi_prices bspi_prices_of(const uint8_t *new_, uint64_t new_size, const bspi_cover_list *cover) {
    uint64_t counts[256] = {0}, total = 0, at = 0;
    for (size_t i = 0; i <= cover->count; i++) {
        uint64_t end = i < cover->count ? cover->items[i].new_off : new_size;
        for (; at < end; at++, total++)
            counts[new_[at]]++;
        if (i < cover->count)
            at = end + cover->items[i].len;
    }
    bspi_prices price = {LITERAL_LEAST + 1, ENTRY_FAR};
    if (total < FEW_NEW)
        price.literal = LITERAL_MOST;
    if (total < 1024)
        return price;
    uint64_t agreement = 0; /* 256 for noise, in units of 1/65536 */
    for (unsigned i = 0; i < 256; i++)
        agreement += (counts[i] << 16) / total * counts[i];
    agreement /= total;
    if (agreement < 264)
        price.literal = LITERAL_MOST;
    else if (agreement < 400)
        price.literal = LITERAL_LEAST + 2;
    else if (agreement >= 3000)
        price.literal = LITERAL_LEAST;
    if (total >= MUCH_NEW && price.literal < LITERAL_MOST) {
        price.literal--;
        price.far = ENTRY_MANY;
    }
    return price;
}

void bspi_prune_cover(const uint8_t *old, const uint8_t *new_, uint64_t new_size,
                      bspi_cover_list *cover) {
    bspi_prices price = bspi_prices_of(new_, new_size, cover);
    close_gaps(old, new_, cover, &price);
    drop_losers(old, new_, cover, &price);
    close_gaps(old, new_, cover, &price);
}
