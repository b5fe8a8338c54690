/* byte_bits.c: the bits of a byte, coded by any machine; the oracle of the other ways. */
#include "byte_bits.h"

static ALWAYS_INLINE int32_t weigh(const int32_t inputs[INPUTS], const int32_t *weights) {
    int32_t sum = 0;
    for (unsigned i = 0; i < INPUTS; i++)
        sum += inputs[i] * weights[i];
    return sum;
}

/* Moves each weight by its input times the error over 2^shift, rounded. */
static ALWAYS_INLINE void learn_weights(const int32_t inputs[INPUTS], int32_t *weights,
                                        int32_t error, unsigned shift) {
    for (unsigned i = 0; i < INPUTS; i++) {
        int32_t step = bspi_shift_down(inputs[i] * error + (1 << (shift - 1)), shift);
        weights[i] = BSPI_MAX(BSPI_MIN(weights[i] + step, WEIGHT_MAX), -WEIGHT_MAX);
    }
}

/* behind them: */
#include "byte_code.h"

uint32_t bspi_byte_bits_plainly(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                uint8_t byte) {
    return code_any(model, pass, mode, byte);
}
