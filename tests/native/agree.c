/* agree.c: the kernels with vectors against the portable ones, on the machine at hand.
 *
 * The unit tests do the same through Python; this needs nothing but the C library, so
 * that it runs on a device, and under an emulator, as well. */
#include "agree.h"

int main(void) {
    agree_scan();
    agree_mixer();
    agree_sha256();
    return 0;
}
