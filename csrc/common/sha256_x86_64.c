/* sha256_x86_64.c: SHA-256 compression with the SHA extensions of x86-64. */
#include "sha256.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <cpuid.h>
#include <immintrin.h>

__attribute__((target("sha,sse4.1,ssse3"))) static __m128i load(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

__attribute__((target("sha,sse4.1,ssse3"))) static void
compress(uint32_t state[8], const uint8_t *blocks, size_t count) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    /* The instructions want the eight words as ABEF and CDGH. */
    __m128i badc = _mm_shuffle_epi32(load(state), 0xB1);
    __m128i hgfe = _mm_shuffle_epi32(load(state + 4), 0x1B);
    __m128i abef = _mm_alignr_epi8(badc, hgfe, 8);
    __m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xF0);

    for (size_t i = 0; i < count; i++) {
        const uint8_t *block = blocks + i * BSPI_SHA256_BLOCK;
        __m128i abef_before = abef;
        __m128i cdgh_before = cdgh;
        __m128i w[4];
        for (unsigned j = 0; j < 4; j++)
            w[j] = _mm_shuffle_epi8(load(block + 16 * j), swap);
        for (unsigned round = 0; round < 16; round++) {
            __m128i now = w[round & 3];
            if (round >= 4) {
                /* w[t] = s1(w[t-2]) + w[t-7] + s0(w[t-15]) + w[t-16], four at a time */
                __m128i last = w[(round + 3) & 3];
                __m128i t7 = _mm_alignr_epi8(last, w[(round + 2) & 3], 4);
                now = _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(round + 1) & 3]), t7);
                now = _mm_sha256msg2_epu32(now, last);
                w[round & 3] = now;
            }
            __m128i sum = _mm_add_epi32(now, load(bspi_sha256_k + (size_t)4 * round));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

bspi_sha256_compress *bspi_sha256_x86_64(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return NULL;
    if (!(ecx & bit_SSSE3) || !(ecx & bit_SSE4_1))
        return NULL;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return NULL;
    return ebx & (1u << 29) ? compress : NULL;
}

#else

bspi_sha256_compress *bspi_sha256_x86_64(void) {
    return NULL;
}

#endif
