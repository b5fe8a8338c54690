/* status.h: how an internal function reports a fault. */
#ifndef BSPI_STATUS_H
#define BSPI_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../include/bsipatch.h"

/* Fills *fault (when not NULL) and returns `code`, so that a call site reads
 * `return bspi_fail(fault, BSP_E_CORRUPT, "cover.len", off, limit, len);` */
bsp_status bspi_fail(bsp_fault *fault, bsp_status code, const char *place, uint64_t offset,
                     uint64_t expected, uint64_t found);

/* True when the watcher asked the running call to stop.  control may be NULL. */
bool bspi_cancelled(const bsp_control *control);
/* Reports progress; control may be NULL. */
void bspi_progress(bsp_control *control, uint32_t phase, uint64_t done, uint64_t total);
/* Adds to the `done` counter; safe from several threads. */
void bspi_progress_add(bsp_control *control, uint64_t done);

#define BSPI_TRY(expr)                        \
    do {                                      \
        bsp_status try_status_ = (expr);      \
        if (try_status_ != BSP_OK)            \
            return try_status_;               \
    } while (0)

#define BSPI_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BSPI_MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
