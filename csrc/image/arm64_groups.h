/* arm64_groups.h: what the kernels share that look at a group of arm64 instructions at
 * once and step over those only that matter. */
#ifndef BSPI_ARM64_GROUPS_H
#define BSPI_ARM64_GROUPS_H

#include "arm64_scan.h"

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

/* A distance, or the farthest that a branch can be said to lead. */
static inline int32_t within_far(uint64_t distance) {
    int64_t d = (int64_t)distance;
    return (int32_t)(d < -FAR ? -FAR : d > FAR ? FAR : d);
}

/* Steps over a branch at `at`: it names no register. */
static inline void jump(bspi_arm64_scan *s, uint64_t at) {
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

#endif
