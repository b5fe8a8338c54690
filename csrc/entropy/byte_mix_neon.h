/* byte_mix_neon.h: how the byte model mixes what its contexts say and learns how far to
 * trust each, with vectors of four.  Every arm64 processor has them.
 *
 * The inputs come one by one, from tables.  A vector that is loaded from where they were
 * just stored waits until the stores are in the cache: what several stores wrote, no load
 * is handed directly.  So they are put together in general registers, as 16 bits each.
 */
#ifndef BSPI_BYTE_MIX_NEON_H
#define BSPI_BYTE_MIX_NEON_H

#include <arm_neon.h>

#include "byte_bits.h"

static ALWAYS_INLINE int32x4_t mix_four(const int32_t inputs[4]) {
    uint64_t packed = 0;
    for (unsigned i = 0; i < 4; i++)
        packed |= (uint64_t)(uint16_t)inputs[i] << 16 * i;
    return vmovl_s16(vcreate_s16(packed));
}

static ALWAYS_INLINE int32_t weigh(const int32_t inputs[INPUTS], const int32_t *weights) {
    int32x4_t sum = vmulq_s32(mix_four(inputs), vld1q_s32(weights));
    sum = vmlaq_s32(sum, mix_four(inputs + 4), vld1q_s32(weights + 4));
    sum = vmlaq_s32(sum, mix_four(inputs + 8), vld1q_s32(weights + 8));
    return vaddvq_s32(sum);
}

/* Moves each weight by its input times the error over 2^shift, rounded. */
static ALWAYS_INLINE void learn_weights(const int32_t inputs[INPUTS], int32_t *weights,
                                        int32_t error, unsigned shift) {
    const int32x4_t most = vdupq_n_s32(WEIGHT_MAX), down = vdupq_n_s32(-(int32_t)shift);
    for (unsigned i = 0; i < INPUTS; i += 4) {
        int32x4_t step = vrshlq_s32(vmulq_n_s32(mix_four(inputs + i), error), down);
        int32x4_t weight = vaddq_s32(vld1q_s32(weights + i), step);
        vst1q_s32(weights + i, vmaxq_s32(vminq_s32(weight, most), vnegq_s32(most)));
    }
}

#endif
