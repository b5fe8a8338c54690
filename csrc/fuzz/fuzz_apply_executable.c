/* fuzz_apply_executable.c: as fuzz_apply, but the input is the plain streams of
 * a patch and an executable, so that mutations get past codes and header and
 * reach layout, cover, overrides and corrections. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "fuzz.h"

FUZZ_TARGET(apply_executable) {
    fuzz_parts streams;
    if (!fuzz_split(data, size, &streams))
        return 0;
    bspi_heap heap;
    bspi_heap_init(&heap, 0);
    bspi_buffer patch = {.heap = &heap};
    fuzz_join(&streams, &patch);
    uint8_t *made;
    size_t made_len;
    if (fuzz_apply_patch(patch.data, patch.len, streams.old, streams.old_len, FUZZ_MAX_FILE,
                         &made, &made_len) == BSP_OK) {
        CHECK(made_len == streams.new_size);
        free(made);
    }
    bspi_buffer_free(&patch);
    CHECK(heap.in_use == 0);
    return 0;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

/* Mutates one part, and keeps the lengths in front true. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    fuzz_parts streams;
    unsigned part = seed % (FUZZ_STREAMS + 3);
    if (part > FUZZ_STREAMS || !fuzz_split(data, size, &streams))
        return LLVMFuzzerMutate(data, size, max_size);
    const uint8_t *start = part < FUZZ_STREAMS ? streams.bytes[part] : streams.old;
    size_t len = part < FUZZ_STREAMS ? streams.len[part] : streams.old_len;
    size_t before = (size_t)(start - data), after = size - before - len;
    size_t room = BSPI_MIN(max_size - size + len, (size_t)0xffff);
    if (part == FUZZ_STREAMS)
        room = max_size - size + len;
    if (room == 0)
        return size;
    uint8_t *mutated = malloc(room), *rest = malloc(after + 1);
    CHECK(mutated != NULL && rest != NULL);
    len = BSPI_MIN(len, room);
    memcpy(mutated, start, len);
    memcpy(rest, data + size - after, after);
    len = LLVMFuzzerMutate(mutated, len, room);
    memcpy(data + before, mutated, len);
    memcpy(data + before + len, rest, after);
    if (part < FUZZ_STREAMS)
        bspi_store16(data + 4 + 2 * part, (uint16_t)len);
    free(mutated);
    free(rest);
    return before + len + after;
}
#endif
