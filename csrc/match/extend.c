/* extend.c: comparing runs of bytes, exactly and with mismatches. */
#include <string.h>

#include "../common/bytes.h"
#include "match.h"

/* In units of half a byte saved: a byte that agrees earns MATCH, one that does
 * not costs MISMATCH (a correction is a position and a value); a second one
 * right behind the first is cheaper, its position is nearly free. */
#define MATCH 1
#define MISMATCH_FIRST 4
#define MISMATCH_NEXT 2
/* How far the score may fall below its best before the search gives up. */
#define DROP 48

uint64_t bspi_common_prefix(const uint8_t *a, const uint8_t *b, uint64_t max) {
    uint64_t len = 0;
    while (max - len >= 8) {
        uint64_t difference = bspi_load64(a + len) ^ bspi_load64(b + len);
        if (difference != 0)
            return len + ((uint64_t)__builtin_ctzll(difference) >> 3);
        len += 8;
    }
    while (len < max && a[len] == b[len])
        len++;
    return len;
}

uint64_t bspi_common_suffix(const uint8_t *a, const uint8_t *b, uint64_t max) {
    uint64_t len = 0;
    while (max - len >= 8) {
        uint64_t difference = bspi_load64(a - len - 8) ^ bspi_load64(b - len - 8);
        if (difference != 0)
            return len + ((uint64_t)__builtin_clzll(difference) >> 3);
        len += 8;
    }
    while (len < max && a[-(ptrdiff_t)len - 1] == b[-(ptrdiff_t)len - 1])
        len++;
    return len;
}

uint64_t bspi_extend_forward(const uint8_t *old, const uint8_t *new_, uint64_t max) {
    int64_t score = 0, best = 0;
    uint64_t len = 0, best_len = 0;
    bool missed = false;
    while (len < max) {
        uint64_t run = bspi_common_prefix(old + len, new_ + len, max - len);
        if (run != 0) {
            len += run;
            score += (int64_t)run * MATCH;
            missed = false;
            if (score > best) {
                best = score;
                best_len = len;
            }
            if (len >= max)
                break;
        }
        score -= missed ? MISMATCH_NEXT : MISMATCH_FIRST;
        missed = true;
        len++;
        if (score < best - DROP)
            break;
    }
    return best_len;
}

uint64_t bspi_extend_backward(const uint8_t *old, const uint8_t *new_, uint64_t max) {
    int64_t score = 0, best = 0;
    uint64_t len = 0, best_len = 0;
    bool missed = false;
    while (len < max) {
        uint64_t run = bspi_common_suffix(old - len, new_ - len, max - len);
        if (run != 0) {
            len += run;
            score += (int64_t)run * MATCH;
            missed = false;
            if (score > best) {
                best = score;
                best_len = len;
            }
            if (len >= max)
                break;
        }
        score -= missed ? MISMATCH_NEXT : MISMATCH_FIRST;
        missed = true;
        len++;
        if (score < best - DROP)
            break;
    }
    return best_len;
}
