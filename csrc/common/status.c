/* status.c: fault reports, cancellation and progress shared by every part. */
#include "status.h"

bsp_status bspi_fail(bsp_fault *fault, bsp_status code, const char *place, uint64_t offset,
                     uint64_t expected, uint64_t found) {
    if (fault != NULL) {
        fault->code = (int32_t)code;
        fault->place = place;
        fault->offset = offset;
        fault->expected = expected;
        fault->found = found;
    }
    return code;
}

bool bspi_cancelled(const bsp_control *control) {
    return control != NULL && __atomic_load_n(&control->cancel, __ATOMIC_RELAXED) != 0;
}

void bspi_progress(bsp_control *control, uint32_t phase, uint64_t done, uint64_t total) {
    if (control == NULL)
        return;
    __atomic_store_n(&control->phase, phase, __ATOMIC_RELAXED);
    __atomic_store_n(&control->total, total, __ATOMIC_RELAXED);
    __atomic_store_n(&control->done, done, __ATOMIC_RELAXED);
}

void bspi_progress_add(bsp_control *control, uint64_t done) {
    if (control != NULL)
        __atomic_fetch_add(&control->done, done, __ATOMIC_RELAXED);
}
