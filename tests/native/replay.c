/* replay.c: the fuzz targets without a fuzzer, where Python cannot load them.
 *
 *   replay TARGET FILE...
 *
 * Each file is named before it is tried; a broken property traps.  TARGETS, from the command
 * line of the compiler, is X(name) for each target that is linked in. */
#include <string.h>

#include "../../csrc/fuzz/fuzz.h"
#include "files.h"

#define X(name) int fuzz_##name(const uint8_t *data, size_t size);
TARGETS
#undef X

typedef int run_target(const uint8_t *data, size_t size);

static run_target *target_of(const char *wanted) {
#define X(name)                     \
    if (strcmp(wanted, #name) == 0) \
        return fuzz_##name;
    TARGETS
#undef X
    return NULL;
}

int main(int count, char **arguments) {
    run_target *target = count > 1 ? target_of(arguments[1]) : NULL;
    if (target == NULL) {
        fprintf(stderr, "error: name a fuzz target\n");
        return 2;
    }
    for (int i = 2; i < count; i++) {
        bytes input = read_file(arguments[i]);
        printf("%s\n", arguments[i]);
        fflush(stdout);
        target(input.data, input.len);
        free(input.data);
    }
    return 0;
}
