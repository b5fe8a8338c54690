/* arm64_filter.h: references but for those that a copy leaves right as they are. */
#ifndef BSPI_ARM64_FILTER_H
#define BSPI_ARM64_FILTER_H

#include "image.h"

#define BSPI_FILTER_KEPT 64u

/* Within one run of bytes that is moved as a whole, a branch to the same run stays
 * right: such references in file [run_off, run_off + run_len) may be left out,
 * except those whose fields start at one of the offsets `kept`, ascending. */
typedef struct bspi_ref_filter {
    uint64_t run_off;
    uint64_t run_len;
    size_t kept_count;
    uint64_t kept[BSPI_FILTER_KEPT];
} bspi_ref_filter;

/* bspi_range_refs without what `filter` lets it leave out; the range lies in the
 * run.  What is found is otherwise the same. */
void bspi_range_refs_but(const bspi_file *file, uint64_t begin, uint64_t end,
                         const bspi_ref_filter *filter, bspi_ref_list *refs);
void bspi_arm64_refs_but(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                         uint64_t addr, uint64_t file_off, const bspi_ref_filter *filter,
                         bspi_ref_list *refs);

#endif
