/* column.h: one description of each stream serves all its directions.
 *
 * A stream is a sequence of numbers and bytes.  A `bspi_column` carries them in
 * one of four modes: written or read, plainly (varints) or through the models.
 * The code that names the numbers (streams.c) is the same for all four, so
 * writer and reader cannot drift apart.
 */
#ifndef BSPI_COLUMN_H
#define BSPI_COLUMN_H

#include "../common/cursor.h"
#include "../entropy/byte_model.h"
#include "../entropy/int_model.h"

typedef enum bspi_column_mode {
    BSPI_WRITE_PLAIN,
    BSPI_WRITE_MODEL,
    BSPI_READ_PLAIN,
    BSPI_READ_MODEL
} bspi_column_mode;

/* Told what one symbol took, in 1/65536 bits, and of which item it speaks. */
typedef void (*bspi_spend)(void *context, uint64_t item, uint64_t price);
#define BSPI_ITEM_NONE UINT64_MAX

typedef struct bspi_column {
    bspi_column_mode mode;
    bspi_heap *heap;
    bspi_buffer *plain;    /* WRITE_PLAIN */
    bspi_encoder *encoder; /* WRITE_MODEL */
    bspi_cursor cursor;    /* READ_PLAIN */
    bspi_decoder *decoder; /* READ_MODEL */
    uint64_t plain_len;    /* READ_MODEL: the plain length declared; WRITE_*, READ_MODEL: so far */
    uint64_t plain_done;
    bspi_int_model ints;
    bspi_byte_model *bytes; /* between begin_bytes and end_bytes, in modelled modes */
    const bsp_control *control; /* asked now and then in modelled modes; NULL never */
    uint64_t steps;    /* numbers and bytes transferred */
    bsp_status status; /* the first failure sticks */
    const char *place; /* what was being transferred when it failed */
    uint64_t item;     /* the cover entry, override, fix or literal byte at hand, by number */
    bspi_spend spend;  /* WRITE_*: listens, NULL for nobody */
    void *spend_context;
    uint64_t spent;    /* by the symbols told of so far */
} bspi_column;

#define BSPI_COLUMN_CONTEXTS 60u

static inline bool bspi_column_reads(const bspi_column *column) {
    return column->mode == BSPI_READ_PLAIN || column->mode == BSPI_READ_MODEL;
}

/* Prepares the models of a modelled mode. Always pair with _close. */
void bspi_column_open(bspi_column *column, bspi_heap *heap, bspi_column_mode mode);
/* After reading: everything must have been consumed. */
bsp_status bspi_column_close(bspi_column *column, bsp_fault *fault);

/* Transfers a number in context (below BSPI_COLUMN_CONTEXTS; plain modes ignore
 * it).  False, with *value 0 when reading, once anything failed. */
bool bspi_column_u64(bspi_column *column, uint32_t context, uint64_t *value);
bool bspi_column_s64(bspi_column *column, uint32_t context, int64_t *value);

/* Bytes: begin with how many will come, then one by one. */
bool bspi_column_begin_bytes(bspi_column *column, uint32_t contexts, uint32_t selectors,
                             uint64_t count);
bool bspi_column_byte(bspi_column *column, const uint32_t *contexts, uint32_t selector,
                      uint8_t *value);
void bspi_column_end_bytes(bspi_column *column);

/* Records that what was read cannot be. */
void bspi_column_fail(bspi_column *column, bsp_status status, const char *place);

#endif
