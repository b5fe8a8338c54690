/* arm64_avx2.c: the kernel that looks at eight arm64 instructions at once and steps
 * over those only that matter. */
#include "arm64_scan.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#include "arm64_groups.h"

#define WITH_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define GROUP 8u /* instructions */
#define GROUP_BYTES (4 * GROUP)

WITH_AVX2 static inline __m256i all(uint32_t value) {
    return _mm256_set1_epi32((int)value);
}

/* The kinds of each instruction, in the lowest byte of its lane; the rest is 0. */
WITH_AVX2 static inline __m256i kinds_of(__m256i words) {
    const __m128i *low = (const __m128i *)(const void *)by_low;
    const __m128i *high = (const __m128i *)(const void *)by_high;
    __m256i low_half = _mm256_and_si256(_mm256_srli_epi32(words, 24), all(15));
    __m256i high_half = _mm256_srli_epi32(words, 28);
    return _mm256_and_si256(
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(low)), low_half),
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(high)), high_half));
}

/* Bit 0 of a lane: whether the register that bits 0 to 4 name is live. */
WITH_AVX2 static inline __m256i held(__m256i live, __m256i words) {
    return _mm256_srlv_epi32(live, _mm256_and_si256(words, all(31)));
}

/* How far in bytes the branches lead from the first lane. */
WITH_AVX2 static inline __m256i distances(__m256i words) {
    const __m256i places = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256 by26 = _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 6), 4));
    __m256 by19 = _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 8), 11));
    __m256 by14 = _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 13), 16));
    /* Bit 25 tells TBZ from the others with a condition, and these have bit 29 or 30. */
    __m256i is14 = _mm256_slli_epi32(words, 6);
    __m256i is19 = _mm256_or_si256(_mm256_slli_epi32(words, 1), _mm256_slli_epi32(words, 2));
    __m256 by = _mm256_blendv_ps(by19, by14, _mm256_castsi256_ps(is14));
    by = _mm256_blendv_ps(by26, by, _mm256_castsi256_ps(is19));
    __m256i whole = _mm256_and_si256(_mm256_castps_si256(by), all(~UINT32_C(3)));
    return _mm256_add_epi32(whole, places);
}

/* One bit for each lane. */
typedef struct lanes {
    uint32_t jumps; /* wanted branches with a distance */
    uint32_t any;   /* these and everything else */
} lanes;

WITH_AVX2 static inline uint32_t zeros(__m256i v) {
    __m256i zero = _mm256_cmpeq_epi32(v, _mm256_setzero_si256());
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(zero));
}

/* Of the eight instructions at `at`, those that need a step while no registers but
 * those in `live` hold a page.  Branches that lead to [low, high), in bytes from
 * `at`, are not wanted. */
WITH_AVX2 static inline lanes needed(const uint8_t *at, uint32_t live, int32_t low,
                                     int32_t high) {
    uint32_t always = PAGE | LITERAL;
    always |= live & BSPI_A64_CALL_CHANGES ? CALL | REGISTER : 0;
    always |= live ? EXCLUSIVE : 0;
    __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)at);
    __m256i kinds = kinds_of(words);
    __m256i by = distances(words);
    __m256i local = _mm256_andnot_si256(_mm256_cmpgt_epi32(all((uint32_t)low), by),
                                        _mm256_cmpgt_epi32(all((uint32_t)high), by));
    __m256i jumps = _mm256_and_si256(kinds, _mm256_andnot_si256(local, all(JUMP)));
    /* What reads or writes a register names it in one of two places; pairs that are
     * loaded name one more in a third. */
    __m256i pages = all(live);
    __m256i touched = _mm256_or_si256(held(pages, words),
                                      held(pages, _mm256_srli_epi32(words, 5)));
    __m256i second = held(pages, _mm256_srli_epi32(words, 10));
    touched = _mm256_or_si256(touched, _mm256_and_si256(second, kinds));
    __m256i reason = _mm256_or_si256(_mm256_and_si256(touched, all(PAIR)),
                                     _mm256_and_si256(kinds, all(always)));
    return (lanes){zeros(jumps) ^ 0xFF, zeros(_mm256_or_si256(reason, jumps)) ^ 0xFF};
}

WITH_AVX2 static inline void run(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report) {
    while (at < end && end - at >= GROUP_BYTES) {
        int32_t low = -(int32_t)FAR, high = (int32_t)FAR; /* no branch is wanted */
        if (report) {
            uint64_t begin = s->run_off - (s->file_off + at);
            low = within_far(begin);
            high = s->run_len == 0 ? low : within_far(begin + s->run_len);
        }
        uint32_t live = (uint32_t)s->live;
        lanes need = needed(s->code + at, live, low, high);
        uint64_t next = at + GROUP_BYTES;
        for (; need.any != 0; need.any &= need.any - 1) {
            unsigned lane = (unsigned)__builtin_ctz(need.any);
            uint64_t here = at + 4 * (uint64_t)lane;
            if (report && need.jumps >> lane & 1) {
                jump(s, here);
                continue;
            }
            bspi_arm64_step(s, here, report);
            if ((uint32_t)s->live & ~live) { /* one more to be watched from here on */
                next = here + 4;
                break;
            }
        }
        at = next;
    }
    for (; at < end; at += 4)
        bspi_arm64_step(s, at, report);
}

WITH_AVX2 static void scan_groups(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report) {
    if (report)
        run(s, at, end, true);
    else
        run(s, at, end, false);
}

bspi_arm64_kernel bspi_arm64_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? scan_groups
                                                                           : NULL;
}

#else

bspi_arm64_kernel bspi_arm64_avx2(void) {
    return NULL;
}

#endif
