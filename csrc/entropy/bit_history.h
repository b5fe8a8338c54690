/* bit_history.h: what was seen in one context, in one byte.
 *
 * A history is how many zeros and ones were seen and, when both were, which
 * came last.  The counts are bounded, and the more of one kind were seen the
 * fewer of the other are remembered; seeing a bit forgets part of its opposites,
 * as what happened lately says more. */
#ifndef BSPI_BIT_HISTORY_H
#define BSPI_BIT_HISTORY_H

#include <stdint.h>

typedef struct bspi_histories {
    uint8_t next[256][2]; /* by the bit seen; history 0 is "nothing seen" */
    uint8_t zeros[256];
    uint8_t ones[256];
    uint8_t total[256];
} bspi_histories;

/* Numbers the histories by rising total, then falling zeros, then last bit;
 * numbers beyond the last are never reached. */
void bspi_histories_init(bspi_histories *histories);

#endif
