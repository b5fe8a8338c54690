/* arm64_avx2.c: the kernel that looks at eight arm64 instructions at once and steps
 * over those only that matter. */
#include "arm64_scan.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define GROUP 8u /* instructions */
#define GROUP_BYTES (4 * GROUP)
/* No branch leads as far (in bytes), so that distances fit a lane. */
#define FAR (INT64_C(1) << 29)

/* Kinds of instructions that can be told by the two halves of the top byte alone:
 * each has its bit in by_low[low half] and in by_high[high half].  Some hold a few
 * more instructions than they should: to step over one in vain changes nothing. */
enum {
    PAIR = 1,         /* loads and stores of two general registers */
    PAGE = 2,         /* ADR, ADRP */
    LITERAL = 4,      /* loads of literals */
    BRANCH = 8,       /* B, BL, CBZ, CBNZ, TBZ, TBNZ */
    CONDITIONAL = 16, /* B.cond */
    CALL = 32,        /* BL */
    REGISTER = 64,    /* BR, BLR, RET */
    EXCLUSIVE = 128
};
#define JUMP (BRANCH | CONDITIONAL)

_Alignas(16) static const uint8_t by_low[16] = {
    [0x0] = PAGE,
    [0x4] = BRANCH | CALL | CONDITIONAL,
    [0x5] = BRANCH | CALL,
    [0x6] = BRANCH | CALL | REGISTER,
    [0x7] = BRANCH | CALL | REGISTER,
    [0x8] = PAIR | LITERAL | EXCLUSIVE,
    [0x9] = PAIR | EXCLUSIVE,
    [0xC] = LITERAL,
};
_Alignas(16) static const uint8_t by_high[16] = {
    [0x0] = EXCLUSIVE,
    [0x1] = PAGE | LITERAL | BRANCH,
    [0x2] = PAIR,
    [0x3] = PAGE | BRANCH,
    [0x4] = EXCLUSIVE,
    [0x5] = PAGE | LITERAL | CONDITIONAL,
    [0x6] = PAIR,
    [0x7] = PAGE,
    [0x8] = EXCLUSIVE,
    [0x9] = PAGE | LITERAL | BRANCH | CALL,
    [0xA] = PAIR,
    [0xB] = PAGE | BRANCH,
    [0xC] = EXCLUSIVE,
    [0xD] = PAGE | LITERAL | REGISTER,
    [0xE] = PAIR,
    [0xF] = PAGE,
};

static inline int32_t within_far(uint64_t distance) {
    int64_t d = (int64_t)distance;
    return (int32_t)(d < -FAR ? -FAR : d > FAR ? FAR : d);
}

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

/* Steps over a branch at `at`: it names no register. */
WITH_AVX2 static inline void jump(bspi_arm64_scan *s, uint64_t at) {
    uint32_t word = bspi_load32(s->code + at);
    bool is26 = (word & 0x7C000000) == 0x14000000, is14 = (word & 0x7E000000) == 0x36000000;
    uint32_t by19 = (uint32_t)((int32_t)(word << 8) >> 11);
    uint32_t by = is26 ? (uint32_t)((int32_t)(word << 6) >> 4)
                       : is14 ? (uint32_t)((int32_t)(word << 13) >> 16) : by19;
    uint8_t kind = is26 ? BSPI_REF_A64_B26 : is14 ? BSPI_REF_A64_B14 : BSPI_REF_A64_B19;
    uint64_t target = s->addr + at + (uint64_t)(int64_t)(int32_t)(by & ~UINT32_C(3));
    s->refs->items[s->refs->count++] = (bspi_ref){s->file_off + at, target, 0, kind, 4};
    if (word >> 26 == 0x25) { /* BL */
        s->last_call = at + 4;
        s->live &= ~(uint64_t)BSPI_A64_CALL_CHANGES;
    }
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
