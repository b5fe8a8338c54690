/* fuzz_apply.c: any patch applied to any old file ends in a status or in a new
 * file of the size it declares, within the memory it was given.
 *
 * The first two bytes are the old file's length, then come old file and patch.
 * An old file of another size than the patch wants is repeated to that size. */
#include <stdlib.h>

#include "../common/bytes.h"
#include "../patch/container.h"
#include "fuzz.h"

FUZZ_TARGET(apply) {
    if (size < 2)
        return 0;
    size_t given = BSPI_MIN((size_t)bspi_load16(data), size - 2), made_len;
    const uint8_t *patch = data + 2 + given;
    size_t patch_len = size - 2 - given;
    uint8_t *made;
    bspi_container container;
    if (bspi_container_read(patch, patch_len, &container, NULL) != BSP_OK)
        return 0;
    size_t old_len = (size_t)BSPI_MIN(container.old_size, FUZZ_MAX_FILE);
    uint8_t *old = malloc(old_len + 1);
    CHECK(old != NULL);
    for (size_t i = 0; i < old_len; i++)
        old[i] = given != 0 ? data[2 + i % given] : 0;
    if (fuzz_apply_patch(patch, patch_len, old, old_len, FUZZ_MAX_FILE, &made, &made_len) == BSP_OK) {
        CHECK(made_len == container.new_size && made_len <= FUZZ_MAX_FILE);
        free(made);
    }
    free(old);
    return 0;
}
