/* sha256_avx512.c: SHA-256 of sixteen messages at once, one in each lane of AVX-512. */
#include "sha256.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define WITH_AVX512 __attribute__((target("avx512f,avx512bw")))
#define LANES BSPI_SHA256_LANES
#define AHEAD 512u /* bytes; a block takes about as long as memory needs for four */

#define XOR3 0x96
#define CHOOSE 0xCA
#define MAJORITY 0xE8

WITH_AVX512 static inline __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

WITH_AVX512 static inline __m512i add(__m512i a, __m512i b) {
    return _mm512_add_epi32(a, b);
}

/* Rows to columns: afterwards w[i] has word i of each lane. */
WITH_AVX512 static inline void transpose(__m512i w[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (unsigned i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(w[i], w[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(w[i], w[i + 1]);
    }
#pragma GCC unroll 4
    for (unsigned i = 0; i < 16; i += 4) {
        w[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        w[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        w[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        w[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0xDD);
    }
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        w[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        w[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
        w[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        w[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
    }
}

/* The block at `data` of the first lane, as numbers. */
WITH_AVX512 static inline void take(__m512i w[16], const uint8_t *data, size_t stride) {
    const __m512i swap = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++) {
        w[i] = _mm512_shuffle_epi8(load(data + i * stride), swap);
        _mm_prefetch((const char *)(data + i * stride + AHEAD), _MM_HINT_T1);
    }
    transpose(w);
}

WITH_AVX512 static inline __m512i small_sigma0(__m512i x) {
    return _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, 7), _mm512_ror_epi32(x, 18),
                                     _mm512_srli_epi32(x, 3), XOR3);
}

WITH_AVX512 static inline __m512i small_sigma1(__m512i x) {
    return _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, 17), _mm512_ror_epi32(x, 19),
                                     _mm512_srli_epi32(x, 10), XOR3);
}

WITH_AVX512 static void compress(__m512i s[8], const uint8_t *data, size_t stride) {
    __m512i w[16];
    take(w, data, stride);
    __m512i a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    for (unsigned part = 0; part < 64; part += 16) {
#pragma GCC unroll 16 /* so that all stays in registers */
        for (unsigned i = 0; i < 16; i++) {
            if (part != 0)
                w[i] = add(add(w[i], small_sigma0(w[(i + 1) & 15])),
                           add(w[(i + 9) & 15], small_sigma1(w[(i + 14) & 15])));
            __m512i k = _mm512_set1_epi32((int)bspi_sha256_k[part + i]);
            __m512i big1 = _mm512_ternarylogic_epi32(_mm512_ror_epi32(e, 6),
                                                     _mm512_ror_epi32(e, 11),
                                                     _mm512_ror_epi32(e, 25), XOR3);
            __m512i big0 = _mm512_ternarylogic_epi32(_mm512_ror_epi32(a, 2),
                                                     _mm512_ror_epi32(a, 13),
                                                     _mm512_ror_epi32(a, 22), XOR3);
            /* What waits for e goes in last. */
            __m512i known = add(h, add(k, w[i]));
            __m512i from_a = add(add(big0, _mm512_ternarylogic_epi32(a, b, c, MAJORITY)), known);
            __m512i from_e = add(big1, _mm512_ternarylogic_epi32(e, f, g, CHOOSE));
            h = g;
            g = f;
            f = e;
            e = add(add(d, known), from_e);
            d = c;
            c = b;
            b = a;
            a = add(from_a, from_e);
        }
    }
    s[0] = add(s[0], a);
    s[1] = add(s[1], b);
    s[2] = add(s[2], c);
    s[3] = add(s[3], d);
    s[4] = add(s[4], e);
    s[5] = add(s[5], f);
    s[6] = add(s[6], g);
    s[7] = add(s[7], h);
}

WITH_AVX512 static void compress_lanes(uint32_t states[8][LANES], const uint8_t *data,
                                       size_t stride, size_t count) {
    __m512i s[8];
    for (unsigned i = 0; i < 8; i++)
        s[i] = load(states[i]);
    for (size_t block = 0; block < count; block++)
        compress(s, data + block * BSPI_SHA256_BLOCK, stride);
    for (unsigned i = 0; i < 8; i++)
        _mm512_storeu_si512(states[i], s[i]);
}

bspi_sha256_compress_lanes *bspi_sha256_lanes(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
               ? compress_lanes
               : NULL;
}

#else

bspi_sha256_compress_lanes *bspi_sha256_lanes(void) {
    return NULL;
}

#endif
