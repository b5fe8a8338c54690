/* arm64.c: finds the references in arm64 code: branches, literals, ADR, and the
 * two halves of an address that ADRP and a consumer make.
 *
 * A consumer (ADD #imm, or a load or store with unsigned offset) is paired with
 * the ADRP that last wrote its base register in program order, at most
 * BSPI_A64_WINDOW instructions before it, unless something in between overwrote the
 * register.
 * Program order is not execution order: a wrong pair costs bytes, nothing else.
 * As an instruction's refs depend on as many instructions on each side and
 * nothing beyond, a section may be scanned in pieces with the same result.
 *
 * Steps are taken by a kernel (arm64_scan.h): here is the portable one, which steps
 * over each instruction and which the others are tested against.
 */
#include "../common/bytes.h"
#include "arm64_access.h"
#include "arm64_scan.h"

#define CHUNK_BYTES UINT64_C(4096) /* room in the list is checked once for so much code */
#define TAIL_BYTES UINT64_C(64)    /* whether any ADRP still waits is checked as often */
#define PAGE_MASK UINT64_C(0xfff)

/* What to do with an instruction, by its top byte. */
enum {
    N = 0, /* writes no general register, names no address */
    A,     /* ADD immediate, 64 bits */
    B,     /* B */
    C,     /* BL */
    D,     /* writes Rd */
    F,     /* SIMD arithmetic, of which some moves write Rd */
    G,     /* load or store of a pair of general registers */
    H,     /* load or store of a pair of SIMD registers */
    I,     /* load literal into a SIMD register, prefetch literal */
    J,     /* B.cond, BC.cond, CBZ, CBNZ */
    K,     /* ADCS and its like write Rd, CCMP and CCMN write flags */
    L,     /* load literal into a general register */
    M,     /* load or store with any other way of addressing */
    P,     /* ADR, ADRP */
    R,     /* BR, BLR, RET and their authenticated forms */
    S,     /* system */
    T,     /* TBZ, TBNZ */
    U,     /* load or store with unsigned offset, of one or two bytes */
    O,     /* ... of four */
    Y,     /* ... of eight, PRFM */
    W,     /* ... of one or sixteen bytes of a SIMD register */
    Z,     /* ... of two, four or eight */
    V,     /* SIMD structure load or store */
    X,     /* exclusive, ordered, compare and swap */
    CLASSES
};

const uint8_t bspi_arm64_classes[256] = {
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, F, N, /* 00 */
    P, D, D, D, B, B, B, B, L, M, D, D, I, N, F, N, /* 10 */
    N, N, N, N, N, N, N, N, G, G, D, D, H, H, N, N, /* 20 */
    P, D, D, D, J, J, T, T, M, U, K, D, M, W, N, N, /* 30 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, F, N, /* 40 */
    P, D, D, D, J, N, N, N, L, M, D, D, I, N, N, N, /* 50 */
    N, N, N, N, N, N, N, N, G, G, D, D, H, H, N, N, /* 60 */
    P, D, D, D, N, N, N, N, M, U, K, D, M, Z, N, N, /* 70 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, N, N, /* 80 */
    P, A, D, D, C, C, C, C, L, M, D, D, I, N, F, N, /* 90 */
    N, N, N, N, N, N, N, N, G, G, D, D, H, H, N, N, /* A0 */
    P, D, D, D, J, J, T, T, M, O, K, D, M, Z, N, N, /* B0 */
    N, N, N, N, N, N, N, N, X, X, D, D, V, V, N, N, /* C0 */
    P, D, D, D, N, S, R, R, I, M, D, D, N, N, N, N, /* D0 */
    N, N, N, N, N, N, N, N, G, G, D, D, H, H, N, N, /* E0 */
    P, D, D, D, N, N, N, N, M, Y, K, D, M, Z, N, N, /* F0 */
};

#define CONS BSPI_A64_CONSUMER
#define KEEP BSPI_A64_KEEP
#define LOOK (BSPI_A64_KEEP | BSPI_A64_LOOK)
#define SAME(plan) {(plan), (plan), (plan), (plan)}

/* The plan by the class and by bits 23 and 22.  Where an access has no scale
 * (bspi_arm64_access_scale) it is no consumer, and stores write no register. */
const uint8_t bspi_arm64_plans[CLASSES][4] = {
    [N] = SAME(KEEP),
    [A] = {CONS, 0, 0, 0},
    [B] = SAME(KEEP | BSPI_REF_A64_B26),
    [C] = SAME(KEEP | BSPI_A64_CALL | BSPI_REF_A64_B26),
    [D] = SAME(0),
    [F] = SAME(LOOK),
    [G] = {KEEP, LOOK, LOOK, LOOK}, /* a load, or it writes its base back */
    [H] = {KEEP, KEEP, LOOK, LOOK},
    [I] = SAME(KEEP | BSPI_REF_A64_LIT19),
    [J] = SAME(KEEP | BSPI_REF_A64_B19),
    [K] = {0, KEEP, 0, KEEP},
    [L] = SAME(BSPI_REF_A64_LIT19),
    [M] = SAME(LOOK),
    [P] = SAME(LOOK),
    [R] = SAME(LOOK),
    [S] = SAME(LOOK),
    [T] = SAME(KEEP | BSPI_REF_A64_B14),
    [U] = {CONS | KEEP, CONS, CONS, CONS},
    [O] = {CONS | KEEP, CONS, CONS, KEEP},
    [Y] = {CONS | KEEP, CONS, CONS | KEEP, KEEP},
    [W] = SAME(CONS | KEEP),
    [Z] = {CONS | KEEP, CONS | KEEP, KEEP, KEEP},
    [V] = SAME(LOOK),
    [X] = SAME(LOOK),
};

/* True when a load or store of a single register puts something in Rt. */
static bool loads_register(uint32_t word) {
    unsigned opc = word >> 22 & 3;
    if (word >> 26 & 1)
        return false;
    return opc != 0 && !(opc == 2 && word >> 30 == 3); /* not a store, not PRFM */
}

static void forget(bspi_arm64_scan *s, unsigned reg) {
    s->until[reg] = 0;
    s->live &= ~(UINT64_C(1) << reg);
}

/* SIMD arithmetic writes a general register in forms of FMOV, FCVT*, UMOV and
 * SMOV. */
static void simd(bspi_arm64_scan *s, uint32_t word) {
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

static void pair_registers(bspi_arm64_scan *s, uint32_t word) {
    if ((word >> 26 & 1) == 0 && (word >> 22 & 1) && !restores_callee_saved(word)) {
        forget(s, word & 31);
        forget(s, word >> 10 & 31);
    }
    if (word >> 23 & 1)
        forget(s, word >> 5 & 31);
}

static void other_addressing(bspi_arm64_scan *s, uint32_t word) {
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

static void exclusive(bspi_arm64_scan *s, uint32_t word) {
    if (word >> 22 & 1)
        forget(s, word & 31);
    /* Status, compared or second register; 31 where the form has none. */
    forget(s, word >> 16 & 31);
    forget(s, word >> 10 & 31);
}

/* Appends a ref; room for it was made beforehand. */
static void emit(const bspi_arm64_scan *s, uint64_t at, uint8_t kind, uint64_t base,
                 uint64_t target) {
    bspi_ref ref = {s->file_off + at, target, base, kind, 4};
    s->refs->items[s->refs->count++] = ref;
}

static void page_address(bspi_arm64_scan *s, uint64_t at, uint32_t word, bool report) {
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
    uint64_t slot = UINT64_C(1) << rd;
    s->waiting &= ~slot;
    if (report) {
        s->item[rd] = s->refs->count;
        emit(s, at, BSPI_REF_A64_ADRP, 0, page);
    }
    if (rd == 31) /* XZR here, and SP in a consumer */
        return;
    s->page[rd] = page;
    s->until[rd] = at + 4 + BSPI_A64_WINDOW_BYTES;
    s->live |= slot;
    if (report)
        s->waiting |= slot;
}

void bspi_arm64_consume(bspi_arm64_scan *s, uint64_t at, uint32_t word, bool report) {
    unsigned reg = word >> 5 & 31;
    if (BSPI_A64_CALL_CHANGES >> reg & 1 && s->until[reg] - BSPI_A64_WINDOW_BYTES <= s->last_call)
        return;
    bool add = word >> 24 == 0x91;
    uint64_t low = (word >> 10 & PAGE_MASK) << (add ? 0 : bspi_arm64_access_scale(word));
    if (low > PAGE_MASK)
        return;
    uint64_t page = s->page[reg];
    if (report)
        emit(s, at, add ? BSPI_REF_A64_ADD12 : BSPI_REF_A64_LDST12, page, page + low);
    if (s->waiting >> reg & 1) {
        s->refs->items[s->item[reg]].target = page + low;
        s->waiting &= ~(UINT64_C(1) << reg);
    }
}

void bspi_arm64_look(bspi_arm64_scan *s, uint64_t at, uint32_t word, bool report) {
    switch (bspi_arm64_classes[word >> 24]) {
    case F:
        simd(s, word);
        break;
    case G:
    case H:
        pair_registers(s, word);
        break;
    case M:
        other_addressing(s, word);
        break;
    case P:
        page_address(s, at, word, report);
        break;
    case R:
        if ((word >> 21 & 3) == 1) { /* BLR and its like */
            s->last_call = at + 4;
            s->live &= ~(uint64_t)BSPI_A64_CALL_CHANGES;
        }
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

void bspi_arm64_plainly(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report) {
    if (report)
        for (; at < end; at += 4)
            bspi_arm64_step(s, at, true);
    else
        for (; at < end; at += 4)
            bspi_arm64_step(s, at, false);
}

/* Scans [at, end) and reports: what the filter keeps by a step without a run. */
static void report(bspi_arm64_scan *s, bspi_arm64_kernel kernel, uint64_t at, uint64_t end,
                   const bspi_ref_filter *filter, size_t *kept) {
    uint64_t run_len = s->run_len;
    while (filter != NULL && *kept < filter->kept_count &&
           filter->kept[*kept] < s->file_off + end) {
        uint64_t off = filter->kept[(*kept)++];
        if (off < s->file_off + at || ((off - s->file_off - at) & 3) != 0)
            continue; /* in no instruction, or in its middle */
        uint64_t here = off - s->file_off;
        kernel(s, at, here, true);
        s->run_len = 0;
        bspi_arm64_step(s, here, true);
        s->run_len = run_len;
        at = here + 4;
    }
    kernel(s, at, end, true);
}

void bspi_arm64_refs_by(bspi_arm64_kernel kernel, const uint8_t *code, uint64_t code_len,
                        uint64_t begin, uint64_t end, uint64_t addr, uint64_t file_off,
                        const bspi_ref_filter *filter, bspi_ref_list *refs) {
    bspi_arm64_scan s = {.code = code, .addr = addr, .file_off = file_off, .refs = refs};
    size_t kept = 0;
    if (filter != NULL) {
        s.run_off = filter->run_off;
        s.run_len = filter->run_len;
    }
    /* Instructions stand at multiples of four in memory. */
    uint64_t phase = (0 - addr) & 3;
    uint64_t at = BSPI_MAX(begin, phase);
    at += (phase - at) & 3;
    if (at >= code_len || code_len - at < 4)
        return;
    uint64_t code_end = code_len - ((code_len - at) & 3); /* of whole instructions */
    kernel(&s, at - BSPI_MIN(at - phase, BSPI_A64_WINDOW_BYTES), at, false);
    end = BSPI_MIN(end, code_end);
    while (at < end) {
        if (!bspi_ref_reserve(refs, CHUNK_BYTES / 4 + 1)) /* one is written beyond the last */
            return;
        uint64_t chunk_end = BSPI_MIN(at + CHUNK_BYTES, end + ((at - end) & 3));
        report(&s, kernel, at, chunk_end, filter, &kept);
        at = chunk_end;
    }
    /* The ADRPs at the end may find their first consumer behind it. */
    uint64_t last = BSPI_MIN(at + BSPI_A64_WINDOW_BYTES, code_end);
    while (at < last && (s.live &= s.waiting) != 0) {
        uint64_t stop = BSPI_MIN(at + TAIL_BYTES, last);
        kernel(&s, at, stop, false);
        at = stop;
    }
}

void bspi_arm64_refs_but(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                         uint64_t addr, uint64_t file_off, const bspi_ref_filter *filter,
                         bspi_ref_list *refs) {
    bspi_arm64_kernel quick = bspi_arm64_avx2();
    if (quick == NULL)
        quick = bspi_arm64_neon();
    bspi_arm64_refs_by(quick != NULL ? quick : bspi_arm64_plainly, code, code_len, begin, end,
                       addr, file_off, filter, refs);
}

void bspi_arm64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                     uint64_t addr, uint64_t file_off, bspi_ref_list *refs) {
    bspi_arm64_refs_but(code, code_len, begin, end, addr, file_off, NULL, refs);
}
