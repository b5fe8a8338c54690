/* sha256_arm64.c: SHA-256 compression with the cryptographic extension of ARMv8. */
#include "sha256.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

/* Before its version 16, clang's header has the instructions only where all of the program
 * may use them. */
#if defined(__clang__) && !defined(__ARM_FEATURE_SHA2)
#define __ARM_FEATURE_SHA2 1
#endif
#include <arm_neon.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_SHA2
#define HWCAP_SHA2 (1 << 6)
#endif
#endif

/* The two compilers name the feature differently. */
#if defined(__clang__)
#define WITH_SHA2 __attribute__((target("sha2")))
#else
#define WITH_SHA2 __attribute__((target("+crypto")))
#endif

typedef struct lane {
    uint32x4_t abcd, efgh;
    uint32x4_t abcd_before, efgh_before;
    uint32x4_t w[4];
} lane;

WITH_SHA2 static inline void lane_begin(lane *l, const uint32_t state[8]) {
    l->abcd = vld1q_u32(state);
    l->efgh = vld1q_u32(state + 4);
}

WITH_SHA2 static inline void lane_load(lane *l, const uint8_t *block) {
    l->abcd_before = l->abcd;
    l->efgh_before = l->efgh;
    for (unsigned j = 0; j < 4; j++)
        l->w[j] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * j)));
}

/* Four rounds. */
WITH_SHA2 static inline void lane_rounds(lane *l, unsigned round) {
    uint32x4_t now = l->w[round & 3];
    if (round >= 4) {
        now = vsha256su0q_u32(now, l->w[(round + 1) & 3]);
        now = vsha256su1q_u32(now, l->w[(round + 2) & 3], l->w[(round + 3) & 3]);
        l->w[round & 3] = now;
    }
    uint32x4_t sum = vaddq_u32(now, vld1q_u32(bspi_sha256_k + (size_t)4 * round));
    uint32x4_t abcd_was = l->abcd;
    l->abcd = vsha256hq_u32(l->abcd, l->efgh, sum);
    l->efgh = vsha256h2q_u32(l->efgh, abcd_was, sum);
}

WITH_SHA2 static inline void lane_add(lane *l) {
    l->abcd = vaddq_u32(l->abcd, l->abcd_before);
    l->efgh = vaddq_u32(l->efgh, l->efgh_before);
}

WITH_SHA2 static inline void lane_end(const lane *l, uint32_t state[8]) {
    vst1q_u32(state, l->abcd);
    vst1q_u32(state + 4, l->efgh);
}

#define WITH_LANES WITH_SHA2
#include "sha256_by_lanes.h"

static bool supported(void) {
#if defined(__APPLE__)
    int has = 0;
    size_t len = sizeof has;
    if (sysctlbyname("hw.optional.arm.FEAT_SHA256", &has, &len, NULL, 0) != 0)
        return true; /* older systems lack the name, but every Apple arm64 has the instructions */
    return has != 0;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_SHA2;
#else
    return false;
#endif
}

bspi_sha256_compress *bspi_sha256_arm64(void) {
    return supported() ? compress : NULL;
}

bspi_sha256_compress_two *bspi_sha256_two_arm64(void) {
    return supported() ? compress_two : NULL;
}

#else

bspi_sha256_compress *bspi_sha256_arm64(void) {
    return NULL;
}

bspi_sha256_compress_two *bspi_sha256_two_arm64(void) {
    return NULL;
}

#endif
