/* memory.h: allocation under a budget.
 *
 * Every allocation of the core goes through a bspi_heap.  The heap refuses
 * what would exceed its budget (BSP_E_MEMLIMIT is the caller's word for it),
 * refuses sums that overflow, and can be told to fail the Nth request, which
 * is how the tests prove that every failure path gives everything back.
 * Thread safe: counters are atomic.
 */
#ifndef BSPI_MEMORY_H
#define BSPI_MEMORY_H

#include "status.h"

typedef struct bspi_heap {
    uint64_t budget;   /* bytes, 0 for no limit */
    uint64_t in_use;   /* bytes handed out and not yet given back */
    uint64_t peak;     /* the largest in_use seen */
    uint64_t requests; /* how many were made */
    uint64_t fail_at;  /* fail this request, counted from 1; 0 never */
} bspi_heap;

void bspi_heap_init(bspi_heap *heap, uint64_t budget);

/* count * size bytes, zeroed when `zero`; NULL when refused.  Zero-sized
 * requests give a valid pointer.  Give back with bspi_free. */
void *bspi_alloc(bspi_heap *heap, size_t count, size_t size, bool zero);
/* As realloc; on failure the old block stays valid.  `block` may be NULL. */
void *bspi_grow(bspi_heap *heap, void *block, size_t count, size_t size);
void bspi_free(bspi_heap *heap, void *block);
/* Asks for large pages under a block that is looked into all over. Only a hint. */
void bspi_large_pages(void *block, size_t len);

/* NOMEM or MEMLIMIT, whichever the last refusal of this heap was, recorded in
 * *fault with `place`. */
bsp_status bspi_nomem(const bspi_heap *heap, bsp_fault *fault, const char *place);

/* A growing array of bytes. Zero-initialise with the heap set. */
typedef struct bspi_buffer {
    bspi_heap *heap;
    uint8_t *data;
    size_t len;
    size_t capacity;
} bspi_buffer;

/* Makes room for `extra` more bytes; false when memory is refused. */
bool bspi_buffer_reserve(bspi_buffer *buffer, size_t extra);
bool bspi_buffer_put(bspi_buffer *buffer, const void *data, size_t len);
/* LEB128 as in docs/format.md. */
bool bspi_buffer_put_varint(bspi_buffer *buffer, uint64_t value);
void bspi_buffer_free(bspi_buffer *buffer);

/* BSPI_PUSH(array, count, capacity, heap, item): appends to a typed array,
 * doubling it; evaluates to false when memory is refused. */
#define BSPI_ENSURE(array, count, capacity, heap) \
    ((count) < (capacity) || bspi_ensure((heap), (void **)&(array), &(capacity), sizeof *(array)))
bool bspi_ensure(bspi_heap *heap, void **array, size_t *capacity, size_t size);

#endif
