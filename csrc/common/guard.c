/* guard.c: mapped files that end too early read as zeros instead of ending the process.
 *
 * The system answers a read of a mapping past the end of its file, or of a part
 * that its disk fails to give, with SIGBUS.  Signal handlers belong to the whole
 * process, so this is the one module with global state: a table of guarded ranges,
 * and the handler that was there before, which gets every signal that is not for us.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "status.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 256u

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

/* Read by the handler: an empty slot has end 0, and end is set last. */
typedef struct slot {
    uintptr_t begin;
    uintptr_t end;
    uint32_t failed;
    bool taken;
} slot;

static slot slots[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows, and of `taken` */
static unsigned taken_count;
static struct sigaction previous;
static uintptr_t page_size;

static slot *slot_of(uintptr_t addr) {
    for (unsigned i = 0; i < SLOTS; i++) {
        uintptr_t end = __atomic_load_n(&slots[i].end, __ATOMIC_ACQUIRE);
        if (addr < end && addr >= __atomic_load_n(&slots[i].begin, __ATOMIC_RELAXED))
            return &slots[i];
    }
    return NULL;
}

/* Puts a page of zeros where the file has none, and lets the reader go on. */
static bool patch_up(uintptr_t addr) {
    slot *hit = slot_of(addr);
    if (hit == NULL)
        return false;
    int kept = errno;
    void *page = (void *)(addr & ~(page_size - 1));
    bool good = mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
                MAP_FAILED;
    errno = kept;
    __atomic_store_n(&hit->failed, 1, __ATOMIC_RELEASE);
    return good;
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    if (info->si_code > 0 && patch_up((uintptr_t)info->si_addr))
        return;
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
    } else {
        signal(number, SIG_DFL); /* the read is tried again, and ends the process */
        if (info->si_code <= 0)
            raise(number); /* someone sent it: there is no read */
    }
}

static bool listen_now(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    return sigaction(SIGBUS, &action, &previous) == 0;
}

bsp_status bsp_guard_begin(const void *addr, size_t len, uint32_t *guard) {
    if (addr == NULL || len == 0 || guard == NULL || len > UINTPTR_MAX - (uintptr_t)addr)
        return BSP_E_ARG;
    bsp_status status = BSP_E_NOMEM;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < SLOTS; i++) {
        slot *slot = &slots[i];
        if (slot->taken)
            continue;
        if (taken_count == 0 && !listen_now())
            break;
        taken_count++;
        slot->taken = true;
        __atomic_store_n(&slot->failed, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->begin, (uintptr_t)addr, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->end, (uintptr_t)addr + len, __ATOMIC_RELEASE);
        *guard = i;
        status = BSP_OK;
        break;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

uint32_t bsp_guard_failed(uint32_t guard) {
    return guard < SLOTS ? __atomic_load_n(&slots[guard].failed, __ATOMIC_ACQUIRE) : 0;
}

void bsp_guard_end(uint32_t guard) {
    if (guard >= SLOTS)
        return;
    pthread_mutex_lock(&lock);
    slot *slot = &slots[guard];
    if (slot->taken) {
        __atomic_store_n(&slot->end, 0, __ATOMIC_RELEASE);
        slot->taken = false;
        if (--taken_count == 0) {
            /* Unless someone has put their own handler before ours meanwhile. */
            struct sigaction now;
            if (sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
                now.sa_sigaction == on_bus_error)
                (void)sigaction(SIGBUS, &previous, NULL);
        }
    }
    pthread_mutex_unlock(&lock);
}
