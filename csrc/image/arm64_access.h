/* arm64_access.h: the one fact about arm64 loads and stores that both the finder
 * and the reader of references need. */
#ifndef BSPI_ARM64_ACCESS_H
#define BSPI_ARM64_ACCESS_H

#include <stdint.h>

/* log2 of the bytes that a load or store with unsigned offset moves; its offset
 * counts in those.  -1 for the encodings that are unallocated. */
static inline int bspi_arm64_access_scale(uint32_t word) {
    unsigned size = word >> 30;
    unsigned opc = word >> 22 & 3;
    if (word >> 26 & 1) {
        if (opc < 2)
            return (int)size;
        return size == 0 ? 4 : -1;
    }
    return size >= 2 && opc == 3 ? -1 : (int)size;
}

#endif
