/* account.h: the books that an explanation keeps: places, rows, stretches. */
#ifndef BSPI_ACCOUNT_H
#define BSPI_ACCOUNT_H

#include "../patch/handle.h"

#define BSPI_NO_ROW UINT32_MAX
#define BSPI_EXPLAIN_KINDS 256u

/* A stretch of the new file that is in one place. */
typedef struct bspi_explain_span {
    uint64_t begin;
    uint64_t end;
    uint32_t place;
} bspi_explain_span;

struct bsp_explanation {
    bspi_heap *heap;
    bsp_patch *patch;
    bsp_explain_place *places;
    size_t place_count;
    bspi_explain_span *spans; /* ascending, disjoint */
    size_t span_count;
    bsp_explain_row *rows;
    size_t row_count;
    size_t row_capacity;
    uint32_t *row_of; /* place * slot_count + slot_of[kind] -> index into rows, or BSPI_NO_ROW */
    uint8_t slot_of[BSPI_EXPLAIN_KINDS];
    uint32_t slot_count;
    bsp_explain_stream streams[BSPI_STREAM_COUNT];
    size_t stream_count;
    bsp_explain_bucket *buckets;
    uint32_t bucket_count;
    bool failed; /* memory was refused on the way */
    /* Of each cover entry, override and fix: what it costs. */
    uint64_t *item_prices[BSP_EXPLAIN_STREAMS];
    uint64_t *override_uses; /* references that each override answers */
};


/* Lists the sections and cuts the new file into spans of one place each; where
 * sections overlap, the one that begins first has the bytes. */
bsp_status bspi_find_places(bsp_explanation *e, bsp_fault *fault);
/* The place of new offset `off`; it holds up to *end. */
uint32_t bspi_place_at(const bsp_explanation *e, uint64_t off, uint64_t *end);

bool bspi_make_rows(bsp_explanation *e);
/* The row of a kind in a place, valid until the next call.  Never NULL, so that
 * counting needs no checks: when memory is refused, `failed` sticks and any row
 * takes what comes. */
bsp_explain_row *bspi_row_at(bsp_explanation *e, uint32_t place, uint8_t kind);
/* The row for bytes of no reference in the place of `off`. */
bsp_explain_row *bspi_plain_row(bsp_explanation *e, uint64_t off);
/* Sorts the rows by place and kind and drops the empty ones. */
bsp_status bspi_order_rows(bsp_explanation *e, bsp_fault *fault);

/* Where stretch `index` begins, and the stretch that holds `off`. */
uint64_t bspi_bucket_begin(const bsp_explanation *e, uint64_t index);
uint32_t bspi_bucket_at(const bsp_explanation *e, uint64_t off);

#endif
