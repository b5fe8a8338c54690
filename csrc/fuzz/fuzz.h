/* fuzz.h: what the fuzz targets share.
 *
 * Each target is one file with one property.  FUZZ_TARGET(name) defines
 * fuzz_<name>(data, size), which traps when the property is broken; a build for
 * libFuzzer (`make fuzz`) has its entry point call it, and the tests call it by
 * name to replay tests/fuzz-corpus/<name>.
 */
#ifndef BSPI_FUZZ_H
#define BSPI_FUZZ_H

#include "../common/memory.h"
#include "../image/image.h"
#include "../include/bsipatch.h"

#define CHECK(condition)      \
    do {                      \
        if (!(condition))     \
            __builtin_trap(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define FUZZ_ENTRY(name)                                              \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {    \
        return fuzz_##name(data, size);                               \
    }
#else
#define FUZZ_ENTRY(name)
#endif
#define FUZZ_TARGET(name)                                \
    int fuzz_##name(const uint8_t *data, size_t size);   \
    FUZZ_ENTRY(name)                                     \
    int fuzz_##name(const uint8_t *data, size_t size)

/* What a target lets the core use. */
#define FUZZ_BUDGET (UINT64_C(96) << 20)
#define FUZZ_MAX_PLAIN (UINT64_C(4) << 20)
#define FUZZ_MAX_FILE (UINT64_C(1) << 20) /* old and new files */

/* Input of the targets that mutate streams:
 *   new_size, 4 bytes; the lengths of the six plain streams, 2 bytes each;
 *   the streams; the rest is the old file.
 * Lengths reach no further than the input. */
#define FUZZ_STREAMS 6u
typedef struct fuzz_parts {
    uint64_t new_size;
    const uint8_t *bytes[FUZZ_STREAMS];
    size_t len[FUZZ_STREAMS];
    const uint8_t *old;
    size_t old_len;
} fuzz_parts;
bool fuzz_split(const uint8_t *data, size_t size, fuzz_parts *parts);
/* The patch that has these streams, all plain; `patch` is empty and has its heap. */
void fuzz_join(const fuzz_parts *parts, bspi_buffer *patch);

/* Applies `patch` to `old` as a caller would, twice with different windows,
 * which must agree; streams of generic codecs are provided as their coded bytes
 * over and over.  On success *made (of *made_len bytes, from malloc) is the new
 * file.  `bound`: no larger output is asked for (BSP_E_LIMIT). */
bsp_status fuzz_apply_patch(const uint8_t *patch, size_t patch_len, const uint8_t *old, size_t old_len,
                      uint64_t bound, uint8_t **made, size_t *made_len);

/* Checks what image.h promises of a parsed file, asks every block for its
 * references and checks those too. */
void fuzz_check_file(const bspi_file *file);

/* Understands a file and finds all its references, without any limit; the most
 * memory in use at once, in bytes.  For tests of what hostile files cost. */
uint64_t fuzz_parse_all(const uint8_t *data, size_t size);

/* References of the field bytes, all written back with the target they have:
 * nothing may change.  Offsets are into data. */
void fuzz_check_refs(const bspi_ref_list *refs, const uint8_t *data, uint64_t size,
                     uint64_t begin, uint64_t end);

#endif
