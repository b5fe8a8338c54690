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
from collections.abc import Callable, Iterator

from ..closing import Closing
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


@functools.cache
def _syscall() -> Callable[..., int]:
    """syscall(2) itself, looked up once: a tree asks for it a hundred thousand times."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.POINTER(_OpenHow),
        ctypes.c_size_t,
    ]
    call.restype = ctypes.c_long
    return call


def _raw_openat2(dir_fd: int, path: bytes, flags: int, mode: int) -> int:
    how = _OpenHow(flags, mode if flags & os.O_CREAT else 0, _RESOLVE)
    call, size = _syscall(), ctypes.sizeof(_OpenHow)
    for _ in range(_TRIES):
        fd = call(_SYS_OPENAT2, dir_fd, path, ctypes.byref(how), size)
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


def open_folder(dir_fd: int, path: str) -> int:
    """Opens a directory below `dir_fd`, through no link anywhere; the caller closes it.

    For folders that will be written to.  Raises UnsafePathError, OSError.
    """
    with Beneath(".", dir_fd=dir_fd) as top:
        return top.open(path, DIRECTORY)


class Beneath(Closing):
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
        self._openat2 = has_openat2() if openat2 is None else openat2
        self.fd = os.open(root, DIRECTORY, dir_fd=dir_fd)

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
            # O_DIRECTORY on a link answers ENOTDIR, which would name the wrong cause
            is_link = error.errno == errno.ENOTDIR and self._is_link(path)
            if is_link or error.errno in (errno.ELOOP, errno.EXDEV):
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

    @contextlib.contextmanager
    def in_order(self) -> Iterator[InOrder]:
        """The same, for many paths one after the other: directories are opened once each."""
        reached = InOrder(self)
        try:
            yield reached
        finally:
            reached.close()

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


class InOrder:
    """Reaches paths below a Beneath that come in order, and keeps the last directory open.

    For directories that nobody replaces meanwhile: a directory that was renamed after it
    was reached stays the one that is used.  For one thread; closed by `Beneath.in_order`.
    """

    def __init__(self, tree: Beneath) -> None:
        self._tree = tree
        self._head: str | None = None
        self._fd = -1

    def close(self) -> None:
        """Lets go of the last directory."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._head = -1, None

    def at(self, path: str) -> tuple[int, str]:
        """As Beneath.parent; the descriptor is good until the next call."""
        head, _, name = path.rpartition("/")
        if head != self._head:
            check_path(path)
            self.close()
            self._fd = self._tree.open(head, DIRECTORY)
            self._head = head
        elif name in ("", ".", "..") or "\0" in name:
            check_path(name)  # says what is wrong with it
        return self._fd, name

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """As Beneath.parent."""
        yield self.at(path)

    def stat(self, path: str) -> os.stat_result:
        """lstat of `path`."""
        fd, name = self.at(path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
