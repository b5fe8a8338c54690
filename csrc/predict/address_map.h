/* address_map.h: where an old address is in the new build.
 *
 * Built by both sides from the cover and the layout, hence by a total order of
 * integer steps: every run of the cover maps the addresses it spans; of runs
 * that overlap in the old build the longer keeps the overlap; paired zero-fill
 * memory maps by section; what lies between takes the shift of the nearer
 * neighbour.  Explicit overrides go before all of it.
 */
#ifndef BSPI_ADDRESS_MAP_H
#define BSPI_ADDRESS_MAP_H

#include "../match/cover.h"
#include "layout.h"

typedef struct bspi_span {
    uint64_t old_addr;
    uint64_t len; /* 0 for an anchor: a known point */
    uint64_t new_addr;
} bspi_span;

/* Addresses old_addr to old_addr + reach, both included, are at the same
 * distance from new_addr on. */
typedef struct bspi_override {
    uint64_t old_addr;
    uint64_t new_addr;
    uint64_t reach;
} bspi_override;

/* For each page of addresses, the index of the first item at or above it. */
typedef struct bspi_page_index {
    uint64_t low;
    unsigned shift;
    uint32_t *first;
    size_t page_count;
} bspi_page_index;

typedef struct bspi_address_map {
    bspi_heap *heap;
    bspi_span *spans; /* sorted by old_addr, disjoint */
    size_t span_count;
    size_t span_capacity;
    bspi_page_index span_pages;
    const bspi_override *overrides; /* borrowed, ascending by old_addr, disjoint */
    size_t override_count;
    bspi_page_index override_pages;
} bspi_address_map;

/* Builds the map of old image -> new image from the part of the cover that
 * lies in both. */
bsp_status bspi_address_map_build(bspi_address_map *map, bspi_heap *heap, const bspi_image *old,
                                  const bspi_layout_image *new_, const bspi_cover *cover,
                                  size_t cover_count, bsp_fault *fault);
/* Sets the overrides, which must stay valid as long as the map. */
bsp_status bspi_address_map_override(bspi_address_map *map, const bspi_override *overrides,
                                     size_t count, bsp_fault *fault);
void bspi_address_map_free(bspi_address_map *map);

/* Where old address `addr` is, by the spans alone. */
uint64_t bspi_map_address(const bspi_address_map *map, uint64_t addr);
/* Where it is by overrides and spans. */
uint64_t bspi_map_target(const bspi_address_map *map, uint64_t addr);

#endif
