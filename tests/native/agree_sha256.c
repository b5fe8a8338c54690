/* agree_sha256.c: SHA-256 by one message, by two and by sixteen at once. */
#include "agree.h"

#include <string.h>

#include "../../csrc/common/sha256.h"

#define MOST 5000u

static uint8_t data[2 * MOST + 64];

static void expect(const char *path, size_t len, const uint8_t *wanted, const uint8_t *got) {
    if (memcmp(wanted, got, BSPI_SHA256_LEN) != 0)
        DIFFER("SHA-256, %s, %zu bytes", path, len);
}

/* Also where state and blocks are those of a message under way. */
static void states(bspi_sha256_compress *path, bspi_sha256_compress_two *two) {
    dice d = {UINT64_C(0x57A7E)};
    for (unsigned round = 0; round < 300; round++) {
        uint32_t plain[2][8], got[2][8];
        size_t blocks = (size_t)pick(&d, 20), skew = (size_t)pick(&d, 17);
        for (unsigned i = 0; i < 16; i++)
            plain[i / 8][i % 8] = round < 4 ? 0 - (uint32_t)(round & 1) : (uint32_t)roll(&d);
        memcpy(got, plain, sizeof got);
        bspi_sha256_portable(plain[0], data + skew, blocks);
        bspi_sha256_portable(plain[1], data + MOST - skew, blocks);
        if (path != NULL) {
            uint32_t one[8];
            memcpy(one, got[0], sizeof one);
            path(one, data + skew, blocks);
            if (memcmp(one, plain[0], sizeof one) != 0)
                DIFFER("SHA-256, state after %zu blocks", blocks);
        }
        if (two == NULL)
            continue;
        two(got[0], data + skew, got[1], data + MOST - skew, blocks);
        if (memcmp(got, plain, sizeof got) != 0)
            DIFFER("SHA-256 of two, states after %zu blocks", blocks);
    }
}

void agree_sha256(void) {
    bspi_sha256_compress *path = bspi_sha256_best();
    bspi_sha256_compress_two *two = bspi_sha256_two();
    bspi_sha256_compress_lanes *lanes = bspi_sha256_lanes();
    if (path == bspi_sha256_portable)
        printf("SHA-256: this processor has no instructions for it\n");
    dice d = {UINT64_C(0x54A)};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)roll(&d);
    uint8_t wanted[BSPI_SHA256_LANES][BSPI_SHA256_LEN], got[BSPI_SHA256_LANES][BSPI_SHA256_LEN];
    for (size_t len = 0; len <= MOST; len += len < 300 ? 1 : 47) {
        const uint8_t *first = data + len % 16, *second = data + MOST + len % 7;
        bspi_sha256(bspi_sha256_portable, first, len, wanted[0]);
        bspi_sha256(bspi_sha256_portable, second, len, wanted[1]);
        bspi_sha256(path, first, len, got[0]);
        expect("one", len, wanted[0], got[0]);
        bspi_sha256_pair(path, two, first, second, len, got[0], got[1]);
        expect("first of two", len, wanted[0], got[0]);
        expect("second of two", len, wanted[1], got[1]);
    }
    states(path, two);
    for (size_t page = BSPI_SHA256_BLOCK; lanes != NULL && page <= 512; page *= 2) {
        bspi_sha256_pages(lanes, data + 1, page, got);
        for (unsigned i = 0; i < BSPI_SHA256_LANES; i++) {
            bspi_sha256(bspi_sha256_portable, data + 1 + i * page, page, wanted[i]);
            expect("sixteen", page, wanted[i], got[i]);
        }
    }
    printf("SHA-256: one message%s%s%s\n", path == bspi_sha256_portable ? ", portable" : "",
           two != NULL ? ", two" : "", lanes != NULL ? ", sixteen" : "");
}
