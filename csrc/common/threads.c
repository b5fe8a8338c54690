/* threads.c: a fork-join helper over pthreads with dynamic scheduling. */
#include "threads.h"

#include <pthread.h>

typedef struct pool {
    bspi_task *task;
    void *context;
    size_t count;
    size_t next;     /* the next piece to hand out; atomic */
    uint32_t failed; /* set once any piece has failed; atomic */
} pool;

typedef struct worker {
    pool *pool;
    pthread_t thread;
    unsigned number;
    size_t fail_index;
    bsp_status status;
} worker;

/* Pieces are handed out in ascending order, so when one fails every lower one
 * has been handed out too and will report: the lowest failure is never lost. */
static void work(worker *self) {
    pool *pool = self->pool;
    while (__atomic_load_n(&pool->failed, __ATOMIC_RELAXED) == 0) {
        size_t index = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
        if (index >= pool->count)
            return;
        bsp_status status = pool->task(pool->context, index, self->number);
        if (status != BSP_OK) {
            self->status = status;
            self->fail_index = index;
            __atomic_store_n(&pool->failed, 1, __ATOMIC_RELAXED);
            return;
        }
    }
}

static void *run(void *argument) {
    work(argument);
    return NULL;
}

bsp_status bspi_parallel(unsigned jobs, size_t count, bspi_task *task, void *context) {
    pool pool = {.task = task, .context = context, .count = count};
    worker workers[BSPI_MAX_JOBS];
    if (jobs > BSPI_MAX_JOBS)
        jobs = BSPI_MAX_JOBS;
    if (jobs > count)
        jobs = (unsigned)count;
    if (jobs == 0)
        jobs = 1;
    unsigned started = 1;
    for (unsigned i = 0; i < jobs; i++) {
        workers[i] = (worker){.pool = &pool, .number = i, .status = BSP_OK};
        if (i != 0) {
            if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0)
                break;
            started++;
        }
    }
    work(&workers[0]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);

    bsp_status status = BSP_OK;
    size_t lowest = SIZE_MAX;
    for (unsigned i = 0; i < started; i++) {
        if (workers[i].status != BSP_OK && workers[i].fail_index < lowest) {
            lowest = workers[i].fail_index;
            status = workers[i].status;
        }
    }
    return status;
}
