/* byte_bits_neon.c: the bits of a byte with the vectors of arm64.
 *
 * Only the mixer has vectors.  Each context's history and what it was followed by lie
 * elsewhere, so they are looked up, and taught, one by one as everywhere. */
#include "byte_bits.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

#include "byte_mix_neon.h"
/* behind it: */
#include "byte_code.h"

static uint32_t code_neon(bspi_byte_model *model, byte_pass *pass, pass_mode mode, uint8_t byte) {
    return code_any(model, pass, mode, byte);
}

bspi_byte_bits *bspi_byte_bits_neon(void) {
    return code_neon;
}

#else

bspi_byte_bits *bspi_byte_bits_neon(void) {
    return NULL;
}

#endif
