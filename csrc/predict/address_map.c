/* address_map.c: from the cover to a map of addresses. */
#include "address_map.h"

#include <stdlib.h>
#include <string.h>

/* At most this many pages in an index; wider address ranges get wider pages. */
#define PAGE_LIMIT ((uint64_t)1 << 20)
#define PAGE_BITS 10u

/* What one piece of the cover, or a paired section, knows: [old_addr, old_addr +
 * len) is at new_addr.  A span of length 0 is an anchor, a known point. */
typedef struct span {
    uint64_t old_addr;
    uint64_t len;
    uint64_t new_addr;
} span;

typedef struct span_list {
    bspi_heap *heap;
    span *items;
    size_t count;
    size_t capacity;
} span_list;

static int by_old_addr(const void *left, const void *right) {
    const span *a = left, *b = right;
    if (a->old_addr != b->old_addr)
        return a->old_addr < b->old_addr ? -1 : 1;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1; /* the longer first */
    if (a->new_addr != b->new_addr)
        return a->new_addr < b->new_addr ? -1 : 1;
    return 0;
}

static bool add_span(span_list *spans, uint64_t old_addr, uint64_t len, uint64_t new_addr) {
    if (!BSPI_ENSURE(spans->items, spans->count, spans->capacity, spans->heap))
        return false;
    spans->items[spans->count++] = (span){old_addr, len, new_addr};
    return true;
}

/* How far from off on the first section begins that starts behind it; UINT64_MAX
 * when none does.  File-backed sections stand first, by offset, on both sides. */
static uint64_t next_old_section(const bspi_image *old, uint64_t off) {
    size_t low = 0, high = old->section_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const bspi_section *s = &old->sections[middle];
        if (s->file_size != 0 && s->file_off <= off)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < old->section_count && old->sections[low].file_size != 0;
    return found ? old->sections[low].file_off - off : UINT64_MAX;
}

static uint64_t next_new_section(const bspi_layout_image *new_, uint64_t off) {
    size_t low = 0, high = new_->section_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const bspi_layout_section *s = &new_->sections[middle];
        if (s->file_size != 0 && s->file_off <= off)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < new_->section_count && new_->sections[low].file_size != 0;
    return found ? new_->sections[low].file_off - off : UINT64_MAX;
}

/* Splits one run of the cover where either side changes section. */
static bool add_cover(span_list *spans, const bspi_image *old,
                      const bspi_layout_image *new_, const bspi_cover *entry) {
    uint64_t done = 0;
    while (done < entry->len) {
        uint64_t old_off = entry->old_off + done, new_off = entry->new_off + done;
        const bspi_section *from = bspi_section_at(old, old_off);
        const bspi_layout_section *to = bspi_layout_at(new_, new_off);
        uint64_t len = entry->len - done;
        if (from == NULL || to == NULL) {
            /* Outside every section: step over to where the next begins. */
            if (from == NULL)
                len = BSPI_MIN(len, next_old_section(old, old_off));
            if (to == NULL)
                len = BSPI_MIN(len, next_new_section(new_, new_off));
            done += len;
            continue;
        }
        len = BSPI_MIN(len, from->file_size - (old_off - from->file_off));
        len = BSPI_MIN(len, to->file_size - (new_off - to->file_off));
        if (from->mapped && to->mapped &&
            !add_span(spans, from->addr + (old_off - from->file_off), len,
                      to->addr + (new_off - to->file_off)))
            return false;
        done += len;
    }
    return true;
}

static bool add_sections(span_list *spans, const bspi_image *old,
                         const bspi_layout_image *new_) {
    for (size_t i = 0; i < new_->section_count; i++) {
        const bspi_layout_section *to = &new_->sections[i];
        if (!to->mapped || to->pair == BSPI_NO_PAIR)
            continue;
        const bspi_section *from = &old->sections[to->pair];
        if (!from->mapped)
            continue;
        /* Memory behind the file bytes, all of it for a zero-fill section. */
        uint64_t old_rest = from->mem_size - BSPI_MIN(from->file_size, from->mem_size);
        uint64_t new_rest = to->mem_size - BSPI_MIN(to->file_size, to->mem_size);
        uint64_t len = BSPI_MIN(old_rest, new_rest);
        if (!add_span(spans, from->addr, 0, to->addr) ||
            !add_span(spans, from->addr + from->file_size, len, to->addr + to->file_size))
            return false;
    }
    return true;
}

/* Sorts the spans and cuts overlaps: the longer span keeps what both claim.
 * Leaves their addresses strictly ascending. */
static void settle(span_list *spans) {
    if (spans->count == 0)
        return;
    qsort(spans->items, spans->count, sizeof *spans->items, by_old_addr);
    size_t kept = 0;
    for (size_t i = 0; i < spans->count; i++) {
        span next = spans->items[i];
        if (kept == 0) {
            spans->items[kept++] = next;
            continue;
        }
        span *last = &spans->items[kept - 1];
        if (next.old_addr < last->old_addr) { /* the last one was cut: what lies before is taken */
            uint64_t cut = last->old_addr - next.old_addr;
            if (cut >= next.len)
                continue;
            next.old_addr += cut;
            next.new_addr += cut;
            next.len -= cut;
        }
        uint64_t last_end = last->old_addr + last->len;
        if (next.old_addr < last_end) {
            if (next.len > last->len) {
                last->len = next.old_addr - last->old_addr;
            } else {
                uint64_t cut = last_end - next.old_addr;
                if (cut >= next.len)
                    continue;
                next.old_addr += cut;
                next.new_addr += cut;
                next.len -= cut;
            }
        }
        if (last->old_addr == next.old_addr && last->len == 0) {
            *last = next; /* an anchor gives way to a span that begins there */
            continue;
        }
        if (last->len != 0 && next.len != 0 && last->old_addr + last->len == next.old_addr &&
            last->new_addr + last->len == next.new_addr) {
            last->len += next.len;
            continue;
        }
        spans->items[kept++] = next;
    }
    spans->count = kept;
}

/* --- steps --- */

static bool shifts_begin(bspi_shifts *shifts, bspi_heap *heap, size_t most) {
    memset(shifts, 0, sizeof *shifts);
    shifts->steps = bspi_alloc(heap, most + 1, sizeof *shifts->steps, false);
    return shifts->steps != NULL;
}

static void shifts_free(bspi_shifts *shifts, bspi_heap *heap) {
    bspi_free(heap, shifts->steps);
    bspi_free(heap, shifts->pages);
    memset(shifts, 0, sizeof *shifts);
}

/* From `from` on, which is not below the last step, the shift is `shift`. */
static void add_step(bspi_shifts *shifts, uint64_t from, uint64_t shift) {
    if (shifts->count != 0 && shifts->steps[shifts->count - 1].from == from)
        shifts->count--; /* a stretch of no length */
    uint64_t current = shifts->count != 0 ? shifts->steps[shifts->count - 1].shift
                                          : shifts->below;
    if (shift != current)
        shifts->steps[shifts->count++] = (bspi_step){from, shift};
}

/* Gives back what add_step did not need and indexes the rest. */
static bool shifts_finish(bspi_shifts *shifts, bspi_heap *heap) {
    if (shifts->count >= UINT32_MAX)
        return false;
    bspi_step *steps = bspi_grow(heap, shifts->steps, shifts->count + 1, sizeof *steps);
    if (steps == NULL)
        return false;
    shifts->steps = steps;
    if (shifts->count == 0)
        return true;
    uint64_t low = steps[0].from, reach = steps[shifts->count - 1].from - low;
    shifts->page_bits = PAGE_BITS;
    while (reach >> shifts->page_bits >= PAGE_LIMIT)
        shifts->page_bits++;
    shifts->page_count = (size_t)(reach >> shifts->page_bits) + 1;
    shifts->pages = bspi_alloc(heap, shifts->page_count + 1, sizeof *shifts->pages, false);
    if (shifts->pages == NULL)
        return false;
    size_t step = 0;
    for (size_t page = 0; page < shifts->page_count; page++) {
        uint64_t start = low + ((uint64_t)page << shifts->page_bits);
        while (step < shifts->count && steps[step].from < start)
            step++;
        shifts->pages[page] = (uint32_t)step;
    }
    shifts->pages[shifts->page_count] = (uint32_t)shifts->count;
    return true;
}

/* The number of steps at or below addr. */
static size_t steps_to(const bspi_shifts *shifts, uint64_t addr) {
    if (shifts->count == 0 || addr < shifts->steps[0].from)
        return 0;
    uint64_t page = (addr - shifts->steps[0].from) >> shifts->page_bits;
    if (page >= shifts->page_count)
        return shifts->count;
    size_t low = shifts->pages[page], high = shifts->pages[page + 1];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (shifts->steps[middle].from <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t shift_of(const bspi_shifts *shifts, size_t steps) {
    return steps == 0 ? shifts->below : shifts->steps[steps - 1].shift;
}

/* Addresses between two spans go with the nearer one, with the lower when both
 * are as near. */
static bool steps_of_spans(bspi_shifts *shifts, const span_list *spans) {
    if (!shifts_begin(shifts, spans->heap, spans->count))
        return false;
    for (size_t i = 0; i < spans->count; i++) {
        const span *item = &spans->items[i];
        uint64_t shift = item->new_addr - item->old_addr;
        if (i == 0) {
            shifts->below = shift;
            continue;
        }
        uint64_t end = item[-1].old_addr + item[-1].len;
        uint64_t middle = end + (item->old_addr - end) / 2 + 1;
        add_step(shifts, BSPI_MIN(middle, item->old_addr), shift);
    }
    return shifts_finish(shifts, spans->heap);
}

bsp_status bspi_address_map_build(bspi_address_map *map, bspi_heap *heap, const bspi_image *old,
                                  const bspi_layout_image *new_, const bspi_cover *cover,
                                  size_t cover_count, bsp_fault *fault) {
    memset(map, 0, sizeof *map);
    map->heap = heap;
    if (new_->section_count == 0)
        return BSP_OK;
    span_list spans = {.heap = heap};
    bool good = add_sections(&spans, old, new_);
    for (size_t i = 0; good && i < cover_count; i++)
        good = add_cover(&spans, old, new_, &cover[i]);
    if (good) {
        settle(&spans);
        good = steps_of_spans(&map->by_span, &spans);
    }
    bspi_free(heap, spans.items);
    if (!good) {
        bspi_address_map_free(map);
        return bspi_nomem(heap, fault, "address map");
    }
    return BSP_OK;
}

/* The spans' steps with the overrides laid over them. */
static bool lay_over(bspi_shifts *over, const bspi_address_map *map,
                     const bspi_override *overrides, size_t count) {
    const bspi_shifts *under = &map->by_span;
    if (count > (SIZE_MAX - under->count) / 2 ||
        !shifts_begin(over, map->heap, under->count + 2 * count))
        return false;
    over->below = under->below;
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        const bspi_override *item = &overrides[i];
        for (; next < under->count && under->steps[next].from < item->old_addr; next++)
            add_step(over, under->steps[next].from, under->steps[next].shift);
        add_step(over, item->old_addr, item->new_addr - item->old_addr);
        uint64_t last = item->old_addr + item->reach;
        while (next < under->count && under->steps[next].from <= last)
            next++;
        if (last != UINT64_MAX)
            add_step(over, last + 1, shift_of(under, next));
    }
    for (; next < under->count; next++)
        add_step(over, under->steps[next].from, under->steps[next].shift);
    return shifts_finish(over, map->heap);
}

bsp_status bspi_address_map_override(bspi_address_map *map, const bspi_override *overrides,
                                     size_t count, bsp_fault *fault) {
    if (map->overridden)
        shifts_free(&map->by_target, map->heap);
    map->overridden = count != 0;
    if (count == 0 || lay_over(&map->by_target, map, overrides, count))
        return BSP_OK;
    shifts_free(&map->by_target, map->heap);
    map->overridden = false;
    return bspi_nomem(map->heap, fault, "overrides");
}

void bspi_address_map_free(bspi_address_map *map) {
    if (map->heap == NULL)
        return;
    shifts_free(&map->by_span, map->heap);
    shifts_free(&map->by_target, map->heap);
    memset(map, 0, sizeof *map);
}

uint64_t bspi_map_address(const bspi_address_map *map, uint64_t addr) {
    return addr + shift_of(&map->by_span, steps_to(&map->by_span, addr));
}

uint64_t bspi_map_target(const bspi_address_map *map, uint64_t addr) {
    const bspi_shifts *shifts = map->overridden ? &map->by_target : &map->by_span;
    return addr + shift_of(shifts, steps_to(shifts, addr));
}

void bspi_map_find(const bspi_address_map *map, uint64_t addr, bspi_near *near) {
    const bspi_shifts *shifts = map->overridden ? &map->by_target : &map->by_span;
    size_t steps = steps_to(shifts, addr);
    near->from = steps == 0 ? 0 : shifts->steps[steps - 1].from;
    near->len = (steps == shifts->count ? UINT64_MAX : shifts->steps[steps].from) - near->from;
    near->shift = shift_of(shifts, steps);
}
