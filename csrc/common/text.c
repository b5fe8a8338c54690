/* text.c: the public odds and ends: version and status texts. */
#include "status.h"

const char *bsp_version(void) {
    return BSP_VERSION_STRING;
}

const char *bsp_status_text(int32_t code) {
    switch ((bsp_status)code) {
    case BSP_OK:
        return "Success.";
    case BSP_E_ARG:
        return "A precondition of the call was broken; fix the caller.";
    case BSP_E_CANCELLED:
        return "Stopped on request; nothing was changed.";
    case BSP_E_NOMEM:
        return "The system refused memory; free some and try again.";
    case BSP_E_MEMLIMIT:
        return "The memory budget would be exceeded; allow more or use fewer jobs.";
    case BSP_E_VERSION:
        return "The patch is of a format version this release does not know; update bsipatch.";
    case BSP_E_MAGIC:
        return "The bytes are not a patch; check that this is the file you meant.";
    case BSP_E_CORRUPT:
        return "The patch contradicts itself; get it again from its source.";
    case BSP_E_TRUNCATED:
        return "The patch ends too early; get it again from its source.";
    case BSP_E_LIMIT:
        return "The patch needs more than the limits allow; raise them if you trust it.";
    case BSP_E_OLD_MISMATCH:
        return "The old file is not the one the patch was made for; use the exact build.";
    case BSP_E_NEW_MISMATCH:
        return "The result is not what the patch promised; get the patch again.";
    case BSP_E_INTERNAL:
        return "A defect in the core; please report it.";
    }
    return "An unknown status code; the library and its caller are of different versions.";
}
