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
#define BSPI_LITERAL_SELECTORS 16u

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
    uint64_t recent;     /* the last eight bytes of the new file, newest in the low byte */
    uint64_t new_off;    /* of the group being coded */
    uint64_t left;       /* bytes of the run from it on */
    const uint8_t *like; /* old bytes on the diagonal of the run before */
    uint64_t like_len;
    uint32_t prefix;     /* bytes of the group coded so far, newest in the low byte */
    uint32_t last_place; /* the last group of four, as coded */
    uint8_t done;        /* how many */
    uint8_t group;       /* bytes coded together: 4 for an instruction word, else 1 */
    uint8_t arch;        /* of the code that the run begins in (bspi_arch) */
} bspi_literal_history;

void bspi_literal_begin(bspi_literal_history *history, const bspi_content *content,
                        const bspi_file *old, const bspi_literal_run *run);
/* Begins the next group; its length.  Its bytes are those of a number, the
 * highest first, and follow one by one: contexts, learn. */
unsigned bspi_literal_group(bspi_literal_history *history);
/* The number that stands for the group's bytes in the file. */
uint32_t bspi_literal_coded(const bspi_literal_history *history, const uint8_t *bytes);
/* The other way round. */
void bspi_literal_decoded(const bspi_literal_history *history, uint32_t number, uint8_t *bytes);
uint32_t bspi_literal_contexts(const bspi_literal_history *history, uint32_t *contexts);
void bspi_literal_learn(bspi_literal_history *history, uint8_t byte);

#endif
