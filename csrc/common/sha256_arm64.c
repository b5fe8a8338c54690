/* sha256_arm64.c: SHA-256 compression with the cryptographic extension of ARMv8. */
#include "sha256.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

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

WITH_SHA2 static void compress(uint32_t state[8], const uint8_t *blocks, size_t count) {
    uint32x4_t abcd = vld1q_u32(state);
    uint32x4_t efgh = vld1q_u32(state + 4);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *block = blocks + i * BSPI_SHA256_BLOCK;
        uint32x4_t abcd_before = abcd;
        uint32x4_t efgh_before = efgh;
        uint32x4_t w[4];
        for (unsigned j = 0; j < 4; j++)
            w[j] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * j)));
        for (unsigned round = 0; round < 16; round++) {
            uint32x4_t now = w[round & 3];
            if (round >= 4) {
                now = vsha256su0q_u32(now, w[(round + 1) & 3]);
                now = vsha256su1q_u32(now, w[(round + 2) & 3], w[(round + 3) & 3]);
                w[round & 3] = now;
            }
            uint32x4_t sum = vaddq_u32(now, vld1q_u32(bspi_sha256_k + (size_t)4 * round));
            uint32x4_t abcd_was = abcd;
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, abcd_was, sum);
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

bspi_sha256_compress *bspi_sha256_arm64(void) {
#if defined(__APPLE__)
    int has = 0;
    size_t len = sizeof has;
    if (sysctlbyname("hw.optional.arm.FEAT_SHA256", &has, &len, NULL, 0) != 0)
        has = 1; /* older systems lack the name, but every Apple arm64 has the instructions */
    return has ? compress : NULL;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_SHA2 ? compress : NULL;
#else
    return NULL;
#endif
}

#else

bspi_sha256_compress *bspi_sha256_arm64(void) {
    return NULL;
}

#endif
