/* streams.c: the numbers of each stream, named once for writer and reader. */
#include <string.h>

#include "../common/bytes.h"
#include "column.h"
#include "content.h"
#include "streams.h"

/* Contexts of the number model, by stream and column. */
enum {
    CONTEXT_COUNT = 0,
    CONTEXT_GAP = 1,        /* 6 of them, by size class */
    CONTEXT_LEN = 7,        /* 6 */
    CONTEXT_WHICH = 13,     /* 6 */
    CONTEXT_JUMP = 19,      /* 5 */
    CONTEXT_OVERRIDE = 24,  /* gap */
    CONTEXT_REACH = 25,     /* 2 */
    CONTEXT_CHAINED = 27,
    CONTEXT_SHIFT = 28,     /* 2 */
    CONTEXT_REF_GAP = 30,   /* 4 */
    CONTEXT_REF_DELTA = 34, /* 2 */
    CONTEXT_BYTE_GAP = 36   /* 24, by size class and place in the word */
};

/* Whoever waits for literals is told of so many at least. */
#define LITERALS_AT_ONCE 1024u

unsigned bspi_size_class(uint64_t value) {
    return value == 0 ? 0u : 64u - (unsigned)__builtin_clzll(value);
}

/* Transfers a count of items that take at least `least` plain bytes each, and
 * refuses one that the stream's declared length cannot hold. */
bool bspi_column_count(bspi_column *column, uint64_t least, uint64_t *count) {
    if (!bspi_column_u64(column, CONTEXT_COUNT, count))
        return false;
    uint64_t left = UINT64_MAX;
    if (column->mode == BSPI_READ_PLAIN)
        left = bspi_cursor_left(&column->cursor);
    else if (column->mode == BSPI_READ_MODEL)
        left = column->plain_len - column->plain_done;
    if (*count > left / least) {
        bspi_column_fail(column, BSP_E_CORRUPT, "stream count");
        *count = 0;
        return false;
    }
    return true;
}

/* The same of items that each stand at a byte of their own in the new file. */
static bool column_count_within(bspi_column *column, uint64_t least, uint64_t new_size,
                                uint64_t *count) {
    if (!bspi_column_count(column, least, count))
        return false;
    if (*count > new_size)
        bspi_column_fail(column, BSP_E_CORRUPT, "stream count");
    return *count <= new_size;
}

/* Where an entry may continue from: distances old - new, modulo 2^64, the most
 * recent first, no two the same. */
#define SHIFTS 14u
typedef struct {
    uint64_t shift[SHIFTS];
    uint32_t count;
} shift_history;

static void remember_shift(shift_history *history, uint64_t shift) {
    uint32_t at = 0;
    while (at < history->count && history->shift[at] != shift)
        at++;
    if (at == history->count) {
        if (history->count < SHIFTS)
            history->count++;
        else
            at--;
    }
    for (; at > 0; at--)
        history->shift[at] = history->shift[at - 1];
    history->shift[0] = shift;
}

/* Candidate `which` for the old offset of an entry at new_off behind a gap: 0
 * goes on where the entry before ended, from 1 on along a remembered shift. */
static uint64_t candidate(const shift_history *history, uint64_t which, uint64_t new_off,
                          uint64_t gap) {
    uint64_t last = history->count != 0 ? history->shift[0] : 0;
    if (which == 0)
        return new_off - gap + last;
    return which <= history->count ? new_off + history->shift[which - 1] : new_off;
}

/* The candidate from which the way is shortest, a little dearer the further
 * back it is. */
static uint64_t choose_candidate(const shift_history *history, const bspi_cover *entry,
                                 uint64_t gap) {
    uint64_t best = 0, best_price = UINT64_MAX;
    for (uint64_t i = 0; i <= BSPI_MAX(history->count, 1u); i++) {
        int64_t way = (int64_t)(entry->old_off - candidate(history, i, entry->new_off, gap));
        uint64_t price = 2 * bspi_size_class(bspi_zigzag(way)) + bspi_size_class(i);
        if (price < best_price) {
            best_price = price;
            best = i;
        }
    }
    return best;
}

/* Gaps and lengths: two columns. */
static void transfer_runs(bspi_column *column, bspi_cover *items, size_t count) {
    bool reads = bspi_column_reads(column);
    uint64_t end = 0, previous = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t gap = items[i].new_off - end;
        column->item = i;
        bspi_column_u64(column, CONTEXT_GAP + BSPI_MIN(bspi_size_class(previous), 5u), &gap);
        if (reads)
            items[i].new_off = gap; /* until the lengths are known */
        else
            end = items[i].new_off + items[i].len;
        previous = gap;
    }
    end = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t gap = reads ? items[i].new_off : items[i].new_off - end;
        uint64_t less = items[i].len - 1;
        uint32_t before = i == 0 ? 0 : bspi_size_class(items[i - 1].len);
        uint32_t context = (gap == 0 ? 0u : 1u) + (before <= 5 ? 0u : before <= 7 ? 2u : 4u);
        column->item = i;
        bspi_column_u64(column, CONTEXT_LEN + context, &less);
        if (reads)
            items[i].len = less + 1;
        else
            end = items[i].new_off + items[i].len;
    }
}

static void transfer_cover(bspi_column *column, bspi_content *content) {
    bool reads = bspi_column_reads(column);
    bspi_cover_list *cover = &content->cover;
    uint64_t count = cover->count;
    if (!column_count_within(column, 4, content->new_size, &count))
        return;
    if (reads) {
        cover->items = bspi_alloc(content->heap, (size_t)count + 1, sizeof *cover->items, true);
        if (cover->items == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "cover");
            return;
        }
        cover->capacity = (size_t)count;
        cover->count = (size_t)count;
    }
    transfer_runs(column, cover->items, (size_t)count);
    shift_history history = {{0}, 0};
    uint64_t end = 0, last = 0;
    for (size_t i = 0; i < count && column->status == BSP_OK; i++) {
        bspi_cover *item = &cover->items[i];
        uint64_t gap = item->new_off - (reads ? 0 : end);
        if (reads) {
            if (gap > content->new_size - end || item->len == 0 ||
                !bspi_within(end + gap, item->len, content->new_size)) {
                bspi_column_fail(column, BSP_E_CORRUPT, "cover.len");
                return;
            }
            item->new_off = end + gap;
        }
        uint64_t which = reads ? 0 : choose_candidate(&history, item, gap);
        uint32_t context = (gap == 0 ? 0u : 1u) + (last == 0 ? 0u : last == 1 ? 2u : 4u);
        column->item = i;
        bspi_column_u64(column, CONTEXT_WHICH + context, &which);
        uint64_t from = candidate(&history, which, item->new_off, gap);
        int64_t way = (int64_t)(item->old_off - from);
        context = which <= 1 ? (uint32_t)which + (gap == 0 ? 0u : 2u) : 4u;
        bspi_column_s64(column, CONTEXT_JUMP + context, &way);
        if (reads) {
            item->old_off = from + (uint64_t)way;
            if (!bspi_within(item->old_off, item->len, content->old_size)) {
                bspi_column_fail(column, BSP_E_CORRUPT, "cover.old_off");
                return;
            }
        }
        remember_shift(&history, item->old_off - item->new_off);
        last = which;
        end = item->new_off + item->len;
    }
}

/* New addresses, as differences from what the map says or from the shift of the
 * override before: the writer takes what is shorter for the whole list.  `first`
 * is the number of items[0] among the overrides of all images. */
static void transfer_shifts(bspi_column *column, const bspi_address_map *map,
                            bspi_override *items, size_t first, size_t count) {
    bool reads = bspi_column_reads(column);
    uint64_t by_map = 0, by_last = 0, shift = 0, chained;
    for (size_t i = 0; !reads && i < count; i++) {
        uint64_t mapped = bspi_map_address(map, items[i].old_addr);
        by_map += bspi_size_class(bspi_zigzag((int64_t)(items[i].new_addr - mapped)));
        by_last += bspi_size_class(
            bspi_zigzag((int64_t)(items[i].new_addr - items[i].old_addr - shift)));
        shift = items[i].new_addr - items[i].old_addr;
    }
    chained = by_last < by_map;
    if (count == 0)
        return;
    column->item = BSPI_ITEM_NONE;
    bspi_column_u64(column, CONTEXT_CHAINED, &chained);
    if (chained > 1)
        bspi_column_fail(column, BSP_E_CORRUPT, "overrides.chained");
    int64_t last = 0;
    shift = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t expected = chained ? items[i].old_addr + shift
                                    : bspi_map_address(map, items[i].old_addr);
        int64_t difference = (int64_t)(items[i].new_addr - expected);
        column->item = first + i;
        bspi_column_s64(column, CONTEXT_SHIFT + (last != 0), &difference);
        last = difference;
        if (reads)
            items[i].new_addr = expected + (uint64_t)difference;
        shift = items[i].new_addr - items[i].old_addr;
    }
}

static void transfer_overrides(bspi_column *column, bspi_content *content) {
    bool reads = bspi_column_reads(column);
    size_t images = content->layout.image_count, used = 0;
    if (reads) {
        content->override_starts = bspi_alloc(content->heap, images + 1, sizeof(size_t), true);
        if (content->override_starts == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "overrides");
            return;
        }
    }
    for (size_t image = 0; image < images; image++) {
        uint64_t count = reads ? 0 : content->override_starts[image + 1] - used;
        column->item = BSPI_ITEM_NONE;
        if (!bspi_column_count(column, 3, &count))
            return;
        if (reads) {
            bspi_override *grown = bspi_grow(content->heap, content->overrides,
                                             used + (size_t)count + 1, sizeof *grown);
            if (grown == NULL) {
                bspi_column_fail(column, BSP_E_NOMEM, "overrides");
                return;
            }
            content->overrides = grown;
            content->override_starts[image + 1] = used + (size_t)count;
        }
        bspi_override *items = content->overrides + used;
        uint64_t before = 0, last_reach = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t gap = items[i].old_addr - before - (i != 0);
            column->item = used + i;
            bspi_column_u64(column, CONTEXT_OVERRIDE, &gap);
            if (reads) {
                uint64_t step = gap + (i != 0);
                if (step < gap || !bspi_add64(before, step, &items[i].old_addr)) {
                    bspi_column_fail(column, BSP_E_CORRUPT, "overrides.old_addr");
                    return;
                }
            }
            bspi_column_u64(column, CONTEXT_REACH + (last_reach != 0), &items[i].reach);
            last_reach = items[i].reach;
            if (reads && !bspi_add64(items[i].old_addr, items[i].reach, &before)) {
                bspi_column_fail(column, BSP_E_CORRUPT, "overrides.reach");
                return;
            }
            before = items[i].old_addr + items[i].reach;
        }
        transfer_shifts(column, &content->predictor.maps[image], items, used,
                        (size_t)count);
        if (column->status != BSP_OK)
            return;
        used += (size_t)count;
    }
}

/* Ascending positions, below new_size, as gaps. */
static void transfer_positions(bspi_column *column, uint32_t context, uint32_t classes,
                               uint32_t places, uint64_t limit, void *items, size_t stride,
                               size_t count, const char *place) {
    bool reads = bspi_column_reads(column);
    uint64_t next = 0, previous = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t *item = (uint8_t *)items + i * stride;
        uint64_t position;
        memcpy(&position, item, sizeof position);
        uint64_t gap = position - next;
        uint32_t class = BSPI_MIN(bspi_size_class(previous), classes - 1);
        class = class * places + (uint32_t)(next % places);
        column->item = i;
        if (!bspi_column_u64(column, context + class, &gap))
            return;
        if (reads) {
            if (gap >= limit - next) {
                bspi_column_fail(column, BSP_E_CORRUPT, place);
                return;
            }
            position = next + gap;
            memcpy(item, &position, sizeof position);
        }
        next = position + 1;
        previous = gap;
    }
}

static void transfer_refs(bspi_column *column, bspi_content *content) {
    bool reads = bspi_column_reads(column);
    uint64_t count = content->ref_count;
    if (!column_count_within(column, 2, content->new_size, &count))
        return;
    if (reads) {
        content->refs = bspi_alloc(content->heap, (size_t)count + 1, sizeof *content->refs, true);
        if (content->refs == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "refs");
            return;
        }
        content->ref_count = (size_t)count;
    }
    transfer_positions(column, CONTEXT_REF_GAP, 4, 1, content->new_size, content->refs,
                       sizeof *content->refs, (size_t)count, "refs.new_off");
    int64_t last = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t delta = content->refs[i].delta;
        column->item = i;
        bspi_column_s64(column, CONTEXT_REF_DELTA + (last != 0), &delta);
        content->refs[i].delta = delta;
        last = delta;
    }
}

static void transfer_bytes(bspi_column *column, bspi_content *content, const bspi_file *old) {
    bool reads = bspi_column_reads(column);
    uint64_t count = content->byte_count;
    if (!column_count_within(column, 2, content->new_size, &count))
        return;
    if (reads) {
        content->bytes = bspi_alloc(content->heap, (size_t)count + 1, sizeof *content->bytes,
                                    true);
        if (content->bytes == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "bytes");
            return;
        }
        content->byte_count = (size_t)count;
    }
    bspi_byte_fix *items = content->bytes;
    transfer_positions(column, CONTEXT_BYTE_GAP, 6, 4, content->new_size, items, sizeof *items,
                       (size_t)count, "bytes.new_off");
    if (!bspi_column_begin_bytes(column, BSPI_FIX_CONTEXTS, BSPI_FIX_SELECTORS, count))
        return;
    bspi_fix_history history = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t contexts[BSPI_BYTE_CONTEXTS];
        uint32_t selector = bspi_fix_contexts(&history, content, old, items[i].new_off, contexts);
        uint8_t diff = (uint8_t)(items[i].diff - 1); /* 0 never occurs: 255 values */
        column->item = i;
        if (!bspi_column_byte(column, contexts, selector, &diff))
            break;
        if (reads && diff == 255) {
            bspi_column_fail(column, BSP_E_CORRUPT, "bytes.diff");
            break;
        }
        items[i].diff = (uint8_t)(diff + 1);
        bspi_fix_learn(&history, items[i].new_off, items[i].diff);
    }
    bspi_column_end_bytes(column);
}

/* The bytes that stand for one group, modelled; its length. */
static unsigned transfer_group(bspi_column *column, bspi_literal_history *history,
                               uint8_t *bytes, bool reads) {
    unsigned group = bspi_literal_group(history);
    uint32_t number = reads ? 0 : bspi_literal_coded(history, bytes);
    for (unsigned i = 0; i < group; i++) {
        uint32_t contexts[BSPI_BYTE_CONTEXTS];
        uint32_t selector = bspi_literal_contexts(history, contexts);
        uint8_t byte = (uint8_t)(number >> (8 * (group - 1 - i)));
        bspi_column_byte(column, contexts, selector, &byte);
        if (reads) {
            number = number << 8 | byte;
            if (i + 1 == group)
                bspi_literal_decoded(history, number, bytes);
        }
        bspi_literal_learn(history, byte);
    }
    return group;
}

static void tell_literals(const bspi_content *content, uint64_t count) {
    if (content->literals_made != NULL)
        content->literals_made(content->literals_context, count);
}

static void transfer_literals(bspi_column *column, bspi_content *content, const bspi_file *old) {
    bool reads = bspi_column_reads(column);
    uint64_t count = content->literal_count; /* known from cover and fills */
    if (reads) {
        if (column->mode == BSPI_READ_PLAIN ? count > bspi_cursor_left(&column->cursor)
                                            : count > column->plain_len) {
            bspi_column_fail(column, BSP_E_CORRUPT, "literals");
            return;
        }
        content->literals = bspi_alloc(content->heap, (size_t)count + 1, 1, false);
        if (content->literals == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "literals");
            return;
        }
    }
    if (!bspi_column_begin_bytes(column, BSPI_LITERAL_CONTEXTS, BSPI_LITERAL_SELECTORS, count))
        return;
    if (column->mode == BSPI_WRITE_PLAIN || column->mode == BSPI_READ_PLAIN) {
        for (column->item = 0; column->item < count; column->item++)
            bspi_column_byte(column, NULL, 0, &content->literals[column->item]);
        return;
    }
    bspi_literal_run run = {0};
    uint64_t done = 0, told = 0;
    while (done < count && bspi_next_literal_run(content, &run)) {
        bspi_literal_history history;
        bspi_literal_begin(&history, content, old, &run);
        for (uint64_t at = done; at < done + run.len && column->status == BSP_OK;) {
            column->item = at;
            at += transfer_group(column, &history, content->literals + at, reads);
            if (at - told >= LITERALS_AT_ONCE && column->status == BSP_OK) {
                tell_literals(content, at);
                told = at;
            }
        }
        done += run.len;
    }
    bspi_column_end_bytes(column);
}

void bspi_stream_transfer(bspi_stream_id id, bspi_column *column, bspi_content *content,
                          const bspi_file *old) {
    switch (id) {
    case BSPI_STREAM_LAYOUT:
        bspi_transfer_layout(column, content, old);
        break;
    case BSPI_STREAM_COVER:
        transfer_cover(column, content);
        break;
    case BSPI_STREAM_OVERRIDES:
        transfer_overrides(column, content);
        break;
    case BSPI_STREAM_REFS:
        transfer_refs(column, content);
        break;
    case BSPI_STREAM_BYTES:
        transfer_bytes(column, content, old);
        break;
    case BSPI_STREAM_LITERALS:
        transfer_literals(column, content, old);
        break;
    }
}
