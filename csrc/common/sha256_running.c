/* sha256_running.c: SHA-256 of what comes in pieces, of one message or of two at once. */
#include <string.h>

#include "sha256.h"

void bsp_sha256(const uint8_t *data, size_t len, uint8_t digest[32]) {
    bspi_sha256(bspi_sha256_best(), data, len, digest);
}

int32_t bsp_sha256_pays_in_pairs(void) {
    return bspi_sha256_two() != NULL;
}

void bsp_sha256_begin(bsp_sha256_state *state) {
    memset(state, 0, sizeof *state);
    memcpy(state->words, bspi_sha256_initial, sizeof state->words);
}

/* Completes the block that was begun, as far as the data go; gives the bytes used. */
static size_t fill_rest(bsp_sha256_state *state, bspi_sha256_compress *compress,
                        const uint8_t *data, size_t len) {
    size_t held = (size_t)(state->len % BSPI_SHA256_BLOCK);
    if (held == 0)
        return 0;
    size_t used = BSPI_SHA256_BLOCK - held;
    if (used > len)
        used = len;
    if (used != 0)
        memcpy(state->rest + held, data, used);
    state->len += used;
    if (held + used == BSPI_SHA256_BLOCK)
        compress(state->words, state->rest, 1);
    return used;
}

/* Keeps what is less than a block, of a state between blocks. */
static void keep_rest(bsp_sha256_state *state, const uint8_t *data, size_t len) {
    if (len != 0)
        memcpy(state->rest, data, len);
    state->len += len;
}

void bsp_sha256_update(bsp_sha256_state *state, const uint8_t *data, size_t len) {
    bspi_sha256_compress *compress = bspi_sha256_best();
    size_t at = fill_rest(state, compress, data, len);
    size_t blocks = (len - at) / BSPI_SHA256_BLOCK;
    if (blocks != 0) {
        compress(state->words, data + at, blocks);
        state->len += blocks * BSPI_SHA256_BLOCK;
        at += blocks * BSPI_SHA256_BLOCK;
    }
    if (at < len)
        keep_rest(state, data + at, len - at);
}

void bsp_sha256_update_two(bsp_sha256_state *first, const uint8_t *first_data,
                           bsp_sha256_state *second, const uint8_t *second_data, size_t len) {
    bspi_sha256_compress_two *two = bspi_sha256_two();
    size_t whole = 0;
    if (two != NULL && (first->len | second->len) % BSPI_SHA256_BLOCK == 0) {
        size_t blocks = len / BSPI_SHA256_BLOCK;
        if (blocks != 0)
            two(first->words, first_data, second->words, second_data, blocks);
        whole = blocks * BSPI_SHA256_BLOCK;
        first->len += whole;
        second->len += whole;
    }
    if (whole < len) {
        bsp_sha256_update(first, first_data + whole, len - whole);
        bsp_sha256_update(second, second_data + whole, len - whole);
    }
}

void bsp_sha256_digest(const bsp_sha256_state *state, uint8_t digest[32]) {
    uint32_t words[8];
    memcpy(words, state->words, sizeof words);
    bspi_sha256_end(bspi_sha256_best(), words, state->rest, state->len, digest);
}
