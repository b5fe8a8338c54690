/* Makes the Nth system call of a process fail, or kills the process there.
 *
 * Loaded by LD_PRELOAD; nothing happens until bspf_arm() is called.  Calls that go through
 * syscall(2) are counted as well.  After a call has failed with a lasting fault (a full disk, a
 * file system that became read-only) every later call that would write fails too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long countdown; /* calls until the fault; 0 when not armed */
static atomic_long counted;
static atomic_int fault, lasting, fired;
static char fired_name[32];

void bspf_arm(long nth, int error, int stays);
long bspf_counted(void);
int bspf_fired(char *name, size_t size);

/* error 0 kills the process; nth 0 only counts. */
void bspf_arm(long nth, int error, int stays)
{
    atomic_store(&counted, 0);
    atomic_store(&fired, 0);
    atomic_store(&fault, error);
    atomic_store(&lasting, stays);
    atomic_store(&countdown, nth > 0 ? nth : -1);
}

long bspf_counted(void) { return atomic_load(&counted); }

int bspf_fired(char *name, size_t size)
{
    if (size != 0) {
        strncpy(name, fired_name, size - 1);
        name[size - 1] = '\0';
    }
    return atomic_load(&fired);
}

/* Whether this call is the one that fails, or comes after it and would write. */
static int strikes(const char *name, int writes)
{
    long left = atomic_load(&countdown);
    if (left == 0)
        return 0;
    atomic_fetch_add(&counted, 1);
    if (left < 0)
        return 0;
    if (atomic_load(&fired)) {
        if (!atomic_load(&lasting) || !writes)
            return 0;
    } else {
        if (atomic_fetch_sub(&countdown, 1) != 1)
            return 0;
        atomic_store(&countdown, 1); /* armed still, for a lasting fault */
        atomic_store(&fired, 1);
        strncpy(fired_name, name, sizeof fired_name - 1);
        if (atomic_load(&fault) == 0)
            kill(getpid(), SIGKILL);
    }
    errno = atomic_load(&fault);
    return 1;
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (next == NULL) { \
        void *found = dlsym(RTLD_NEXT, #name); \
        memcpy(&next, &found, sizeof next); \
    }

#define WRAP(result, name, writes, parameters, arguments) \
    result name parameters; \
    result name parameters \
    { \
        NEXT(name) \
        return strikes(#name, writes) ? -1 : next arguments; \
    }

#define WRAP_OPEN(name, parameters, call) \
    int name parameters; \
    int name parameters \
    { \
        NEXT(name) \
        mode_t mode = 0; \
        if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
        } \
        if (strikes(#name, (flags & (O_CREAT | O_TRUNC)) != 0)) \
            return -1; \
        return next call; \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
WRAP_OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

WRAP(ssize_t, read, 0, (int fd, void *to, size_t n), (fd, to, n))
WRAP(ssize_t, write, 1, (int fd, const void *from, size_t n), (fd, from, n))
WRAP(ssize_t, pread, 0, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
WRAP(ssize_t, pread64, 0, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
WRAP(ssize_t, pwrite, 1, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
WRAP(ssize_t, pwrite64, 1, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
WRAP(int, fsync, 1, (int fd), (fd))
WRAP(int, fdatasync, 1, (int fd), (fd))
WRAP(int, syncfs, 1, (int fd), (fd))
WRAP(int, ftruncate, 1, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, 1, (int fd, off64_t size), (fd, size))
WRAP(int, rename, 1, (const char *old, const char *new), (old, new))
WRAP(int, renameat, 1, (int a, const char *old, int b, const char *new), (a, old, b, new))
WRAP(int, renameat2, 1, (int a, const char *old, int b, const char *new, unsigned how),
     (a, old, b, new, how))
WRAP(int, link, 1, (const char *old, const char *new), (old, new))
WRAP(int, linkat, 1, (int a, const char *old, int b, const char *new, int how),
     (a, old, b, new, how))
WRAP(int, symlink, 1, (const char *to, const char *name), (to, name))
WRAP(int, symlinkat, 1, (const char *to, int at, const char *name), (to, at, name))
WRAP(int, unlink, 1, (const char *name), (name))
WRAP(int, unlinkat, 1, (int at, const char *name, int how), (at, name, how))
WRAP(int, rmdir, 1, (const char *name), (name))
WRAP(int, mkdir, 1, (const char *name, mode_t mode), (name, mode))
WRAP(int, mkdirat, 1, (int at, const char *name, mode_t mode), (at, name, mode))
WRAP(int, fchmod, 1, (int fd, mode_t mode), (fd, mode))
WRAP(int, fchown, 1, (int fd, uid_t user, gid_t group), (fd, user, group))
WRAP(int, futimens, 1, (int fd, const struct timespec when[2]), (fd, when))
WRAP(ssize_t, readlinkat, 0, (int at, const char *name, char *to, size_t n), (at, name, to, n))
WRAP(int, fstat, 0, (int fd, struct stat *to), (fd, to))
WRAP(int, fstat64, 0, (int fd, struct stat64 *to), (fd, to))
WRAP(int, fstatat, 0, (int at, const char *name, struct stat *to, int how), (at, name, to, how))
WRAP(int, fstatat64, 0, (int at, const char *name, struct stat64 *to, int how),
     (at, name, to, how))
WRAP(int, fstatvfs, 0, (int fd, struct statvfs *to), (fd, to))
WRAP(int, fstatvfs64, 0, (int fd, struct statvfs64 *to), (fd, to))
WRAP(int, flock, 0, (int fd, int how), (fd, how))
WRAP(int, dup, 0, (int fd), (fd))
WRAP(ssize_t, copy_file_range, 1,
     (int in, off64_t *from, int out, off64_t *to, size_t n, unsigned how),
     (in, from, out, to, n, how))

int ioctl(int fd, unsigned long request, ...);
int ioctl(int fd, unsigned long request, ...)
{
    NEXT(ioctl)
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    return strikes("ioctl", 1) ? -1 : next(fd, request, argument);
}

long syscall(long number, ...);
long syscall(long number, ...)
{
    NEXT(syscall)
    va_list more;
    va_start(more, number);
    long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long);
    long d = va_arg(more, long), e = va_arg(more, long), f = va_arg(more, long);
    va_end(more);
    return strikes("syscall", 0) ? -1 : next(number, a, b, c, d, e, f);
}
