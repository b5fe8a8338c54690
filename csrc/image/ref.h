/* ref.h: a reference is a field of a file that names an address.
 *
 * Each kind knows how to read the address out of its field and how to write
 * another one in.  Kinds are numbered for good: the number is part of the
 * patch format's meaning (docs/format.md), because both sides must find and
 * rewrite the same fields.
 */
#ifndef BSPI_REF_H
#define BSPI_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bspi_ref_kind {
    BSPI_REF_NONE = 0,
    /* arm64 code; the field is the 4-byte instruction word. */
    BSPI_REF_A64_B26 = 1,   /* B, BL: imm26 * 4 */
    BSPI_REF_A64_B19 = 2,   /* B.cond, BC.cond, CBZ, CBNZ: imm19 * 4 */
    BSPI_REF_A64_B14 = 3,   /* TBZ, TBNZ: imm14 * 4 */
    BSPI_REF_A64_LIT19 = 4, /* LDR/LDRSW/PRFM literal: imm19 * 4 */
    BSPI_REF_A64_ADR = 5,   /* ADR: imm21 */
    BSPI_REF_A64_ADRP = 6,  /* ADRP: page of `target`, where target is the full address its first consumer makes */
    BSPI_REF_A64_ADD12 = 7, /* ADD #imm12 fed by an ADRP; target = page + imm */
    BSPI_REF_A64_LDST12 = 8,/* LDR/STR/... unsigned offset fed by an ADRP; imm12 scaled by the access size */
    /* x86-64 code; the field is the displacement alone.  `base` is the address
     * of the next instruction, so that target = base + value. */
    BSPI_REF_X64_REL32 = 16, /* CALL, JMP, Jcc rel32 */
    BSPI_REF_X64_REL8 = 17,  /* JMP, Jcc, LOOP, JRCXZ rel8 */
    BSPI_REF_X64_RIP32 = 18, /* [rip + disp32] of every form */
    /* data */
    BSPI_REF_ABS64 = 32,     /* 8 bytes: target */
    BSPI_REF_ABS32 = 33,     /* 4 bytes: target, zero extended */
    BSPI_REF_PC32 = 34,      /* 4 bytes signed: target - address of the field */
    BSPI_REF_BASE32 = 35,    /* 4 bytes signed: target - base */
    BSPI_REF_BASE16X4 = 36,  /* 2 bytes unsigned: (target - base) / 4, arm64 jump tables */
    BSPI_REF_BASE8X4 = 37,   /* 1 byte unsigned: (target - base) / 4, arm64 jump tables */
    BSPI_REF_BASE24 = 38,    /* low 3 bytes of a word: target - base, compressed unwind entries */
    BSPI_REF_BACK32 = 40,    /* 4 bytes signed: address of the field - target, frame records to their CIE */
    BSPI_REF_INDEX16 = 42,   /* 4 bytes unsigned: (target - base) / 16, a row of a Mach-O symbol table */
    BSPI_REF_INDEX24 = 41,   /* 4 bytes unsigned: (target - base) / 24, a row of an ELF symbol table */
    BSPI_REF_FILE32 = 43,    /* 4 bytes: target - base: a file offset; the distance `base` stays as it is */
    BSPI_REF_BASE64 = 44,    /* 8 bytes: target - base */
    BSPI_REF_CHAIN64 = 48,   /* DYLD_CHAINED_PTR_64 rebase: 36-bit address, high8 and next kept */
    BSPI_REF_CHAIN64_OFFSET = 49,   /* ..._64_OFFSET rebase: 36-bit offset from the image base (`base`) */
    BSPI_REF_CHAIN_ARM64E = 50,     /* arm64e rebase: 43-bit address, high8, next 11, bind 0, auth 0 */
    BSPI_REF_CHAIN_ARM64E_AUTH = 51,/* arm64e auth rebase: 32-bit offset from `base`, diversity, key kept */
    BSPI_REF_CHAIN_BIND = 52,/* a chained bind of any format: no address; found so that `next` can be re-linked */
    BSPI_REF_CHAIN_ARM64E_OFFSET = 53,/* as CHAIN_ARM64E, but a 43-bit offset from `base` (userland formats 9 and 12) */
    BSPI_REF_CHAIN_BIND24 = 54, /* chained bind: low 24 bits: (target - base) / 4, a row of the imports table */
    BSPI_REF_CHAIN_BIND16 = 55, /* as CHAIN_BIND24, 16 bits (arm64e) */
    BSPI_REF_IMPORT23 = 56,  /* 4 bytes: target - base in the upper 23 bits: the name of a chained import */
    /* ULEB128 of a fixed number of bytes: target - base */
    BSPI_REF_ULEB1 = 57,
    BSPI_REF_ULEB2 = 58,
    BSPI_REF_ULEB3 = 59,
    BSPI_REF_ULEB4 = 60
} bspi_ref_kind;

/* One reference, resolved against the file it was found in. */
typedef struct bspi_ref {
    uint64_t off;    /* of the field, from the start of the file */
    uint64_t target; /* virtual address named; image address space */
    uint64_t base;   /* what the value counts from (see kinds); 0 where unused */
    uint8_t kind;    /* bspi_ref_kind */
    uint8_t size;    /* field size in bytes */
} bspi_ref;

#define BSPI_FIELD_MAX 8u /* no field is longer */

/* Field size in bytes of `kind`, 0 when unknown. */
unsigned bspi_ref_size(uint8_t kind);

/* Reads the address that the field `bytes` of `kind` names when it stands at
 * address `site` and counts from `base`.  For A64 ADD12 and LDST12 `base` is
 * the page (ADRP result); for ADRP the result is the page alone.  False when
 * the bytes are not such a field (e.g. another opcode). */
bool bspi_ref_read(uint8_t kind, const uint8_t *bytes, uint64_t site, uint64_t base,
                   uint64_t *target);

/* Writes `target` into the field; every bit that is not address is kept.  For
 * ADRP the page of `target` is encoded; for ADD12/LDST12 its low 12 bits.
 * False (bytes untouched) when the value does not fit or is misaligned. */
bool bspi_ref_write(uint8_t kind, uint8_t *bytes, uint64_t site, uint64_t base, uint64_t target);

/* Writes `label` (any number) into the address bits of the field, truncated to
 * their width: what the matcher sees instead of an address. */
void bspi_ref_label(uint8_t kind, uint8_t *bytes, uint64_t label);

/* A growing list that finders append to; out of memory sticks in `failed`. */
struct bspi_heap;
typedef struct bspi_ref_list {
    struct bspi_heap *heap;
    bspi_ref *items;
    size_t count;
    size_t capacity;
    bool failed;
} bspi_ref_list;

void bspi_ref_push(bspi_ref_list *list, bspi_ref ref);
/* Makes room for `extra` more; false when memory is refused. */
bool bspi_ref_reserve(bspi_ref_list *list, size_t extra);
void bspi_ref_list_free(bspi_ref_list *list);

#endif
