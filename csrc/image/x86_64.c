/* x86_64.c: finds the references in x86-64 code: relative branches and
 * RIP-relative operands, by measuring one instruction after the other.
 *
 * Nothing marks where instructions begin, but a sweep that starts in the middle
 * of one falls into step after a few.  So a piece [begin, end) is swept from
 * WARM_UP bytes before it, and owns the fields that start within it, whichever
 * instruction they belong to.  A byte that begins no instruction is skipped.
 */
#include "../common/bytes.h"
#include "image.h"
#include "x86_64_table.h"

/* Of 2.8 million references of real code, pieces of 1,000 bytes lose 30 to 400 with 64
 * bytes, 2 with 256 and none to one with 1,024. */
#define WARM_UP UINT64_C(1024)
#define MAX_LENGTH 15u
#define UNDEFINED ((unsigned)BSPI_X64_OTHER | BSPI_X64_UNDEFINED)
#define PREFIX_FIRST ((unsigned)BSPI_X64_OTHER | BSPI_X64_PREFIX)
#define PREFIX_LAST ((unsigned)BSPI_X64_OTHER | BSPI_X64_REX)
#define READ_AHEAD 32u /* no decoding looks at more bytes than this */

typedef struct instruction {
    uint8_t length;
    uint8_t field; /* offset of the displacement that is a reference */
    uint8_t kind;  /* of that reference, BSPI_REF_NONE without one */
} instruction;

/* What the prefixes said. */
typedef struct prefixes {
    bool size;    /* 66 */
    bool address; /* 67 */
    bool wide;    /* REX.W */
    bool no_vex;  /* any that must not stand before VEX, EVEX or XOP */
} prefixes;

/* Bytes that a ModRM byte stands for with its SIB and displacement, but for the
 * displacement that SIB may add when mod is 0. */
static const uint8_t modrm_lengths[256 / 64][8] = {
    {1, 1, 1, 1, 2, 5, 1, 1},
    {2, 2, 2, 2, 3, 2, 2, 2},
    {5, 5, 5, 5, 6, 5, 5, 5},
    {1, 1, 1, 1, 1, 1, 1, 1},
};

/* The length of the ModRM byte at `p` with all that belongs to it. */
static inline unsigned modrm_length(const uint8_t *p) {
    unsigned bare = (p[0] & 0xC7) == 4 && (p[1] & 7) == 5;
    return modrm_lengths[p[0] >> 6][p[0] & 7] + 4 * bare;
}

/* The bytes of immediate that the parts of an opcode ask for. */
static inline unsigned immediate_length(unsigned parts, const prefixes *pre) {
    unsigned sized = pre->size && !pre->wide ? 2 : 4;
    return (parts & BSPI_X64_BYTE) / BSPI_X64_BYTE +
           (parts & BSPI_X64_WORD) / BSPI_X64_WORD * 2 +
           (parts & BSPI_X64_SIZED) / BSPI_X64_SIZED * sized +
           (parts & BSPI_X64_LONG) / BSPI_X64_LONG * 4;
}

/* The parts of an opcode of a VEX, EVEX or XOP map. */
static unsigned vector_parts(unsigned map, unsigned opcode) {
    unsigned parts;
    switch (map) {
    case 1:
        if (opcode >> 4 == 9) /* SETcc to the two-byte map, mask moves here */
            return BSPI_X64_MODRM;
        parts = bspi_x64_two_byte[opcode];
        return parts & BSPI_X64_MODRM || opcode == 0x77 ? parts : UNDEFINED;
    case 2:
    case 5: /* half precision */
    case 6:
    case 9: /* XOP */
        return BSPI_X64_MODRM;
    case 3:
    case 8: /* XOP */
        return BSPI_X64_MODRM | BSPI_X64_BYTE;
    case 10: /* XOP */
        return BSPI_X64_MODRM | BSPI_X64_LONG;
    default:
        return UNDEFINED;
    }
}

/* The parts of an opcode whose ModRM byte has a say in them. */
static unsigned group_parts(unsigned opcode, uint8_t modrm) {
    unsigned reg = modrm >> 3 & 7;
    unsigned immediate = opcode & 1 ? BSPI_X64_SIZED : BSPI_X64_BYTE;
    switch (opcode) {
    case 0xC6:
    case 0xC7:
        if (modrm == 0xF8)
            return opcode == 0xC7 ? BSPI_X64_MODRM | BSPI_X64_LONG | BSPI_X64_JUMP
                                  : BSPI_X64_MODRM | BSPI_X64_BYTE;
        return reg == 0 ? BSPI_X64_MODRM | immediate : UNDEFINED;
    case 0xF6:
    case 0xF7:
        return reg < 2 ? BSPI_X64_MODRM | immediate : BSPI_X64_MODRM;
    case 0xFE:
        return reg < 2 ? BSPI_X64_MODRM : UNDEFINED;
    default: /* 0xFF; the far forms have no register operand */
        if (reg == 7 || (modrm >= 0xC0 && (reg == 3 || reg == 5)))
            return UNDEFINED;
        return BSPI_X64_MODRM;
    }
}

/* The parts of an opcode of the OTHER kind.  *at is behind the opcode byte and
 * is left behind the last one; *extra is for immediates that no part stands for. */
static inline unsigned other_parts(const uint8_t *p, unsigned *at, const prefixes *pre,
                                   unsigned *extra) {
    const uint8_t *next = p + *at;
    unsigned opcode = next[-1];
    switch (bspi_x64_one_byte[opcode] & ~BSPI_X64_OTHER) {
    case BSPI_X64_ESCAPE:
        *at += next[0] == 0x38 || next[0] == 0x3A ? 2 : 1;
        if (next[0] == 0x38)
            return BSPI_X64_MODRM;
        if (next[0] == 0x3A)
            return BSPI_X64_MODRM | BSPI_X64_BYTE;
        return bspi_x64_two_byte[next[0]];
    case BSPI_X64_VEX2:
        *at += 2;
        return pre->no_vex ? UNDEFINED : vector_parts(1, next[1]);
    case BSPI_X64_VEX3:
        *at += 3;
        return pre->no_vex || (next[0] & 31) > 3 ? UNDEFINED
                                                 : vector_parts(next[0] & 31, next[2]);
    case BSPI_X64_EVEX:
        *at += 4;
        if (pre->no_vex || next[0] & 8 || !(next[1] & 4))
            return UNDEFINED;
        return vector_parts(next[0] & 7, next[3]);
    case BSPI_X64_XOP:
        if ((next[0] & 31) < 8)
            return next[0] >> 3 & 7 ? UNDEFINED : BSPI_X64_MODRM; /* POP is /0 */
        *at += 3;
        return pre->no_vex ? UNDEFINED : vector_parts(next[0] & 31, next[2]);
    case BSPI_X64_MOFFS:
        *extra = pre->address ? 4 : 8;
        return 0;
    case BSPI_X64_MOV:
        *extra = pre->wide ? 8 : pre->size ? 2 : 4;
        return 0;
    case BSPI_X64_ENTER:
        return BSPI_X64_WORD | BSPI_X64_BYTE;
    case BSPI_X64_GROUP:
        return group_parts(opcode, next[0]);
    default:
        return UNDEFINED;
    }
}

/* Measures the instruction at `p`, of which READ_AHEAD bytes can be read; false
 * when there is none.  The common forms (REX at most, one or two opcode bytes)
 * go straight through. */
static inline bool measure(const uint8_t *p, instruction *out) {
    unsigned rex = p[0] >> 4 == 4;
    prefixes pre = {false, false, p[0] >> 3 == 9, rex};
    unsigned at = rex + 1;
    unsigned opcode = p[rex];
    unsigned parts = bspi_x64_one_byte[opcode];
    while (parts >= PREFIX_FIRST && parts <= PREFIX_LAST) {
        pre.size |= opcode == 0x66;
        pre.address |= opcode == 0x67;
        pre.wide = opcode >> 3 == 9; /* REX counts right before the opcode only */
        pre.no_vex |= parts == PREFIX_LAST || opcode == 0x66 || opcode >= 0xF0;
        if (at == MAX_LENGTH)
            return false;
        opcode = p[at++];
        parts = bspi_x64_one_byte[opcode];
    }
    unsigned extra = 0;
    if (parts & BSPI_X64_OTHER) {
        parts = other_parts(p, &at, &pre, &extra);
        if (parts & BSPI_X64_OTHER)
            return false;
    }
    unsigned modrm = parts & BSPI_X64_MODRM;
    bool rip = modrm && (p[at] & 0xC7) == 5;
    unsigned field = at + 1;
    at += modrm * modrm_length(p + at);
    unsigned immediate = immediate_length(parts, &pre) + extra;
    unsigned kind = rip ? BSPI_REF_X64_RIP32 : BSPI_REF_NONE;
    if (parts & BSPI_X64_JUMP) {
        field = at;
        kind = immediate == 1 ? BSPI_REF_X64_REL8 : BSPI_REF_X64_REL32;
    }
    *out = (instruction){(uint8_t)(at + immediate), (uint8_t)field, (uint8_t)kind};
    return at + immediate <= MAX_LENGTH;
}

/* As measure(), for what most instructions are: REX or nothing, an opcode of one byte or of
 * two behind 0F, whose length is the sum of its parts; false for all others.  Its branches
 * are foreseen often enough: without them each length waits for the one before, and two
 * sweeps at once are no faster than one with them. */
static inline bool measure_common(const uint8_t *p, instruction *out) {
    const prefixes none = {0};
    unsigned at = p[0] >> 4 == 4;
    unsigned parts = bspi_x64_one_byte[p[at++]];
    if (parts == ((unsigned)BSPI_X64_OTHER | BSPI_X64_ESCAPE))
        parts = bspi_x64_two_byte[p[at++]];
    if (parts & BSPI_X64_OTHER)
        return false;
    unsigned field = at + 1, immediate = immediate_length(parts, &none);
    uint8_t kind = BSPI_REF_NONE;
    if (parts & BSPI_X64_MODRM) {
        kind = (p[at] & 0xC7) == 5 ? BSPI_REF_X64_RIP32 : BSPI_REF_NONE;
        at += modrm_length(p + at);
    } else if (parts & BSPI_X64_JUMP) {
        field = at;
        kind = immediate == 1 ? BSPI_REF_X64_REL8 : BSPI_REF_X64_REL32;
    }
    *out = (instruction){(uint8_t)(at + immediate), (uint8_t)field, kind};
    return true;
}

/* Measures the instruction at `at` of the code.  Where there is none, it counts
 * as one byte without a reference. */
static inline instruction measure_at(const uint8_t *code, uint64_t code_len, uint64_t at) {
    const instruction skip = {1, 0, BSPI_REF_NONE};
    instruction found;
    uint64_t left = code_len - at;
    if (left >= READ_AHEAD)
        return measure(code + at, &found) ? found : skip;
    uint8_t padded[READ_AHEAD] = {0};
    memcpy(padded, code + at, (size_t)left);
    return measure(padded, &found) && found.length <= left ? found : skip;
}

/* Whether a sweep from `at` comes upon the reference field at `field`. */
static bool sweep_finds(const uint8_t *code, uint64_t code_len, uint64_t at, uint64_t field,
                        uint8_t kind) {
    while (at < field) {
        instruction found = measure_at(code, code_len, at);
        if (found.kind == kind && at + found.field == field)
            return true;
        at += found.length;
    }
    return false;
}

static void emit(bspi_ref_list *refs, bspi_ref ref) {
    if (refs->count < refs->capacity)
        refs->items[refs->count++] = ref;
    else
        bspi_ref_push(refs, ref);
}

void bspi_x86_64_refs_within(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                             uint64_t from, uint64_t to, uint64_t addr, uint64_t file_off,
                             bspi_ref_list *refs) {
    uint64_t at = begin - BSPI_MIN(begin, WARM_UP);
    while (at < to) {
        instruction found;
        if (code_len - at < READ_AHEAD || !measure_common(code + at, &found))
            found = measure_at(code, code_len, at);
        uint64_t field = at + found.field;
        uint64_t next = at + found.length;
        uint8_t size = found.kind == BSPI_REF_X64_REL8 ? 1 : 4;
        if (found.kind != BSPI_REF_NONE && field >= from && field < to) {
            uint64_t base = addr + next;
            uint64_t value = size == 1 ? (uint64_t)bspi_sign_extend(code[field], 8)
                                       : (uint64_t)bspi_sign_extend(bspi_load32(code + field), 32);
            bspi_ref ref = {file_off + field, base + value, base, found.kind, size};
            /* The sweep of the next piece starts elsewhere.  What reaches into
             * its bytes counts only when it will see the same. */
            if (field + size <= end ||
                sweep_finds(code, code_len, end - BSPI_MIN(end, WARM_UP), field, found.kind))
                emit(refs, ref);
        }
        at = next;
    }
}

void bspi_x86_64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                      uint64_t addr, uint64_t file_off, bspi_ref_list *refs) {
    bspi_x86_64_refs_within(code, code_len, begin, end, begin, end, addr, file_off, refs);
}
