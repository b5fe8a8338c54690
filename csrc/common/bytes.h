/* bytes.h: little-endian loads and stores without unaligned access, and sums
 * that say when they overflow.  Compilers turn each load into one instruction. */
#ifndef BSPI_BYTES_H
#define BSPI_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t bspi_load16(const uint8_t *p) {
    return (uint16_t)(p[0] | (uint16_t)(p[1] << 8));
}

static inline uint32_t bspi_load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t bspi_load64(const uint8_t *p) {
    return (uint64_t)bspi_load32(p) | (uint64_t)bspi_load32(p + 4) << 32;
}

static inline void bspi_store16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void bspi_store32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static inline void bspi_store64(uint8_t *p, uint64_t v) {
    bspi_store32(p, (uint32_t)v);
    bspi_store32(p + 4, (uint32_t)(v >> 32));
}

/* Sign-extends the low `bits` (1 to 64) of v. Two's complement, no shifts of
 * negative numbers. */
static inline int64_t bspi_sign_extend(uint64_t v, unsigned bits) {
    uint64_t sign = UINT64_C(1) << (bits - 1);
    uint64_t mask = sign | (sign - 1);
    v &= mask;
    return (int64_t)((v ^ sign) - sign);
}

/* True and *sum = a + b unless that overflows. */
static inline bool bspi_add64(uint64_t a, uint64_t b, uint64_t *sum) {
    if (a > UINT64_MAX - b)
        return false;
    *sum = a + b;
    return true;
}

/* True when [off, off + len) lies within [0, size). */
static inline bool bspi_within(uint64_t off, uint64_t len, uint64_t size) {
    return off <= size && len <= size - off;
}

/* Signed to unsigned with small magnitudes first: 0, -1, 1, -2 -> 0, 1, 2, 3. */
static inline uint64_t bspi_zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t bspi_unzigzag(uint64_t v) {
    return (int64_t)((v >> 1) ^ (v & 1 ? UINT64_MAX : 0));
}

#endif
