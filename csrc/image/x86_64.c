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

#ifndef WARM_UP
#define WARM_UP UINT64_C(1024)
#endif
#define MAX_LENGTH 15u
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
    bool legacy;  /* any that must not stand before VEX, EVEX or XOP */
} prefixes;

/* The length of the ModRM byte with SIB and displacement; *rip is set when the
 * displacement counts from the next instruction. */
static unsigned modrm_length(const uint8_t *modrm, bool *rip) {
    unsigned mod = modrm[0] >> 6;
    unsigned rm = modrm[0] & 7;
    if (mod == 3)
        return 1;
    unsigned sib = rm == 4;
    if (mod == 0) {
        *rip = rm == 5;
        bool disp32 = *rip || (sib && (modrm[1] & 7) == 5);
        return 1 + sib + (disp32 ? 4 : 0);
    }
    return 1 + sib + (mod == 1 ? 1 : 4);
}

/* The bytes of immediate that the parts of an opcode ask for. */
static unsigned immediate_length(unsigned parts, const prefixes *pre) {
    unsigned length = (parts & BSPI_X64_BYTE ? 1u : 0u) + (parts & BSPI_X64_WORD ? 2u : 0u) +
                      (parts & BSPI_X64_LONG ? 4u : 0u);
    if (parts & BSPI_X64_SIZED)
        length += pre->size && !pre->wide ? 2 : 4;
    return length;
}

/* The parts of an opcode of the VEX, EVEX or XOP map, or UNDEFINED. */
static unsigned vector_parts(unsigned map, unsigned opcode) {
    const unsigned undefined = BSPI_X64_OTHER | BSPI_X64_UNDEFINED;
    switch (map) {
    case 1:
        if (bspi_x64_two_byte[opcode] & (BSPI_X64_OTHER | BSPI_X64_JUMP))
            return opcode >> 4 == 9 ? BSPI_X64_MODRM : undefined;
        return bspi_x64_two_byte[opcode];
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
        return undefined;
    }
}

/* The parts of an opcode whose ModRM byte has a say in them. */
static unsigned group_parts(unsigned opcode, uint8_t modrm) {
    const unsigned undefined = BSPI_X64_OTHER | BSPI_X64_UNDEFINED;
    unsigned reg = modrm >> 3 & 7;
    unsigned immediate = opcode & 1 ? BSPI_X64_SIZED : BSPI_X64_BYTE;
    switch (opcode) {
    case 0xC6:
    case 0xC7:
        if (modrm == 0xF8)
            return opcode == 0xC7 ? BSPI_X64_MODRM | BSPI_X64_LONG | BSPI_X64_JUMP
                                  : BSPI_X64_MODRM | BSPI_X64_BYTE;
        return reg == 0 ? BSPI_X64_MODRM | immediate : undefined;
    case 0xF6:
    case 0xF7:
        return reg < 2 ? BSPI_X64_MODRM | immediate : BSPI_X64_MODRM;
    case 0xFE:
        return reg < 2 ? BSPI_X64_MODRM : undefined;
    default: /* 0xFF; the far forms have no register operand */
        if (reg == 7 || (modrm >= 0xC0 && (reg == 3 || reg == 5)))
            return undefined;
        return BSPI_X64_MODRM;
    }
}

/* Measures the instruction at `p`, of which READ_AHEAD bytes can be read; false
 * when there is none. */
static bool measure(const uint8_t *p, instruction *out) {
    prefixes pre = {false, false, false, false};
    unsigned at = 0;
    unsigned opcode = p[at++];
    unsigned parts = bspi_x64_one_byte[opcode];
    unsigned extra = 0; /* immediate bytes that no part stands for */

    if ((parts & ~3u) == (BSPI_X64_OTHER | BSPI_X64_REX)) {
        pre.wide = opcode >> 3 & 1;
        opcode = p[at++];
        parts = bspi_x64_one_byte[opcode];
    }
    /* Each round is a prefix, an escape or a special opcode, whose last leaves. */
    while (parts & BSPI_X64_OTHER) {
        switch (parts & ~BSPI_X64_OTHER) {
        case BSPI_X64_PREFIX:
        case BSPI_X64_SIZE:
        case BSPI_X64_ADDRESS:
        case BSPI_X64_REX:
            pre.legacy = true;
            pre.size |= opcode == 0x66;
            pre.address |= opcode == 0x67;
            pre.wide = opcode >> 3 == 9; /* REX counts where it stands last */
            if (at >= MAX_LENGTH)
                return false;
            opcode = p[at++];
            parts = bspi_x64_one_byte[opcode];
            continue;
        case BSPI_X64_ESCAPE:
            opcode = p[at++];
            if (opcode == 0x38 || opcode == 0x3A) {
                parts = opcode == 0x38 ? m : mb;
                at++;
            } else {
                parts = bspi_x64_two_byte[opcode];
            }
            break;
        default:
            return false;
        }
        break;
    }
    (void)extra;
    (void)out;
    return true;
}
