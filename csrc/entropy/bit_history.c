/* bit_history.c: the table of bit histories, made from a rule and five bounds. */
#include "bit_history.h"

#include <stdbool.h>
#include <string.h>

#define KINDS 5u
#define COUNT_MAX 40u

/* The most of one bit that is remembered beside 0, 1, 2, 3, 4 of the other. */
static const uint8_t bounds[KINDS] = {COUNT_MAX, 30, 12, 5, 4};

static bool allowed(unsigned zeros, unsigned ones) {
    unsigned few = zeros < ones ? zeros : ones, many = zeros < ones ? ones : zeros;
    return few < KINDS && many <= bounds[few];
}

/* Seeing `bit`: one more of it, part of a large opposite forgotten, and then
 * whatever brings the pair back within bounds. */
static void observe(unsigned counts[2], unsigned bit) {
    unsigned *same = &counts[bit], *other = &counts[!bit];
    ++*same;
    if (*other > 2)
        *other = (*other + 2) / 2;
    while (!allowed(counts[0], counts[1])) {
        if (*same > *other || *other == 0)
            --*same;
        else
            --*other;
    }
}

void bspi_histories_init(bspi_histories *histories) {
    uint8_t numbers[COUNT_MAX + 1][COUNT_MAX + 1][2];
    memset(numbers, 0, sizeof numbers);
    memset(histories, 0, sizeof *histories);
    unsigned count = 0;
    for (unsigned total = 0; total <= COUNT_MAX + 1; total++) {
        for (unsigned ones = 0; ones <= total; ones++) {
            unsigned zeros = total - ones;
            if (!allowed(zeros, ones))
                continue;
            /* With one kind only, the last bit is known. */
            bool both = zeros != 0 && ones != 0;
            for (unsigned last = 0; last < (both ? 2u : 1u); last++) {
                histories->zeros[count] = (uint8_t)zeros;
                histories->ones[count] = (uint8_t)ones;
                histories->total[count] = (uint8_t)total;
                numbers[zeros][ones][last] = (uint8_t)count++;
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned bit = 0; bit < 2; bit++) {
            unsigned counts[2] = {histories->zeros[i], histories->ones[i]};
            observe(counts, bit);
            bool both = counts[0] != 0 && counts[1] != 0;
            histories->next[i][bit] = numbers[counts[0]][counts[1]][both ? bit : 0];
        }
    }
}
