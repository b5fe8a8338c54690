/* logistic.h: between probabilities and the logistic domain, where evidence adds.
 *
 * stretch(p) = ln(p / (1 - p)) in 1/128, squash its inverse; tables and linear
 * interpolation between whole numbers only, so every machine gives the same. */
#ifndef BSPI_LOGISTIC_H
#define BSPI_LOGISTIC_H

#include "../common/memory.h"

/* Stretched values lie in [-BSPI_STRETCH_MAX, BSPI_STRETCH_MAX]: 11 times 128. */
#define BSPI_STRETCH_MAX 1408

typedef struct bspi_logistic {
    int16_t stretch[4096];                     /* by p >> 4 */
    uint16_t squash[2 * BSPI_STRETCH_MAX + 1]; /* by x + BSPI_STRETCH_MAX */
} bspi_logistic;

void bspi_logistic_init(bspi_logistic *tables);

static inline int32_t bspi_stretch(const bspi_logistic *tables, uint32_t p) {
    return tables->stretch[p >> 4];
}

/* x is clamped; the result is 1 to 65535. */
static inline uint32_t bspi_squash(const bspi_logistic *tables, int32_t x) {
    if (x > BSPI_STRETCH_MAX)
        x = BSPI_STRETCH_MAX;
    if (x < -BSPI_STRETCH_MAX)
        x = -BSPI_STRETCH_MAX;
    return tables->squash[x + BSPI_STRETCH_MAX];
}

/* v / 2^shift rounded down, also below zero. */
static inline int32_t bspi_shift_down(int32_t v, unsigned shift) {
    _Static_assert(-3 >> 1 == -2, "C leaves it to the compiler, and all do the same");
    return v >> shift;
}

#endif
