/* logistic.c: the tables of the logistic domain, made from 89 constants. */
#include "logistic.h"

#define STEP 16 /* stretched units between two constants */

/* 65536 / (1 + e^(-i / 8)), rounded. */
static const uint16_t squash_points[BSPI_STRETCH_MAX / STEP + 1] = {
    32768, 34813, 36843, 38841, 40793, 42687, 44511, 46254, 47911, 49474, 50941, 52310,
    53581, 54754, 55834, 56822, 57724, 58544, 59287, 59959, 60565, 61109, 61598, 62036,
    62428, 62778, 63090, 63368, 63615, 63835, 64030, 64203, 64357, 64494, 64614, 64721,
    64816, 64900, 64974, 65039, 65097, 65149, 65194, 65234, 65269, 65300, 65328, 65352,
    65374, 65393, 65410, 65425, 65438, 65449, 65459, 65468, 65476, 65483, 65489, 65495,
    65500, 65504, 65508, 65511, 65514, 65517, 65519, 65521, 65523, 65524, 65526, 65527,
    65528, 65529, 65530, 65530, 65531, 65532, 65532, 65533, 65533, 65533, 65534, 65534,
    65534, 65534, 65535, 65535, 65535,
};

void bspi_logistic_init(bspi_logistic *tables) {
    for (uint32_t x = 0; x <= BSPI_STRETCH_MAX; x++) {
        uint32_t at = x / STEP, part = x % STEP;
        uint32_t p = squash_points[at];
        if (part != 0)
            p += ((uint32_t)(squash_points[at + 1] - squash_points[at]) * part + STEP / 2) / STEP;
        tables->squash[BSPI_STRETCH_MAX + x] = (uint16_t)p;
        tables->squash[BSPI_STRETCH_MAX - x] = (uint16_t)(65536u - p);
    }
    /* The inverse, at the middle of each step of 16: the first x whose squash
     * reaches it. */
    int32_t x = -BSPI_STRETCH_MAX;
    for (uint32_t i = 0; i < 4096; i++) {
        while (x < BSPI_STRETCH_MAX && bspi_squash(tables, x) < i * 16 + 8)
            x++;
        tables->stretch[i] = (int16_t)x;
    }
}
