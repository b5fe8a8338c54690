/* sha256.c: SHA-256 (FIPS 180-4): the portable path, padding and the choice of a path. */
#include "sha256.h"

#include <string.h>

const uint32_t bspi_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void store_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint32_t rotate_right(uint32_t v, unsigned n) {
    return v >> n | v << (32 - n);
}

static void compress_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (unsigned i = 0; i < 16; i++)
        w[i] = load_be32(block + 4 * i);
    for (unsigned i = 16; i < 64; i++) {
        uint32_t a = w[i - 15];
        uint32_t b = w[i - 2];
        uint32_t s0 = rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3;
        uint32_t s1 = rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (unsigned i = 0; i < 64; i++) {
        uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + bspi_sha256_k[i] + w[i];
        uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void bspi_sha256_portable(uint32_t state[8], const uint8_t *blocks, size_t count) {
    for (size_t i = 0; i < count; i++)
        compress_block(state, blocks + i * BSPI_SHA256_BLOCK);
}

bspi_sha256_compress *bspi_sha256_best(void) {
    bspi_sha256_compress *compress = bspi_sha256_x86_64();
    if (compress == NULL)
        compress = bspi_sha256_arm64();
    return compress != NULL ? compress : bspi_sha256_portable;
}

bspi_sha256_compress_two *bspi_sha256_two(void) {
    bspi_sha256_compress_two *two = bspi_sha256_two_x86_64();
    return two != NULL ? two : bspi_sha256_two_arm64();
}

const uint32_t bspi_sha256_initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Fills `tail` with the end of a message of `len` bytes: those behind its last whole
 * block, a 1 bit, zeros, and the length in bits.  Gives the number of blocks, 1 or 2. */
static size_t make_tail(const uint8_t *rest, uint64_t len, uint8_t tail[2 * BSPI_SHA256_BLOCK]) {
    memset(tail, 0, 2 * BSPI_SHA256_BLOCK);
    size_t held = (size_t)(len % BSPI_SHA256_BLOCK);
    if (held != 0)
        memcpy(tail, rest, held);
    tail[held] = 0x80;
    size_t blocks = held + 9 > BSPI_SHA256_BLOCK ? 2 : 1;
    uint64_t bits = len << 3;
    uint8_t *end = tail + blocks * BSPI_SHA256_BLOCK;
    store_be32(end - 8, (uint32_t)(bits >> 32));
    store_be32(end - 4, (uint32_t)bits);
    return blocks;
}

static void put_digest(const uint32_t state[8], uint8_t digest[BSPI_SHA256_LEN]) {
    for (unsigned i = 0; i < 8; i++)
        store_be32(digest + 4 * i, state[i]);
}

void bspi_sha256_end(bspi_sha256_compress *compress, uint32_t state[8], const uint8_t *rest,
                     uint64_t len, uint8_t digest[BSPI_SHA256_LEN]) {
    uint8_t tail[2 * BSPI_SHA256_BLOCK];
    size_t blocks = make_tail(rest, len, tail);
    compress(state, tail, blocks);
    put_digest(state, digest);
}

void bspi_sha256(bspi_sha256_compress *compress, const uint8_t *data, size_t len,
                 uint8_t digest[BSPI_SHA256_LEN]) {
    uint32_t state[8];
    memcpy(state, bspi_sha256_initial, sizeof state);
    size_t whole = len / BSPI_SHA256_BLOCK * BSPI_SHA256_BLOCK;
    if (whole != 0)
        compress(state, data, len / BSPI_SHA256_BLOCK);
    bspi_sha256_end(compress, state, whole < len ? data + whole : data, len, digest);
}

void bspi_sha256_pair(bspi_sha256_compress *compress, bspi_sha256_compress_two *two,
                      const uint8_t *first, const uint8_t *second, size_t len,
                      uint8_t first_digest[BSPI_SHA256_LEN],
                      uint8_t second_digest[BSPI_SHA256_LEN]) {
    if (two == NULL) {
        bspi_sha256(compress, first, len, first_digest);
        bspi_sha256(compress, second, len, second_digest);
        return;
    }
    uint32_t states[2][8];
    uint8_t tails[2][2 * BSPI_SHA256_BLOCK];
    memcpy(states[0], bspi_sha256_initial, sizeof bspi_sha256_initial);
    memcpy(states[1], bspi_sha256_initial, sizeof bspi_sha256_initial);
    if (len >= BSPI_SHA256_BLOCK)
        two(states[0], first, states[1], second, len / BSPI_SHA256_BLOCK);
    size_t rest = len % BSPI_SHA256_BLOCK;
    size_t blocks = make_tail(rest != 0 ? first + (len - rest) : first, len, tails[0]);
    (void)make_tail(rest != 0 ? second + (len - rest) : second, len, tails[1]); /* as many */
    two(states[0], tails[0], states[1], tails[1], blocks);
    put_digest(states[0], first_digest);
    put_digest(states[1], second_digest);
}

void bspi_sha256_pages(bspi_sha256_compress_lanes *lanes, const uint8_t *data, size_t page,
                       uint8_t digests[BSPI_SHA256_LANES][BSPI_SHA256_LEN]) {
    uint32_t states[8][BSPI_SHA256_LANES];
    uint8_t tail[2 * BSPI_SHA256_BLOCK];
    for (unsigned i = 0; i < 8; i++)
        for (unsigned lane = 0; lane < BSPI_SHA256_LANES; lane++)
            states[i][lane] = bspi_sha256_initial[i];
    lanes(states, data, page, page / BSPI_SHA256_BLOCK);
    (void)make_tail(data, page, tail); /* of one block, and the same for all */
    lanes(states, tail, 0, 1);
    for (unsigned lane = 0; lane < BSPI_SHA256_LANES; lane++)
        for (unsigned i = 0; i < 8; i++)
            store_be32(digests[lane] + 4 * i, states[i][lane]);
}
