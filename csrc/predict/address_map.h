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

/* Addresses old_addr to old_addr + reach, both included, are at the same
 * distance from new_addr on. */
typedef struct bspi_override {
    uint64_t old_addr;
    uint64_t new_addr;
    uint64_t reach;
} bspi_override;

/* From old address `from` on, up to the next step, everything moves by `shift`. */
typedef struct bspi_step {
    uint64_t from;
    uint64_t shift;
} bspi_step;

/* A function of the old address that is constant between steps. */
typedef struct bspi_shifts {
    bspi_step *steps; /* strictly ascending */
    size_t count;
    uint64_t below; /* the shift below the first step */
    /* For each page of addresses from the first step on, the index of the first
     * step at or above it; one more at the end. */
    uint32_t *pages;
    size_t page_count;
    unsigned page_bits;
} bspi_shifts;

typedef struct bspi_address_map {
    bspi_heap *heap;
    bspi_shifts by_span;   /* what cover and layout say */
    bspi_shifts by_target; /* the same under the overrides; empty without any */
    bool overridden;
} bspi_address_map;

/* Where the last look-up was: a stretch of old addresses with one shift.  Zero
 * initialised it holds none. */
typedef struct bspi_near {
    uint64_t from;
    uint64_t len;
    uint64_t shift;
} bspi_near;

/* Builds the map of old image -> new image from the part of the cover that
 * lies in both. */
bsp_status bspi_address_map_build(bspi_address_map *map, bspi_heap *heap, const bspi_image *old,
                                  const bspi_layout_image *new_, const bspi_cover *cover,
                                  size_t cover_count, bsp_fault *fault);
/* Sets the overrides: ascending by old_addr, disjoint. */
bsp_status bspi_address_map_override(bspi_address_map *map, const bspi_override *overrides,
                                     size_t count, bsp_fault *fault);
void bspi_address_map_free(bspi_address_map *map);

/* Where old address `addr` is, by the spans alone. */
uint64_t bspi_map_address(const bspi_address_map *map, uint64_t addr);
/* Where it is by overrides and spans. */
uint64_t bspi_map_target(const bspi_address_map *map, uint64_t addr);
/* As bspi_map_target, but makes *near the stretch that addr lies in. */
void bspi_map_find(const bspi_address_map *map, uint64_t addr, bspi_near *near);

/* As bspi_map_target, quicker on a page of addresses without a step: for targets
 * that lie anywhere. */
static inline uint64_t bspi_map_far(const bspi_address_map *map, uint64_t addr) {
    const bspi_shifts *shifts = map->overridden ? &map->by_target : &map->by_span;
    if (shifts->page_count == 0)
        return bspi_map_target(map, addr);
    uint64_t page = (addr - shifts->steps[0].from) >> shifts->page_bits;
    if (page >= shifts->page_count || shifts->pages[page] != shifts->pages[page + 1])
        return bspi_map_target(map, addr);
    /* Not the first page, which begins with a step. */
    return addr + shifts->steps[shifts->pages[page] - 1].shift;
}

/* As bspi_map_target, quicker when addr lies where the last one did. */
static inline uint64_t bspi_map_near(const bspi_address_map *map, uint64_t addr,
                                     bspi_near *near) {
    if (addr - near->from >= near->len)
        bspi_map_find(map, addr, near);
    return addr + near->shift;
}

#endif
