/* streams.h: what the streams' code shares: layout, contexts of byte streams,
 * the walk over literal runs. */
#ifndef BSPI_STREAMS_H
#define BSPI_STREAMS_H

#include "column.h"
#include "content.h"

/* Number of significant bits of value, 0 for 0. */
unsigned bspi_size_class(uint64_t value);
bool bspi_column_count(bspi_column *column, uint64_t least, uint64_t *count);
void bspi_transfer_layout(bspi_column *column, bspi_content *content, const bspi_file *old);

/* --- byte corrections --- */

#define BSPI_FIX_CONTEXTS 6u
#define BSPI_FIX_SELECTORS 16u

typedef struct bspi_fix_history {
    size_t cover;       /* entry that held the last fix, or the next one */
    uint64_t last_off;  /* of the last fix, plus 1 */
    uint32_t last;      /* the last diffs, newest in the low byte */
} bspi_fix_history;

/* Fills the context hashes for a fix at new_off; returns the mixer selector. */
uint32_t bspi_fix_contexts(bspi_fix_history *history, const bspi_content *content,
                           const bspi_file *old, uint64_t new_off, uint32_t *contexts);
void bspi_fix_learn(bspi_fix_history *history, uint64_t new_off, uint8_t diff);

/* --- literals --- */

#define BSPI_LITERAL_CONTEXTS 8u
#define BSPI_LITERAL_SELECTORS 8u

/* A maximal run of bytes that neither cover nor fills give. Start from zero. */
typedef struct bspi_literal_run {
    size_t cover;     /* the entry behind the run */
    size_t fill;      /* the fill not before the run */
    uint64_t new_off;
    uint64_t len;
    uint64_t next;    /* where to look for the following run */
} bspi_literal_run;

bool bspi_next_literal_run(const bspi_content *content, bspi_literal_run *run);
/* Sum of all runs' lengths. */
uint64_t bspi_literal_total(const bspi_content *content);

typedef struct bspi_literal_history {
    uint64_t recent;     /* the last eight bytes, newest in the low byte */
    uint64_t older;      /* the eight before them */
    uint64_t new_off;
    const uint8_t *like; /* old bytes on the diagonal of the run before */
    uint64_t like_len;
    bool code;
} bspi_literal_history;

void bspi_literal_begin(bspi_literal_history *history, const bspi_content *content,
                        const bspi_file *old, const bspi_literal_run *run);
uint32_t bspi_literal_contexts(const bspi_literal_history *history, uint32_t *contexts);
void bspi_literal_learn(bspi_literal_history *history, uint8_t byte);

#endif
