"""Open files below one directory, whatever their names try.

Every path of a generation comes from a manifest or from a tree that others can
write to.  Here each is resolved by the kernel with openat2(2): never above the
root, through no symbolic link, no magic link and no other mount.  Where
openat2 is missing the same walk is made component by component with
O_NOFOLLOW.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Iterator
from types import TracebackType

from ..errors import UnsafePathError

_SYS_OPENAT2 = 437  # the same number on every Linux architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
#: BENEATH answers EAGAIN when a rename elsewhere raced with the walk
_TRIES = 64

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def _raw_openat2(dir_fd: int, path: bytes, flags: int, mode: int) -> int:
    how = _OpenHow(flags, mode if flags & os.O_CREAT else 0, _RESOLVE)
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_TRIES):
        fd = libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), os.fsdecode(path))


@functools.cache
def has_openat2() -> bool:
    """Whether this kernel (and sandbox) lets us call openat2."""
    if os.uname().sysname != "Linux":
        return False
    here = os.open(".", DIRECTORY)
    try:
        os.close(_raw_openat2(here, b".", DIRECTORY, 0))
    except OSError:
        return False
    finally:
        os.close(here)
    return True


def check_path(path: str) -> None:
    """Refuses what no tree may contain; the kernel is asked only after it.

    Raises UnsafePathError for an empty or absolute path, for an empty, "." or
    ".." component and for NUL.
    """
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise UnsafePathError("not a plain relative path", found=path)


class Beneath:
    """One directory, opened once; everything else is reached through it.

    Paths are relative, with "/" between components; "" means the root itself.
    Every method raises UnsafePathError for a path that leaves the root or
    meets a symbolic link or mount on its way, and OSError otherwise.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        dir_fd: int | None = None,
        openat2: bool | None = None,
    ) -> None:
        """Opens `root` (itself no link), from `dir_fd` when that is given."""
        self.fd = os.open(root, DIRECTORY, dir_fd=dir_fd)
        self._openat2 = has_openat2() if openat2 is None else openat2

    def __enter__(self) -> Beneath:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the root; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def open(self, path: str, flags: int = READ, mode: int = 0o600) -> int:
        """Opens `path` and returns a descriptor that the caller closes."""
        if path:
            check_path(path)
        try:
            if self._openat2:
                return _raw_openat2(self.fd, os.fsencode(path or "."), flags, mode)
            return self._walk(path, flags, mode)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise UnsafePathError(
                    "a symbolic link or another mount stands in the way", file=path
                ) from error
            raise

    @contextlib.contextmanager
    def opened(self, path: str, flags: int = READ, mode: int = 0o600) -> Iterator[int]:
        """`open`, closed at the end of the with block."""
        fd = self.open(path, flags, mode)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the directory that holds `path`, and its last component."""
        check_path(path)
        head, _, name = path.rpartition("/")
        with self.opened(head, DIRECTORY) as fd:
            yield fd, name

    def stat(self, path: str) -> os.stat_result:
        """lstat of `path`."""
        if not path:
            return os.fstat(self.fd)
        with self.parent(path) as (fd, name):
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def _walk(self, path: str, flags: int, mode: int) -> int:
        """openat2 by hand: each component opened from the one before it."""
        *parents, name = path.split("/") if path else ["."]
        fd = os.dup(self.fd)
        try:
            device = os.fstat(fd).st_dev
            for part in parents:
                below = os.open(part, DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
                if os.fstat(fd).st_dev != device:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
            found = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=fd)
        except NotADirectoryError as error:
            # O_DIRECTORY on a link answers ENOTDIR; the caller wants to know which
            if self._is_link(path):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
            raise
        finally:
            os.close(fd)
        if os.fstat(found).st_dev != device:
            os.close(found)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        return found

    def _is_link(self, path: str) -> bool:
        """Whether a prefix of `path` is a symbolic link, for the error's words only."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            try:
                status = os.stat("/".join(parts[:end]), dir_fd=self.fd, follow_symlinks=False)
            except OSError:
                return False
            if (status.st_mode & 0o170000) == 0o120000:
                return True
        return False
