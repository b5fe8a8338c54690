/* sha1.c: SHA-1 (FIPS 180-4) for the page hashes of old code signatures. */
#include "sha1.h"

#include <string.h>

#define BLOCK 64u

static uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void store_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint32_t rotate_left(uint32_t v, unsigned n) {
    return v << n | v >> (32 - n);
}

static void compress(uint32_t state[5], const uint8_t *block) {
    uint32_t w[80];
    for (unsigned i = 0; i < 16; i++)
        w[i] = load_be32(block + 4 * i);
    for (unsigned i = 16; i < 80; i++)
        w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (unsigned i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        uint32_t next = rotate_left(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void bspi_sha1(const uint8_t *data, size_t len, uint8_t digest[BSPI_SHA1_LEN]) {
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    size_t whole = len / BLOCK;
    for (size_t i = 0; i < whole; i++)
        compress(state, data + i * BLOCK);

    uint8_t tail[2 * BLOCK] = {0};
    size_t rest = len % BLOCK;
    if (rest != 0)
        memcpy(tail, data + whole * BLOCK, rest);
    tail[rest] = 0x80;
    size_t blocks = rest + 9 > BLOCK ? 2 : 1;
    uint64_t bits = (uint64_t)len << 3;
    store_be32(tail + blocks * BLOCK - 8, (uint32_t)(bits >> 32));
    store_be32(tail + blocks * BLOCK - 4, (uint32_t)bits);
    for (size_t i = 0; i < blocks; i++)
        compress(state, tail + i * BLOCK);

    for (unsigned i = 0; i < 5; i++)
        store_be32(digest + 4 * i, state[i]);
}
