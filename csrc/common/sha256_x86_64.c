/* sha256_x86_64.c: SHA-256 compression with the SHA extensions of x86-64. */
#include "sha256.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <cpuid.h>
#include <immintrin.h>

#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))

WITH_SHA static inline __m128i load(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

/* The eight words as the instructions want them. */
typedef struct lane {
    __m128i abef, cdgh;
    __m128i abef_before, cdgh_before;
    __m128i w[4];
} lane;

WITH_SHA static inline void lane_begin(lane *l, const uint32_t state[8]) {
    __m128i badc = _mm_shuffle_epi32(load(state), 0xB1);
    __m128i hgfe = _mm_shuffle_epi32(load(state + 4), 0x1B);
    l->abef = _mm_alignr_epi8(badc, hgfe, 8);
    l->cdgh = _mm_blend_epi16(hgfe, badc, 0xF0);
}

WITH_SHA static inline void lane_load(lane *l, const uint8_t *block) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    l->abef_before = l->abef;
    l->cdgh_before = l->cdgh;
    for (unsigned j = 0; j < 4; j++)
        l->w[j] = _mm_shuffle_epi8(load(block + 16 * j), swap);
}

/* Four rounds. */
WITH_SHA static inline void lane_rounds(lane *l, unsigned round) {
    __m128i now = l->w[round & 3];
    if (round >= 4) {
        /* w[t] = s1(w[t-2]) + w[t-7] + s0(w[t-15]) + w[t-16], four at a time */
        __m128i last = l->w[(round + 3) & 3];
        __m128i t7 = _mm_alignr_epi8(last, l->w[(round + 2) & 3], 4);
        now = _mm_add_epi32(_mm_sha256msg1_epu32(now, l->w[(round + 1) & 3]), t7);
        now = _mm_sha256msg2_epu32(now, last);
        l->w[round & 3] = now;
    }
    __m128i sum = _mm_add_epi32(now, load(bspi_sha256_k + (size_t)4 * round));
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, sum);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(sum, 0x0E));
}

WITH_SHA static inline void lane_add(lane *l) {
    l->abef = _mm_add_epi32(l->abef, l->abef_before);
    l->cdgh = _mm_add_epi32(l->cdgh, l->cdgh_before);
}

WITH_SHA static inline void lane_end(const lane *l, uint32_t state[8]) {
    __m128i feba = _mm_shuffle_epi32(l->abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(l->cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#define WITH_LANES WITH_SHA
#include "sha256_by_lanes.h"

static bool supported(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return false;
    if (!(ecx & bit_SSSE3) || !(ecx & bit_SSE4_1))
        return false;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    return ebx & (1u << 29);
}

bspi_sha256_compress *bspi_sha256_x86_64(void) {
    return supported() ? compress : NULL;
}

bspi_sha256_compress_two *bspi_sha256_two_x86_64(void) {
    return supported() ? compress_two : NULL;
}

#else

bspi_sha256_compress *bspi_sha256_x86_64(void) {
    return NULL;
}

bspi_sha256_compress_two *bspi_sha256_two_x86_64(void) {
    return NULL;
}

#endif
