/* arm64.c: finds the references in arm64 code: branches, literals, ADR, and the
 * two halves of an address that ADRP and a consumer make.
 *
 * A consumer (ADD #imm, or a load or store with unsigned offset) is paired with
 * the ADRP that last wrote its base register in program order, at most WINDOW
 * instructions before it, unless something in between overwrote the register.
 * Program order is not execution order: a wrong pair costs bytes, nothing else.
 * As an instruction's refs depend on the WINDOW instructions on each side and
 * nothing beyond, a section may be scanned in pieces with the same result.
 */
#include "../common/bytes.h"
#include "arm64_access.h"
#include "image.h"

/* Instructions that an ADRP's page may be used for.  Measured on pairs of builds:
 * 64 misses 0.5 % of the consumers whose offset changed, 512 misses 0.37 %, 2048
 * 0.36 %; the scan of a block pays for two windows. */
#define WINDOW 512
#define WINDOW_BYTES (UINT64_C(4) * WINDOW)
#define CHUNK_BYTES UINT64_C(4096) /* room in the list is checked once for so much code */
#define PAGE_MASK UINT64_C(0xfff)
#define REG_SLOTS 64 /* 32 registers, and 32 that take the writes nobody cares about */
#define NO_REG 32u
#define NO_ITEM SIZE_MAX

/* What to do with an instruction, by its top byte. */
enum {
    N = 0, /* writes no general register, names no address */
    A,     /* ADD immediate, 64 bits */
    B,     /* B */
    C,     /* BL */
    D,     /* writes Rd */
    F,     /* SIMD arithmetic, of which some moves write Rd */
    G,     /* load or store of a pair */
    J,     /* B.cond, BC.cond, CBZ, CBNZ */
    K,     /* ADCS and its like write Rd, CCMP and CCMN write flags */
    L,     /* load literal */
    M,     /* load or store with any other way of addressing */
    P,     /* ADR, ADRP */
    R,     /* BR, BLR, RET and their authenticated forms */
    S,     /* system */
    T,     /* TBZ, TBNZ */
    U,     /* load or store with unsigned offset */
    V,     /* SIMD structure load or store */
    X      /* exclusive, ordered, compare and swap */
};

static const uint8_t classes[256] = {
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, F, N, /* 00 */
    P, D, D, D, B, B, B, B, L, M, D, D, L, N, F, N, /* 10 */
    N, N, N, N, N, N, N, N, G, G, D, D, G, G, N, N, /* 20 */
    P, D, D, D, J, J, T, T, M, U, K, D, M, U, N, N, /* 30 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, F, N, /* 40 */
    P, D, D, D, J, N, N, N, L, M, D, D, L, N, N, N, /* 50 */
    N, N, N, N, N, N, N, N, G, G, D, D, G, G, N, N, /* 60 */
    P, D, D, D, N, N, N, N, M, U, K, D, M, U, N, N, /* 70 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, N, N, /* 80 */
    P, A, D, D, C, C, C, C, L, M, D, D, L, N, F, N, /* 90 */
    N, N, N, N, N, N, N, N, G, G, D, D, G, G, N, N, /* A0 */
    P, D, D, D, J, J, T, T, M, U, K, D, M, U, N, N, /* B0 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, N, N, /* C0 */
    P, D, D, D, N, S, R, R, L, M, D, D, N, N, N, N, /* D0 */
    N, N, N, N, N, N, N, N, G, G, D, D, G, G, N, N, /* E0 */
    P, D, D, D, N, N, N, N, M, U, K, D, M, U, N, N, /* F0 */
};

/* How to step over an instruction, by its top ten bits.  The low three bits are
 * the kind of reference that it is by itself (A64_B26 to A64_LIT19), or 0. */
#define PLAN_COUNT 1024u
#define PLAN_KIND 7u
#define PLAN_CONSUMER 8u /* completes an ADRP when its base register holds one */
#define PLAN_CALL 16u    /* clobbers as a call does */
#define PLAN_KEEP NO_REG /* does not write the register in its low five bits */
#define PLAN_LOOK 64u    /* needs look_closer */

/* Where the number of a kind up to A64_LIT19 lies in its instruction. */
typedef struct immediate {
    uint32_t mask;
    uint32_t sign;
    uint32_t shift;
} immediate;

static const immediate immediates[PLAN_KIND + 1] = {
    [BSPI_REF_A64_B26] = {0x3FFFFFF, 0x2000000, 0},
    [BSPI_REF_A64_B19] = {0x7FFFF, 0x40000, 5},
    [BSPI_REF_A64_B14] = {0x3FFF, 0x2000, 5},
    [BSPI_REF_A64_LIT19] = {0x7FFFF, 0x40000, 5},
};

/* What is known of the registers.  All positions are offsets into the section,
 * so that nothing depends on where the scan began. */
typedef struct scan {
    const uint8_t *code;
    uint64_t addr;
    uint64_t file_off;
    bspi_ref_list *refs;
    uint64_t last_call;        /* end of the last call */
    uint64_t page[REG_SLOTS];  /* an ADRP's result */
    uint64_t until[REG_SLOTS]; /* where the page is no longer usable; 0 when unknown */
    size_t item[REG_SLOTS];    /* the ADRP's ref while it waits for a consumer */
    uint8_t plans[PLAN_COUNT];
} scan;

/* True when a load or store of a single register puts something in Rt. */
static bool loads_register(uint32_t word) {
    unsigned opc = word >> 22 & 3;
    if (word >> 26 & 1)
        return false;
    return opc != 0 && !(opc == 2 && word >> 30 == 3); /* not a store, not PRFM */
}

/* The plan for instructions that start with the ten bits on top of `word`. */
static uint8_t plan_of(uint32_t word) {
    switch (classes[word >> 24]) {
    case A:
        return (word >> 22 & 3) == 0 ? PLAN_CONSUMER : 0;
    case B:
        return PLAN_KEEP | BSPI_REF_A64_B26;
    case C:
        return PLAN_KEEP | PLAN_CALL | BSPI_REF_A64_B26;
    case D:
        return 0;
    case G: {
        bool load = (word >> 26 & 1) == 0 && (word >> 22 & 1);
        bool write_back = word >> 23 & 1;
        return load || write_back ? PLAN_KEEP | PLAN_LOOK : PLAN_KEEP;
    }
    case J:
        return PLAN_KEEP | BSPI_REF_A64_B19;
    case K:
        return word >> 22 & 1 ? PLAN_KEEP : 0;
    case L:
        if (word >> 26 & 1 || word >> 30 == 3)
            return PLAN_KEEP | BSPI_REF_A64_LIT19;
        return BSPI_REF_A64_LIT19;
    case T:
        return PLAN_KEEP | BSPI_REF_A64_B14;
    case U:
        if (bspi_arm64_access_scale(word) < 0)
            return PLAN_KEEP;
        return loads_register(word) ? PLAN_CONSUMER : PLAN_CONSUMER | PLAN_KEEP;
    case F:
    case M:
    case P:
    case R:
    case S:
    case V:
    case X:
        return PLAN_KEEP | PLAN_LOOK;
    default:
        return PLAN_KEEP;
    }
}

static void forget(scan *s, unsigned reg) {
    s->until[reg] = 0;
}

/* SIMD arithmetic writes a general register in forms of FMOV, FCVT*, UMOV and
 * SMOV. */
static void simd(scan *s, uint32_t word) {
    bool writes = false;
    if ((word & 0x5F20FC00) == 0x1E200000) {
        unsigned opcode = word >> 16 & 7;
        writes = (opcode & 2) == 0 || opcode == 6;
    } else if ((word & 0x5F200000) == 0x1E000000) {
        writes = (word >> 16 & 6) == 0;
    } else {
        writes = (word & 0xBFE0FC00) == 0x0E003C00 || (word & 0xBFE0FC00) == 0x0E002C00;
    }
    if (writes)
        forget(s, word & 31);
}

/* Loads of x19 to x28 from the stack end a function; what the registers held
 * before is what code placed behind the return still finds in them. */
static bool restores_callee_saved(uint32_t word) {
    unsigned rt = word & 31;
    return (word >> 5 & 31) == 31 && rt >= 19 && rt <= 28;
}

static void pair_registers(scan *s, uint32_t word) {
    if ((word >> 26 & 1) == 0 && (word >> 22 & 1) && !restores_callee_saved(word)) {
        forget(s, word & 31);
        forget(s, word >> 10 & 31);
    }
    if (word >> 23 & 1)
        forget(s, word >> 5 & 31);
}

static void other_addressing(scan *s, uint32_t word) {
    unsigned mode = word >> 10 & 3;
    bool register_or_atomic = (word >> 28 & 3) == 3 && (word >> 21 & 1);
    bool write_back = false;
    bool writes = loads_register(word);
    if ((word >> 28 & 3) != 3) {
        /* Ordered loads with offset, memory tags: nothing else to see. */
    } else if (register_or_atomic) {
        if (mode != 2)
            writes = (word >> 26 & 1) == 0; /* atomics, authenticated loads */
        write_back = (mode & 1) && (word >> 11 & 1);
    } else {
        write_back = mode & 1;
        if (mode == 1 && restores_callee_saved(word))
            writes = false;
    }
    if (writes)
        forget(s, word & 31);
    if (write_back)
        forget(s, word >> 5 & 31);
}

static void exclusive(scan *s, uint32_t word) {
    if (word >> 22 & 1)
        forget(s, word & 31);
    /* Status, compared or second register; 31 where the form has none. */
    forget(s, word >> 16 & 31);
    forget(s, word >> 10 & 31);
}

/* Appends a ref; room for it was made beforehand. */
static void emit(const scan *s, uint64_t at, uint8_t kind, uint64_t base, uint64_t target) {
    bspi_ref ref = {s->file_off + at, target, base, kind, 4};
    s->refs->items[s->refs->count++] = ref;
}

static void page_address(scan *s, uint64_t at, uint32_t word, bool report) {
    uint64_t site = s->addr + at;
    uint64_t imm = (word >> 3 & 0x1FFFFC) | (word >> 29 & 3);
    uint64_t value = (uint64_t)bspi_sign_extend(imm, 21);
    unsigned rd = word & 31;
    if (word >> 31 == 0) {
        if (report)
            emit(s, at, BSPI_REF_A64_ADR, 0, site + value);
        forget(s, rd);
        return;
    }
    uint64_t page = (site & ~PAGE_MASK) + (value << 12);
    s->item[rd] = NO_ITEM;
    if (report) {
        s->item[rd] = s->refs->count;
        emit(s, at, BSPI_REF_A64_ADRP, 0, page);
    }
    s->page[rd] = page;
    /* Register 31 is XZR here and SP in a consumer. */
    s->until[rd] = rd == 31 ? 0 : at + 4 + WINDOW_BYTES;
}

/* Pairs the consumer at `at` with the ADRP in its base register, if it is one. */
static void consume(scan *s, uint64_t at, uint32_t word, bool report) {
    unsigned reg = word >> 5 & 31;
    /* A call may change x0 to x17 and does change x30. */
    if ((reg <= 17 || reg == 30) && s->until[reg] - WINDOW_BYTES <= s->last_call)
        return;
    bool add = word >> 24 == 0x91;
    uint64_t low = (word >> 10 & PAGE_MASK) << (add ? 0 : bspi_arm64_access_scale(word));
    if (low > PAGE_MASK)
        return;
    uint64_t page = s->page[reg];
    if (report)
        emit(s, at, add ? BSPI_REF_A64_ADD12 : BSPI_REF_A64_LDST12, page, page + low);
    if (s->item[reg] != NO_ITEM) {
        s->refs->items[s->item[reg]].target = page + low;
        s->item[reg] = NO_ITEM;
    }
}

/* What the plan alone cannot say. */
static void look_closer(scan *s, uint64_t at, uint32_t word, bool report) {
    switch (classes[word >> 24]) {
    case F:
        simd(s, word);
        break;
    case G:
        pair_registers(s, word);
        break;
    case M:
        other_addressing(s, word);
        break;
    case P:
        page_address(s, at, word, report);
        break;
    case R:
        if ((word >> 21 & 3) == 1) /* BLR and its like */
            s->last_call = at + 4;
        break;
    case S:
        if (word >> 21 & 1) /* MRS, SYSL */
            forget(s, word & 31);
        break;
    case V:
        if (word >> 23 & 1)
            forget(s, word >> 5 & 31);
        break;
    case X:
        exclusive(s, word);
        break;
    default:
        break;
    }
}

/* Steps over the instruction at `at`; its refs are appended if `report`.  Code
 * is hard to foresee for a processor: the common ways have no branch. */
static inline void step(scan *s, uint64_t at, bool report) {
    uint32_t word = bspi_load32(s->code + at);
    unsigned plan = s->plans[word >> 22];
    if ((unsigned)(at < s->until[word >> 5 & 31]) & plan >> 3)
        consume(s, at, word, report);
    s->until[(word & 31) | (plan & PLAN_KEEP)] = 0;
    if (report) {
        unsigned kind = plan & PLAN_KIND;
        immediate imm = immediates[kind];
        uint64_t number = word >> imm.shift & imm.mask;
        number = (number ^ imm.sign) - imm.sign;
        bspi_ref ref = {s->file_off + at, s->addr + at + (number << 2), 0, (uint8_t)kind, 4};
        s->refs->items[s->refs->count] = ref;
        s->refs->count += kind != 0;
    }
    s->last_call = plan & PLAN_CALL ? at + 4 : s->last_call;
    if (plan & PLAN_LOOK)
        look_closer(s, at, word, report);
}

void bspi_arm64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                     uint64_t addr, uint64_t file_off, bspi_ref_list *refs) {
    scan s = {.code = code, .addr = addr, .file_off = file_off, .refs = refs};
    for (uint32_t i = 0; i < PLAN_COUNT; i++)
        s.plans[i] = plan_of(i << 22);
    for (unsigned reg = 0; reg < REG_SLOTS; reg++)
        s.item[reg] = NO_ITEM;

    /* Instructions stand at multiples of four in memory. */
    uint64_t phase = (0 - addr) & 3;
    uint64_t at = BSPI_MAX(begin, phase);
    at += (phase - at) & 3;
    uint64_t first = at;
    for (at -= BSPI_MIN(first - phase, WINDOW_BYTES); at < first && at + 4 <= code_len; at += 4)
        step(&s, at, false);
    while (at < end && at + 4 <= code_len) {
        if (!bspi_ref_reserve(refs, CHUNK_BYTES / 4 + 1)) /* one is written beyond the last */
            return;
        uint64_t chunk_end = BSPI_MIN(end, at + CHUNK_BYTES);
        for (; at < chunk_end && at + 4 <= code_len; at += 4)
            step(&s, at, true);
    }
    /* The ADRPs at the end may find their first consumer behind it. */
    uint64_t last = at + WINDOW_BYTES;
    for (; at < last && at + 4 <= code_len; at += 4)
        step(&s, at, false);
}
