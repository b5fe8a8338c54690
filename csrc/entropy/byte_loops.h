/* byte_loops.h: the eight bits of a byte, one after the other.
 *
 * Compiled into whoever defined before including it:
 *   unsigned code_bit(bspi_byte_model *model, byte_pass *pass, uint32_t slots, pass_mode mode,
 *                     uint32_t partial, uint32_t node, unsigned place, unsigned bit);
 * and BYTE_CODING, as it is declared, where it needs more than the compiler's defaults.
 */
#ifndef BSPI_BYTE_LOOPS_H
#define BSPI_BYTE_LOOPS_H

#include "byte_bits.h"

#ifndef BYTE_CODING
#define BYTE_CODING static ALWAYS_INLINE
#endif

BYTE_CODING uint32_t code_bits(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                               pass_mode mode, uint8_t byte) {
    uint32_t partial = 1;
    for (unsigned place = 0; place < 8; place++) {
        uint32_t node = node_at(model, pass, slots, place, partial);
        unsigned bit = code_bit(model, pass, slots, mode, partial, node, place,
                                byte >> (7 - place) & 1);
        partial = partial << 1 | bit;
    }
    return partial;
}

BYTE_CODING uint32_t code_mode(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                               pass_mode mode, uint8_t byte) {
    return mode == DECODE   ? code_bits(model, pass, slots, DECODE, byte)
           : mode == ENCODE ? code_bits(model, pass, slots, ENCODE, byte)
                            : code_bits(model, pass, slots, LEARN, byte);
}

#endif
