/* threads.h: fork and join, for work that splits into independent pieces. */
#ifndef BSPI_THREADS_H
#define BSPI_THREADS_H

#include "status.h"

/* More threads than this are never started. */
#define BSPI_MAX_JOBS 256u

/* One piece of work.  `worker` is less than `jobs` and no two pieces run with
 * the same worker at once, so it can index scratch space. */
typedef bsp_status bspi_task(void *context, size_t index, unsigned worker);

/* Runs task(context, i, worker) for every i of [0, count), in ascending order
 * as workers come free, on at most `jobs` threads (the caller's among them;
 * 0 and 1 run everything inline).  When the system refuses threads, fewer do
 * the same work.  After a failure no further piece is started; the status of
 * the lowest failing index is returned, which is the same at any job count.
 * Returns only when every started piece has ended. */
bsp_status bspi_parallel(unsigned jobs, size_t count, bspi_task *task, void *context);

#endif
