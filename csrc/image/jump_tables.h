/* jump_tables.h: between jump_tables.c and the finders of one instruction set
 * each.  Private to csrc/image. */
#ifndef BSPI_JUMP_TABLES_H
#define BSPI_JUMP_TABLES_H

#include "image.h"

/* More entries than any table of 8-bit ones has, and most of the wider. */
#define BSPI_JUMP_TABLE_MAX 1024u

/* A table as the code that reads it describes it. */
typedef struct bspi_jump_table {
    uint64_t addr;  /* of its first entry */
    uint64_t base;  /* what entries count from */
    uint64_t site;  /* address of the jump */
    uint32_t count; /* entries at most: from the bounds check, else the maximum */
    uint8_t kind;   /* BSPI_REF_BASE32, BASE16X4 or BASE8X4 */
    bool counted;   /* `count` comes from a bounds check */
    bool is_signed; /* BASE16X4 and BASE8X4: entries may be negative */
} bspi_jump_table;

typedef struct bspi_jump_tables {
    bspi_heap *heap;
    bspi_jump_table *items;
    size_t count;
    size_t capacity;
} bspi_jump_tables;

/* Append the tables that the code at `code` leads to; it holds `len` bytes and
 * starts at address `addr`.  Linear in len.  False when memory is refused. */
bool bspi_arm64_jump_tables(const uint8_t *code, uint64_t len, uint64_t addr,
                            bspi_jump_tables *tables);
bool bspi_x86_64_jump_tables(const uint8_t *code, uint64_t len, uint64_t addr,
                             bspi_jump_tables *tables);

#endif
