/* address_map.c: from the cover to a map of addresses. */
#include "address_map.h"

#include <stdlib.h>
#include <string.h>

/* At most this many pages in an index; wider address ranges get wider pages. */
#define PAGE_LIMIT ((uint64_t)1 << 20)
#define PAGE_BITS 10u

static bool index_build(bspi_page_index *index, bspi_heap *heap, const void *items, size_t stride,
                        size_t count) {
    index->first = NULL;
    index->page_count = 0;
    index->low = 0;
    index->shift = PAGE_BITS;
    if (count == 0)
        return true;
    uint64_t low, high;
    memcpy(&low, items, sizeof low);
    memcpy(&high, (const uint8_t *)items + (count - 1) * stride, sizeof high);
    while ((high - low) >> index->shift >= PAGE_LIMIT)
        index->shift++;
    index->low = low;
    index->page_count = (size_t)((high - low) >> index->shift) + 1;
    index->first = bspi_alloc(heap, index->page_count + 1, sizeof *index->first, false);
    if (index->first == NULL)
        return false;
    size_t item = 0;
    for (size_t page = 0; page < index->page_count; page++) {
        uint64_t start = low + ((uint64_t)page << index->shift);
        uint64_t key;
        for (; item < count; item++) {
            memcpy(&key, (const uint8_t *)items + item * stride, sizeof key);
            if (key >= start)
                break;
        }
        index->first[page] = (uint32_t)item;
    }
    index->first[index->page_count] = (uint32_t)count;
    return true;
}

/* Narrows a search for `addr` to items [*low, *high): those of its page. */
static void index_range(const bspi_page_index *index, uint64_t addr, size_t *low, size_t *high) {
    uint64_t page = (addr - index->low) >> index->shift;
    if (page >= index->page_count) {
        *low = *high = index->first[index->page_count];
        return;
    }
    *low = index->first[page];
    *high = index->first[page + 1];
}

static int by_old_addr(const void *left, const void *right) {
    const bspi_span *a = left, *b = right;
    if (a->old_addr != b->old_addr)
        return a->old_addr < b->old_addr ? -1 : 1;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1; /* the longer first */
    if (a->new_addr != b->new_addr)
        return a->new_addr < b->new_addr ? -1 : 1;
    return 0;
}

static bool add_span(bspi_address_map *map, uint64_t old_addr, uint64_t len, uint64_t new_addr) {
    if (!BSPI_ENSURE(map->spans, map->span_count, map->span_capacity, map->heap))
        return false;
    bspi_span span = {old_addr, len, new_addr};
    map->spans[map->span_count++] = span;
    return true;
}

/* Splits one run of the cover where either side changes section. */
static bool add_cover(bspi_address_map *map, const bspi_image *old,
                      const bspi_layout_image *new_, const bspi_cover *entry) {
    uint64_t done = 0;
    while (done < entry->len) {
        uint64_t old_off = entry->old_off + done, new_off = entry->new_off + done;
        const bspi_section *from = bspi_section_at(old, old_off);
        const bspi_layout_section *to = bspi_layout_at(new_, new_off);
        uint64_t len = entry->len - done;
        if (from == NULL || to == NULL) {
            /* Outside every section: step over to where the next begins. */
            uint64_t step = len;
            for (size_t i = 0; i < old->section_count && from == NULL; i++)
                if (old->sections[i].file_size != 0 && old->sections[i].file_off > old_off) {
                    step = BSPI_MIN(step, old->sections[i].file_off - old_off);
                    break;
                }
            for (size_t i = 0; i < new_->section_count && to == NULL; i++)
                if (new_->sections[i].file_size != 0 && new_->sections[i].file_off > new_off) {
                    step = BSPI_MIN(step, new_->sections[i].file_off - new_off);
                    break;
                }
            done += step;
            continue;
        }
        len = BSPI_MIN(len, from->file_size - (old_off - from->file_off));
        len = BSPI_MIN(len, to->file_size - (new_off - to->file_off));
        if (from->mapped && to->mapped &&
            !add_span(map, from->addr + (old_off - from->file_off), len,
                      to->addr + (new_off - to->file_off)))
            return false;
        done += len;
    }
    return true;
}

static bool add_sections(bspi_address_map *map, const bspi_image *old,
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
        if (!add_span(map, from->addr, 0, to->addr) ||
            !add_span(map, from->addr + from->file_size, len, to->addr + to->file_size))
            return false;
    }
    return true;
}

/* Sorts the spans and cuts overlaps: the longer span keeps what both claim. */
static void settle(bspi_address_map *map) {
    if (map->span_count == 0)
        return;
    qsort(map->spans, map->span_count, sizeof *map->spans, by_old_addr);
    size_t kept = 0;
    for (size_t i = 0; i < map->span_count; i++) {
        bspi_span span = map->spans[i];
        if (kept == 0) {
            map->spans[kept++] = span;
            continue;
        }
        bspi_span *last = &map->spans[kept - 1];
        if (span.old_addr < last->old_addr) { /* the last one was cut: what lies before is taken */
            uint64_t cut = last->old_addr - span.old_addr;
            if (cut >= span.len)
                continue;
            span.old_addr += cut;
            span.new_addr += cut;
            span.len -= cut;
        }
        uint64_t last_end = last->old_addr + last->len;
        if (span.old_addr < last_end) {
            if (span.len > last->len) {
                last->len = span.old_addr - last->old_addr;
            } else {
                uint64_t cut = last_end - span.old_addr;
                if (cut >= span.len)
                    continue;
                span.old_addr += cut;
                span.new_addr += cut;
                span.len -= cut;
            }
        }
        if (last->old_addr == span.old_addr && last->len == 0) {
            *last = span; /* an anchor gives way to a span that begins there */
            continue;
        }
        if (last->len != 0 && span.len != 0 && last->old_addr + last->len == span.old_addr &&
            last->new_addr + last->len == span.new_addr) {
            last->len += span.len;
            continue;
        }
        map->spans[kept++] = span;
    }
    map->span_count = kept;
}

bsp_status bspi_address_map_build(bspi_address_map *map, bspi_heap *heap, const bspi_image *old,
                                  const bspi_layout_image *new_, const bspi_cover *cover,
                                  size_t cover_count, bsp_fault *fault) {
    memset(map, 0, sizeof *map);
    map->heap = heap;
    if (new_->section_count == 0)
        return BSP_OK;
    bool good = add_sections(map, old, new_);
    for (size_t i = 0; good && i < cover_count; i++)
        good = add_cover(map, old, new_, &cover[i]);
    if (good) {
        settle(map);
        good = map->span_count < UINT32_MAX &&
               index_build(&map->span_pages, heap, map->spans, sizeof *map->spans,
                           map->span_count);
    }
    if (!good) {
        bspi_address_map_free(map);
        return bspi_nomem(heap, fault, "address map");
    }
    return BSP_OK;
}

bsp_status bspi_address_map_override(bspi_address_map *map, const bspi_override *overrides,
                                     size_t count, bsp_fault *fault) {
    bspi_free(map->heap, map->override_pages.first);
    map->overrides = overrides;
    map->override_count = count;
    if (!index_build(&map->override_pages, map->heap, overrides, sizeof *overrides, count)) {
        map->override_count = 0;
        return bspi_nomem(map->heap, fault, "overrides");
    }
    return BSP_OK;
}

void bspi_address_map_free(bspi_address_map *map) {
    if (map->heap == NULL)
        return;
    bspi_free(map->heap, map->spans);
    bspi_free(map->heap, map->span_pages.first);
    bspi_free(map->heap, map->override_pages.first);
    memset(map, 0, sizeof *map);
}

uint64_t bspi_map_address(const bspi_address_map *map, uint64_t addr) {
    if (map->span_count == 0)
        return addr;
    const bspi_span *spans = map->spans;
    if (addr < spans[0].old_addr)
        return addr + (spans[0].new_addr - spans[0].old_addr);
    size_t low, high;
    index_range(&map->span_pages, addr, &low, &high);
    while (low < high) { /* first span above addr */
        size_t middle = low + (high - low) / 2;
        if (spans[middle].old_addr <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    const bspi_span *left = &spans[low - 1]; /* low > 0: spans[0] is not above addr */
    uint64_t shift = left->new_addr - left->old_addr;
    uint64_t into = addr - left->old_addr;
    if (into > left->len && low < map->span_count) {
        const bspi_span *right = &spans[low];
        if (right->old_addr - addr < into - left->len)
            shift = right->new_addr - right->old_addr;
    }
    return addr + shift;
}

uint64_t bspi_map_target(const bspi_address_map *map, uint64_t addr) {
    if (map->override_count == 0 || addr < map->overrides[0].old_addr)
        return bspi_map_address(map, addr);
    size_t low, high;
    index_range(&map->override_pages, addr, &low, &high);
    while (low < high) { /* the first above addr */
        size_t middle = low + (high - low) / 2;
        if (map->overrides[middle].old_addr <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    const bspi_override *override = &map->overrides[low - 1];
    if (addr - override->old_addr <= override->reach)
        return override->new_addr + (addr - override->old_addr);
    return bspi_map_address(map, addr);
}
