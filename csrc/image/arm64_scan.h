/* arm64_scan.h: one step of the scan for references in arm64 code, shared by the
 * portable kernel and by those that first sort out what needs no step.
 *
 * arm64.c says what is looked for.  A kernel may leave out an instruction that
 * names no address wanted and touches no register in `live`: stepping over it would
 * change nothing.
 */
#ifndef BSPI_ARM64_SCAN_H
#define BSPI_ARM64_SCAN_H

#include "../common/bytes.h"
#include "arm64_filter.h"

/* Instructions that an ADRP's page may be used for.  Measured on pairs of builds:
 * 64 misses 0.5 % of the consumers whose offset changed, 512 misses 0.37 %, 2048
 * 0.36 %; the scan of a block pays for two windows. */
#define BSPI_A64_WINDOW 512
#define BSPI_A64_WINDOW_BYTES (UINT64_C(4) * BSPI_A64_WINDOW)
#define BSPI_A64_SLOTS 64 /* 32 registers, and 32 that take the writes nobody cares about */

/* How to step over an instruction.  The low three bits are the kind of reference
 * that it is by itself (A64_B26 to A64_LIT19), or 0. */
#define BSPI_A64_KIND 7u
#define BSPI_A64_CONSUMER 8u /* completes an ADRP when its base register holds one */
#define BSPI_A64_CALL 16u    /* clobbers as a call does */
#define BSPI_A64_KEEP 32u    /* does not write the register in its low five bits */
#define BSPI_A64_LOOK 64u    /* needs bspi_arm64_look */

/* x0 to x17, which a call may change, and x30, which it does change. */
#define BSPI_A64_CALL_CHANGES UINT32_C(0x4003FFFF)

/* What is known of the registers.  All positions are offsets into the section,
 * so that nothing depends on where the scan began. */
typedef struct bspi_arm64_scan {
    const uint8_t *code;
    uint64_t addr;
    uint64_t file_off;
    bspi_ref_list *refs;
    uint64_t run_off; /* file offset of a run; branches from it into it are left out */
    uint64_t run_len; /* 0 for none */
    uint64_t last_call; /* end of the last call */
    uint64_t live;      /* at least the slots whose page is usable, a bit each */
    uint64_t waiting;   /* of these, those whose ADRP waits for a consumer; others too */
    uint64_t page[BSPI_A64_SLOTS];  /* an ADRP's result */
    uint64_t until[BSPI_A64_SLOTS]; /* where the page is no longer usable; 0 when unknown */
    size_t item[BSPI_A64_SLOTS];    /* the ref of an ADRP that waits */
} bspi_arm64_scan;

/* Steps over the instructions at [at, end), at least those that matter.  Their refs
 * are appended if `report`; there is room for one each and one more.  All kernels
 * find the same. */
typedef void (*bspi_arm64_kernel)(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report);
void bspi_arm64_plainly(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report);
/* The kernels with vectors, NULL where the processor lacks them. */
bspi_arm64_kernel bspi_arm64_avx2(void);
bspi_arm64_kernel bspi_arm64_neon(void);

/* bspi_arm64_refs_but with a kernel of choice; without `filter` (NULL) nothing is left
 * out. */
void bspi_arm64_refs_by(bspi_arm64_kernel kernel, const uint8_t *code, uint64_t code_len,
                        uint64_t begin, uint64_t end, uint64_t addr, uint64_t file_off,
                        const bspi_ref_filter *filter, bspi_ref_list *refs);

extern const uint8_t bspi_arm64_classes[256];
extern const uint8_t bspi_arm64_plans[][4];

/* What the plan alone cannot say. */
void bspi_arm64_look(bspi_arm64_scan *s, uint64_t at, uint32_t word, bool report);
/* Pairs the consumer at `at` with the ADRP in its base register, if it is one. */
void bspi_arm64_consume(bspi_arm64_scan *s, uint64_t at, uint32_t word, bool report);

/* Where the number of a kind up to A64_LIT19 lies in its instruction. */
typedef struct bspi_arm64_immediate {
    uint32_t mask;
    uint32_t sign;
    uint32_t shift;
} bspi_arm64_immediate;

/* Steps over the instruction at `at`.  Code is hard to foresee for a processor: the
 * common ways have no branch. */
static inline void bspi_arm64_step(bspi_arm64_scan *s, uint64_t at, bool report) {
    static const bspi_arm64_immediate immediates[BSPI_A64_KIND + 1] = {
        [BSPI_REF_A64_B26] = {0x3FFFFFF, 0x2000000, 0},
        [BSPI_REF_A64_B19] = {0x7FFFF, 0x40000, 5},
        [BSPI_REF_A64_B14] = {0x3FFF, 0x2000, 5},
        [BSPI_REF_A64_LIT19] = {0x7FFFF, 0x40000, 5},
    };
    uint32_t word = bspi_load32(s->code + at);
    unsigned plan = bspi_arm64_plans[bspi_arm64_classes[word >> 24]][word >> 22 & 3];
    unsigned base = word >> 5 & 31, slot = (word & 31) | (plan & BSPI_A64_KEEP);
    unsigned usable = at < s->until[base];
    if (usable & plan >> 3)
        bspi_arm64_consume(s, at, word, report);
    s->until[slot] = 0;
    s->live &= ~((uint64_t)(usable ^ 1) << base | UINT64_C(1) << slot);
    if (report) {
        unsigned kind = plan & BSPI_A64_KIND;
        bspi_arm64_immediate imm = immediates[kind];
        uint64_t number = word >> imm.shift & imm.mask;
        number = ((number ^ imm.sign) - imm.sign) << 2;
        uint64_t off = s->file_off + at;
        bspi_ref ref = {off, s->addr + at + number, 0, (uint8_t)kind, 4};
        s->refs->items[s->refs->count] = ref;
        s->refs->count += (kind != 0) & (off + number - s->run_off >= s->run_len);
    }
    s->last_call = plan & BSPI_A64_CALL ? at + 4 : s->last_call;
    s->live &= plan & BSPI_A64_CALL ? ~(uint64_t)BSPI_A64_CALL_CHANGES : UINT64_MAX;
    if (plan & BSPI_A64_LOOK)
        bspi_arm64_look(s, at, word, report);
}

#endif
