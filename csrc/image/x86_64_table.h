/* x86_64_table.h: what follows the opcode byte of an x86-64 instruction, for
 * the one-byte and the 0F opcode map.  The other maps are uniform. */
#ifndef BSPI_X86_64_TABLE_H
#define BSPI_X86_64_TABLE_H

#include <stdint.h>

/* Parts of an instruction; an opcode's entry is a sum of them. */
#define BSPI_X64_MODRM 0x01u
#define BSPI_X64_BYTE 0x02u  /* 1-byte immediate */
#define BSPI_X64_WORD 0x04u  /* 2-byte immediate */
#define BSPI_X64_SIZED 0x08u /* immediate of 4 bytes, or 2 by operand size */
#define BSPI_X64_LONG 0x10u  /* 4-byte immediate */
#define BSPI_X64_JUMP 0x20u  /* the immediate is relative to the next instruction */
#define BSPI_X64_OTHER 0x40u /* the low bits are a bspi_x64_other instead */

/* Opcodes whose length takes more than the sum of parts. */
typedef enum bspi_x64_other {
    BSPI_X64_UNDEFINED = 0,
    BSPI_X64_PREFIX = 1,  /* segment, lock, repeat: no effect on length */
    BSPI_X64_SIZE = 2,    /* 66 */
    BSPI_X64_ADDRESS = 3, /* 67 */
    BSPI_X64_REX = 4,
    BSPI_X64_ESCAPE = 5, /* 0F */
    BSPI_X64_VEX2 = 6,
    BSPI_X64_VEX3 = 7,
    BSPI_X64_EVEX = 8,
    BSPI_X64_XOP = 9,    /* 8F: POP, or an XOP prefix */
    BSPI_X64_MOFFS = 10, /* A0 to A3: an address in full */
    BSPI_X64_MOV = 11,   /* B8 to BF: immediate of the operand's full size */
    BSPI_X64_ENTER = 12, /* 2-byte and 1-byte immediate */
    BSPI_X64_GROUP = 13  /* depends on the ModRM byte: immediate, or undefined */
} bspi_x64_other;

/* Short names for the tables below. */
enum {
    n = 0,
    m = BSPI_X64_MODRM,
    mb = BSPI_X64_MODRM | BSPI_X64_BYTE,
    mz = BSPI_X64_MODRM | BSPI_X64_SIZED,
    b = BSPI_X64_BYTE,
    w = BSPI_X64_WORD,
    z = BSPI_X64_SIZED,
    j1 = BSPI_X64_JUMP | BSPI_X64_BYTE,
    j4 = BSPI_X64_JUMP | BSPI_X64_LONG,
    XX = BSPI_X64_OTHER | BSPI_X64_UNDEFINED,
    PF = BSPI_X64_OTHER | BSPI_X64_PREFIX,
    SZ = BSPI_X64_OTHER | BSPI_X64_SIZE,
    AD = BSPI_X64_OTHER | BSPI_X64_ADDRESS,
    RX = BSPI_X64_OTHER | BSPI_X64_REX,
    ES = BSPI_X64_OTHER | BSPI_X64_ESCAPE,
    V2 = BSPI_X64_OTHER | BSPI_X64_VEX2,
    V3 = BSPI_X64_OTHER | BSPI_X64_VEX3,
    EV = BSPI_X64_OTHER | BSPI_X64_EVEX,
    XO = BSPI_X64_OTHER | BSPI_X64_XOP,
    MO = BSPI_X64_OTHER | BSPI_X64_MOFFS,
    MI = BSPI_X64_OTHER | BSPI_X64_MOV,
    EN = BSPI_X64_OTHER | BSPI_X64_ENTER,
    GR = BSPI_X64_OTHER | BSPI_X64_GROUP
};

static const uint8_t bspi_x64_one_byte[256] = {
    m,  m,  m,  m,  b,  z,  XX, XX, m,  m,  m,  m,  b,  z,  XX, ES, /* 00 */
    m,  m,  m,  m,  b,  z,  XX, XX, m,  m,  m,  m,  b,  z,  XX, XX, /* 10 */
    m,  m,  m,  m,  b,  z,  PF, XX, m,  m,  m,  m,  b,  z,  PF, XX, /* 20 */
    m,  m,  m,  m,  b,  z,  PF, XX, m,  m,  m,  m,  b,  z,  PF, XX, /* 30 */
    RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, RX, /* 40 */
    n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  /* 50 */
    XX, XX, EV, m,  PF, PF, SZ, AD, z,  mz, b,  mb, n,  n,  n,  n,  /* 60 */
    j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, j1, /* 70 */
    mb, mz, XX, mb, m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  XO, /* 80 */
    n,  n,  n,  n,  n,  n,  n,  n,  n,  n,  XX, n,  n,  n,  n,  n,  /* 90 */
    MO, MO, MO, MO, n,  n,  n,  n,  b,  z,  n,  n,  n,  n,  n,  n,  /* A0 */
    b,  b,  b,  b,  b,  b,  b,  b,  MI, MI, MI, MI, MI, MI, MI, MI, /* B0 */
    mb, mb, w,  n,  V3, V2, GR, GR, EN, n,  w,  n,  n,  b,  XX, n,  /* C0 */
    m,  m,  m,  m,  XX, XX, XX, n,  m,  m,  m,  m,  m,  m,  m,  m,  /* D0 */
    j1, j1, j1, j1, b,  b,  b,  b,  j4, j4, XX, j1, n,  n,  n,  n,  /* E0 */
    PF, n,  PF, PF, n,  n,  GR, GR, n,  n,  n,  n,  n,  n,  GR, GR, /* F0 */
};

/* 0F 38 and 0F 3A are taken out before this table is asked. */
static const uint8_t bspi_x64_two_byte[256] = {
    m,  m,  m,  m,  XX, n,  n,  n,  n,  n,  XX, n,  XX, m,  n,  mb, /* 00 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* 10 */
    m,  m,  m,  m,  XX, XX, XX, XX, m,  m,  m,  m,  m,  m,  m,  m,  /* 20 */
    n,  n,  n,  n,  n,  n,  XX, n,  XX, XX, XX, XX, XX, XX, XX, XX, /* 30 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* 40 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* 50 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* 60 */
    mb, mb, mb, mb, m,  m,  m,  n,  m,  m,  XX, XX, m,  m,  m,  m,  /* 70 */
    j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, j4, /* 80 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* 90 */
    n,  n,  n,  m,  mb, m,  XX, XX, n,  n,  n,  m,  mb, m,  m,  m,  /* A0 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  mb, m,  m,  m,  m,  m,  /* B0 */
    m,  m,  mb, m,  mb, mb, mb, m,  n,  n,  n,  n,  n,  n,  n,  n,  /* C0 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* D0 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* E0 */
    m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  m,  /* F0 */
};

#endif
