/* arm64_neon.c: the kernel that looks at sixteen arm64 instructions at once, with NEON,
 * and steps over those only that matter. */
#include "arm64_scan.h"

/* Every arm64 processor has NEON.  Words are taken apart as they lie in memory. */
#if defined(__aarch64__) && !defined(__AARCH64EB__) && (defined(__GNUC__) || defined(__clang__))

#include <arm_neon.h>

#include "arm64_groups.h"

#define GROUP_BYTES 64u

/* Sixteen instructions as four bits each, of which the lowest counts: what narrowing
 * leaves of a vector of bytes, and a bit's place is the instruction's in bytes. */
typedef uint64_t lanes;

/* Those whose byte is not 0; the bytes are 0 and 255. */
static inline lanes lanes_of(uint8x16_t bytes) {
    uint8x8_t narrow = vshrn_n_u16(vreinterpretq_u16_u8(bytes), 4);
    return vget_lane_u64(vreinterpret_u64_u8(narrow), 0) & UINT64_C(0x1111111111111111);
}

static inline uint8x16_t all(unsigned value) {
    return vdupq_n_u8((uint8_t)value);
}

/* The kinds of each instruction, by its top byte. */
static inline uint8x16_t kinds_of(uint8x16_t top) {
    return vandq_u8(vqtbl1q_u8(vld1q_u8(by_low), vandq_u8(top, all(15))),
                    vqtbl1q_u8(vld1q_u8(by_high), vshrq_n_u8(top, 4)));
}

/* 255 for each register whose bit is set, else 0. */
static inline uint8x16x2_t spread(uint32_t live) {
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    static const uint8_t low[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    uint8x16_t bytes = vreinterpretq_u8_u32(vdupq_n_u32(live));
    uint8x16_t bit = vld1q_u8(bits), byte = vld1q_u8(low);
    uint8x16x2_t held = {{vtstq_u8(vqtbl1q_u8(bytes, byte), bit),
                          vtstq_u8(vqtbl1q_u8(bytes, vaddq_u8(byte, all(2))), bit)}};
    return held;
}

/* Of the sixteen instructions at `at`, those that need a step while no registers but
 * those in `live` hold a page, but for branches: these name no register. */
static inline lanes needed(const uint8_t *at, uint32_t live) {
    unsigned always = PAGE | LITERAL;
    always |= live & BSPI_A64_CALL_CHANGES ? CALL | REGISTER : 0;
    always |= live ? EXCLUSIVE : 0;
    uint8x16x4_t bytes = vld4q_u8(at);
    uint8x16_t kinds = kinds_of(bytes.val[3]);
    /* What reads or writes a register names it in one of two places; pairs that are
     * loaded name one more in a third. */
    uint8x16_t first = vandq_u8(bytes.val[0], all(31));
    uint8x16_t base = vsriq_n_u8(vshlq_n_u8(bytes.val[1], 3), bytes.val[0], 5);
    uint8x16_t second = vandq_u8(vshrq_n_u8(bytes.val[1], 2), all(31));
    uint8x16x2_t held = spread(live);
    uint8x16_t touched = vorrq_u8(vqtbl2q_u8(held, first),
                                  vqtbl2q_u8(held, vandq_u8(base, all(31))));
    uint8x16_t in_pair = vandq_u8(vqtbl2q_u8(held, second), vtstq_u8(kinds, all(PAIR)));
    return lanes_of(vorrq_u8(vorrq_u8(touched, in_pair), vtstq_u8(kinds, all(always))));
}

/* Which of four branches lead to [low, low + span), all in bytes from the group. */
static inline uint32x4_t leads_to(uint32x4_t words, uint32_t place, uint32_t low, uint32_t span) {
    static const uint32_t places[4] = {0, 4, 8, 12};
    int32x4_t by26 = vshrq_n_s32(vreinterpretq_s32_u32(vshlq_n_u32(words, 6)), 4);
    int32x4_t by19 = vshrq_n_s32(vreinterpretq_s32_u32(vshlq_n_u32(words, 8)), 11);
    int32x4_t by14 = vshrq_n_s32(vreinterpretq_s32_u32(vshlq_n_u32(words, 13)), 16);
    /* Bit 25 tells TBZ from the others with a condition, and these have bit 29 or 30. */
    uint32x4_t is14 = vtstq_u32(words, vdupq_n_u32(UINT32_C(1) << 25));
    uint32x4_t is19 = vtstq_u32(words, vdupq_n_u32(UINT32_C(3) << 29));
    int32x4_t by = vbslq_s32(is19, vbslq_s32(is14, by14, by19), by26);
    uint32x4_t whole = vbicq_u32(vreinterpretq_u32_s32(by), vdupq_n_u32(3));
    uint32x4_t from_low = vaddq_u32(whole, vaddq_u32(vld1q_u32(places), vdupq_n_u32(place - low)));
    return vcltq_u32(from_low, vdupq_n_u32(span));
}

static inline uint32x4_t words_at(const uint8_t *at) {
    return vreinterpretq_u32_u8(vld1q_u8(at));
}

/* Four vectors of masks as one of bytes. */
static inline uint8x16_t narrowed(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
    uint16x8_t ab = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    uint16x8_t cd = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
    return vuzp1q_u8(vreinterpretq_u8_u16(ab), vreinterpretq_u8_u16(cd));
}

/* Of the sixteen instructions at `at`, the branches that do not lead to [low, high), in
 * bytes from `at`. */
static inline lanes wanted_jumps(const uint8_t *at, int32_t low, int32_t high) {
    uint32_t from = (uint32_t)low, span = (uint32_t)high - (uint32_t)low;
    uint8x16_t local = narrowed(leads_to(words_at(at), 0, from, span),
                                leads_to(words_at(at + 16), 16, from, span),
                                leads_to(words_at(at + 32), 32, from, span),
                                leads_to(words_at(at + 48), 48, from, span));
    uint8x16_t kinds = kinds_of(vld4q_u8(at).val[3]);
    return lanes_of(vbicq_u8(vtstq_u8(kinds, all(JUMP)), local));
}

static inline void run(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report) {
    for (; at < end && end - at >= GROUP_BYTES; at += GROUP_BYTES) {
        const uint8_t *group = s->code + at;
        uint32_t live = (uint32_t)s->live;
        lanes jumps = 0;
        if (report) {
            uint64_t begin = s->run_off - (s->file_off + at);
            jumps = wanted_jumps(group, within_far(begin), within_far(begin + s->run_len));
        }
        lanes need = jumps | needed(group, live);
        while (need != 0) {
            unsigned lane = (unsigned)__builtin_ctzll(need); /* times 4 */
            need &= need - 1;
            if (report && jumps >> lane & 1) {
                jump(s, at + lane);
                continue;
            }
            bspi_arm64_step(s, at + lane, report);
            if ((uint32_t)s->live & ~live) { /* one more to be watched from here on */
                live = (uint32_t)s->live;
                need = (jumps | needed(group, live)) & UINT64_MAX << lane << 4;
            }
        }
    }
    for (; at < end; at += 4)
        bspi_arm64_step(s, at, report);
}

static void scan_groups(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report) {
    if (report)
        run(s, at, end, true);
    else
        run(s, at, end, false);
}

bspi_arm64_kernel bspi_arm64_neon(void) {
    return scan_groups;
}

#else

bspi_arm64_kernel bspi_arm64_neon(void) {
    return NULL;
}

#endif
