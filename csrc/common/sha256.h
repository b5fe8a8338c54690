/* sha256.h: SHA-256 for page hashes, digest trees, and of two files at once.
 *
 * The portable compression function is the oracle; the others must agree with
 * it on every input.  There is no hidden state: whoever hashes much asks
 * bspi_sha256_best once and passes the answer along.
 */
#ifndef BSPI_SHA256_H
#define BSPI_SHA256_H

#include "status.h"

#define BSPI_SHA256_LEN 32u
#define BSPI_SHA256_BLOCK 64u

/* Mixes `count` blocks of 64 bytes into the state. */
typedef void bspi_sha256_compress(uint32_t state[8], const uint8_t *blocks, size_t count);

bspi_sha256_compress bspi_sha256_portable;

/* The round constants, for the other paths, and the state to begin with. */
extern const uint32_t bspi_sha256_k[64];
extern const uint32_t bspi_sha256_initial[8];

/* The hardware path of this machine, or NULL when there is none. */
bspi_sha256_compress *bspi_sha256_x86_64(void);
bspi_sha256_compress *bspi_sha256_arm64(void);

/* The same for two messages at once: while one waits for its last round, the other
 * goes on.  NULL where that is no gain. */
typedef void bspi_sha256_compress_two(uint32_t first[8], const uint8_t *first_blocks,
                                      uint32_t second[8], const uint8_t *second_blocks,
                                      size_t count);
bspi_sha256_compress_two *bspi_sha256_two(void);
bspi_sha256_compress_two *bspi_sha256_two_x86_64(void);
bspi_sha256_compress_two *bspi_sha256_two_arm64(void);

/* The same for sixteen messages, of which number i begins at data + i * stride: states
 * word by word, with the messages side by side.  NULL where that is no gain. */
#define BSPI_SHA256_LANES 16u
typedef void bspi_sha256_compress_lanes(uint32_t states[8][BSPI_SHA256_LANES],
                                        const uint8_t *data, size_t stride, size_t count);
bspi_sha256_compress_lanes *bspi_sha256_lanes(void);

/* The fastest path of this machine.  Asks the processor: call it once, not
 * once a page. */
bspi_sha256_compress *bspi_sha256_best(void);

/* SHA-256 of first[0, len) and second[0, len); `two` may be NULL. */
void bspi_sha256_pair(bspi_sha256_compress *compress, bspi_sha256_compress_two *two,
                      const uint8_t *first, const uint8_t *second, size_t len,
                      uint8_t first_digest[BSPI_SHA256_LEN],
                      uint8_t second_digest[BSPI_SHA256_LEN]);

/* SHA-256 of sixteen pages of `page` bytes, a multiple of a block, one behind the other. */
void bspi_sha256_pages(bspi_sha256_compress_lanes *lanes, const uint8_t *data, size_t page,
                       uint8_t digests[BSPI_SHA256_LANES][BSPI_SHA256_LEN]);

/* Ends a message of `len` bytes, whose last len % 64 are `rest`; the others are in
 * `state`, which is used up. */
void bspi_sha256_end(bspi_sha256_compress *compress, uint32_t state[8], const uint8_t *rest,
                     uint64_t len, uint8_t digest[BSPI_SHA256_LEN]);

/* SHA-256 of data[0, len) by the given path. */
void bspi_sha256(bspi_sha256_compress *compress, const uint8_t *data, size_t len,
                 uint8_t digest[BSPI_SHA256_LEN]);

#endif
