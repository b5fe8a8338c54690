/* handle.h: what stands behind a bsp_patch, for the verbs that work on one. */
#ifndef BSPI_HANDLE_H
#define BSPI_HANDLE_H

#include <pthread.h>

#include "../common/sha256.h"
#include "container.h"
#include "content.h"

#define BSPI_WALKER_POOL 64u

typedef struct bspi_placed_literals {
    uint64_t new_off;
    uint64_t len;
    uint64_t literal; /* index of the first byte in content.literals */
} bspi_placed_literals;

struct bsp_patch {
    bspi_heap heap;
    bspi_container container;
    uint64_t patch_len;
    const uint8_t *provided[BSPI_STREAM_COUNT];
    bspi_file old;
    bspi_content content;
    bspi_placed_literals *runs;
    size_t run_count;
    uint8_t **fill_bytes; /* for each fill, gathered window by window */
    bspi_sha256_compress *sha256;
    bspi_sha256_compress_two *sha256_two;     /* may be NULL */
    bspi_sha256_compress_lanes *sha256_lanes; /* may be NULL */
    const bsp_control *control; /* of the call that prepares it, while that runs */
    uint32_t jobs; /* threads for preparing */
    bool begun;    /* windows may be asked for */
    bool prepared; /* and nothing is left to decode */
    uint64_t pages_begin, pages_end; /* of the new file: here windows need the unwind pages */
    pthread_mutex_t lock; /* of all that follows, and of `prepared` */
    pthread_cond_t changed; /* one of the next two */
    uint64_t literals_ready;
    bsp_fault failed; /* what ended decoding, code 0 for nothing */
    bspi_walker *idle[BSPI_WALKER_POOL];
    unsigned idle_count;
};

#endif
