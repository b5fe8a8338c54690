/* agree.h: what the checks of kernels share.
 *
 * Each check holds every kernel that this machine can run to the portable one and
 * says how much it compared; a difference ends the program.
 */
#ifndef AGREE_H
#define AGREE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Numbers that are the same on every machine (xorshift64*). */
typedef struct dice {
    uint64_t state; /* not 0 */
} dice;

static inline uint64_t roll(dice *d) {
    d->state ^= d->state >> 12;
    d->state ^= d->state << 25;
    d->state ^= d->state >> 27;
    return d->state * UINT64_C(0x2545F4914F6CDD1D);
}

/* 0 to below - 1. */
static inline uint64_t pick(dice *d, uint64_t below) {
    return (roll(d) >> 11) % below;
}

#define DIFFER(...)                                                    \
    do {                                                               \
        printf("%s:%d: the kernels differ: ", __FILE__, __LINE__);     \
        printf(__VA_ARGS__);                                           \
        printf("\n");                                                  \
        exit(1);                                                       \
    } while (0)

#define NEEDED(condition)                                              \
    do {                                                               \
        if (!(condition)) {                                            \
            printf("%s:%d: %s failed\n", __FILE__, __LINE__, #condition); \
            exit(2);                                                   \
        }                                                              \
    } while (0)

void agree_scan(void);
void agree_mixer(void);
void agree_sha256(void);

#endif
