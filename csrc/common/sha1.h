/* sha1.h: SHA-1, only to recompute the page hashes of old code signatures. */
#ifndef BSPI_SHA1_H
#define BSPI_SHA1_H

#include "status.h"

#define BSPI_SHA1_LEN 20u

/* SHA-1 of data[0, len). */
void bspi_sha1(const uint8_t *data, size_t len, uint8_t digest[BSPI_SHA1_LEN]);

#endif
