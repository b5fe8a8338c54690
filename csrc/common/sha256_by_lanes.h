/* sha256_by_lanes.h: the compression function of one message and of two, by lanes.
 *
 * Compiled into whoever defined, before including it, WITH_LANES (what the compiler is to
 * be told of the functions below) and a `lane`, which holds one message:
 *   lane_begin(lane *, const uint32_t state[8])   lane_load(lane *, const uint8_t *block)
 *   lane_rounds(lane *, unsigned round)           four rounds, round 0 to 15
 *   lane_add(lane *)                              ends a block
 *   lane_end(const lane *, uint32_t state[8])
 */
#ifndef BSPI_SHA256_BY_LANES_H
#define BSPI_SHA256_BY_LANES_H

#include "sha256.h"

WITH_LANES static void compress(uint32_t state[8], const uint8_t *blocks, size_t count) {
    lane l;
    lane_begin(&l, state);
    for (size_t i = 0; i < count; i++) {
        lane_load(&l, blocks + i * BSPI_SHA256_BLOCK);
#pragma GCC unroll 16 /* so that the lane stays in registers */
        for (unsigned round = 0; round < 16; round++)
            lane_rounds(&l, round);
        lane_add(&l);
    }
    lane_end(&l, state);
}

WITH_LANES static void compress_two(uint32_t first[8], const uint8_t *first_blocks,
                                    uint32_t second[8], const uint8_t *second_blocks,
                                    size_t count) {
    lane a, b;
    lane_begin(&a, first);
    lane_begin(&b, second);
    for (size_t i = 0; i < count; i++) {
        lane_load(&a, first_blocks + i * BSPI_SHA256_BLOCK);
        lane_load(&b, second_blocks + i * BSPI_SHA256_BLOCK);
#pragma GCC unroll 16
        for (unsigned round = 0; round < 16; round++) {
            lane_rounds(&a, round);
            lane_rounds(&b, round);
        }
        lane_add(&a);
        lane_add(&b);
    }
    lane_end(&a, first);
    lane_end(&b, second);
}

#endif
