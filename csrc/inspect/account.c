/* account.c: which place, which row, which stretch a byte of the new file counts for. */
#include "account.h"

#include <string.h>

#include "../image/sort.h"

/* --- places --- */

static bool earlier(void *items, size_t a, size_t b) {
    const bspi_explain_span *spans = items;
    return spans[a].begin != spans[b].begin ? spans[a].begin < spans[b].begin
                                            : spans[a].place < spans[b].place;
}

static void swap_spans(void *items, size_t a, size_t b) {
    bspi_explain_span *spans = items, kept = spans[a];
    spans[a] = spans[b];
    spans[b] = kept;
}

static void describe_place(const bsp_patch *patch, size_t image, size_t section,
                           bsp_explain_place *place) {
    const bspi_layout_image *in = &patch->content.layout.images[image];
    const bspi_layout_section *from = &in->sections[section];
    const bspi_image *old = &patch->old.images[in->old_image];
    *place = (bsp_explain_place){.image = (uint32_t)image,
                                 .old_image = in->old_image,
                                 .format = old->format,
                                 .arch = old->arch,
                                 .role = from->role,
                                 .new_off = from->file_off,
                                 .addr = from->mapped ? from->addr : 0};
    if (from->pair != BSPI_NO_PAIR && from->pair < old->section_count) {
        place->paired = 1;
        place->old_off = old->sections[from->pair].file_off;
        place->old_len = old->sections[from->pair].file_size;
    }
}

bsp_status bspi_find_places(bsp_explanation *e, bsp_fault *fault) {
    const bspi_layout *layout = &e->patch->content.layout;
    uint64_t new_size = e->patch->content.new_size;
    size_t count = 0;
    for (size_t i = 0; i < layout->image_count; i++)
        count += layout->images[i].section_count;
    e->places = bspi_alloc(e->heap, count + 1, sizeof *e->places, true);
    e->spans = bspi_alloc(e->heap, count + 1, sizeof *e->spans, true);
    if (e->places == NULL || e->spans == NULL)
        return bspi_nomem(e->heap, fault, "explain.places");
    for (size_t i = 0; i < layout->image_count; i++) {
        for (size_t j = 0; j < layout->images[i].section_count; j++) {
            const bspi_layout_section *section = &layout->images[i].sections[j];
            describe_place(e->patch, i, j, &e->places[e->place_count]);
            uint64_t begin = BSPI_MIN(section->file_off, new_size);
            uint64_t len = BSPI_MIN(section->file_size, new_size - begin);
            if (len != 0)
                e->spans[e->span_count++] =
                    (bspi_explain_span){begin, begin + len, (uint32_t)e->place_count};
            e->place_count++;
        }
    }
    e->places[e->place_count++] =
        (bsp_explain_place){.image = BSP_EXPLAIN_NONE, .old_image = BSP_EXPLAIN_NONE};
    bspi_sort(e->spans, e->span_count, earlier, swap_spans);
    uint64_t done = 0, inside = 0;
    size_t kept = 0;
    for (size_t i = 0; i < e->span_count; i++) {
        bspi_explain_span item = e->spans[i];
        item.begin = BSPI_MAX(item.begin, done);
        if (item.begin >= item.end)
            continue;
        done = item.end;
        inside += item.end - item.begin;
        e->places[item.place].len = item.end - item.begin;
        e->spans[kept++] = item;
    }
    e->span_count = kept;
    e->places[e->place_count - 1].len = new_size - inside;
    return BSP_OK;
}

uint32_t bspi_place_at(const bsp_explanation *e, uint64_t off, uint64_t *end) {
    size_t low = 0, high = e->span_count;
    while (low < high) { /* the first bspi_explain_span that ends behind off */
        size_t middle = low + (high - low) / 2;
        if (e->spans[middle].end <= off)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < e->span_count && e->spans[low].begin <= off) {
        *end = e->spans[low].end;
        return e->spans[low].place;
    }
    *end = low < e->span_count ? e->spans[low].begin : e->patch->content.new_size;
    return (uint32_t)e->place_count - 1;
}

/* --- rows and buckets --- */

bsp_explain_row *bspi_row_at(bsp_explanation *e, uint32_t place, uint8_t kind) {
    uint32_t *index = &e->row_of[(size_t)place * e->slot_count + e->slot_of[kind]];
    if (*index == BSPI_NO_ROW) {
        if (!BSPI_ENSURE(e->rows, e->row_count, e->row_capacity, e->heap) ||
            e->row_count >= BSPI_NO_ROW) {
            e->failed = true;
            return &e->rows[0];
        }
        memset(&e->rows[e->row_count], 0, sizeof e->rows[0]);
        e->rows[e->row_count].place = place;
        e->rows[e->row_count].kind = kind;
        *index = (uint32_t)e->row_count++;
    }
    return &e->rows[*index];
}

bool bspi_make_rows(bsp_explanation *e) {
    for (unsigned kind = 1; kind < BSPI_EXPLAIN_KINDS; kind++)
        e->slot_of[kind] = bspi_ref_size((uint8_t)kind) != 0 ? (uint8_t)++e->slot_count : 0;
    e->slot_count++;
    e->row_of = bspi_alloc(e->heap, e->place_count, e->slot_count * sizeof *e->row_of, false);
    e->rows = bspi_alloc(e->heap, 64, sizeof *e->rows, true);
    if (e->row_of == NULL || e->rows == NULL)
        return false;
    e->row_capacity = 64;
    memset(e->row_of, 0xff, e->place_count * e->slot_count * sizeof *e->row_of);
    return true;
}

bsp_explain_row *bspi_plain_row(bsp_explanation *e, uint64_t off) {
    uint64_t end;
    return bspi_row_at(e, bspi_place_at(e, off, &end), BSPI_REF_NONE);
}

uint64_t bspi_bucket_begin(const bsp_explanation *e, uint64_t index) {
    uint64_t size = e->patch->content.new_size, count = e->bucket_count;
    return index * (size / count) + (index * (size % count) + count - 1) / count;
}

uint32_t bspi_bucket_at(const bsp_explanation *e, uint64_t off) {
    uint32_t low = 0, high = e->bucket_count; /* the last that begins at or before off */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (bspi_bucket_begin(e, middle) <= off)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* --- at the end --- */

static bool has_content(const bsp_explain_row *row) {
    bsp_explain_row empty = {.place = row->place, .kind = row->kind};
    return memcmp(row, &empty, sizeof empty) != 0;
}

bsp_status bspi_order_rows(bsp_explanation *e, bsp_fault *fault) {
    bsp_explain_row *ordered = bspi_alloc(e->heap, e->row_count + 1, sizeof *ordered, false);
    size_t count = 0;
    if (ordered == NULL || e->failed) {
        bspi_free(e->heap, ordered);
        return bspi_nomem(e->heap, fault, "explain.rows");
    }
    for (size_t i = 0; i < e->place_count * e->slot_count; i++)
        if (e->row_of[i] != BSPI_NO_ROW && has_content(&e->rows[e->row_of[i]]))
            ordered[count++] = e->rows[e->row_of[i]];
    bspi_free(e->heap, e->rows);
    e->rows = ordered;
    e->row_count = count;
    return BSP_OK;
}
