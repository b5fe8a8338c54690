"""Make things last: files and names that survive a power cut, or an error.

No call here is retried after a failed sync: the kernel marks the failed pages
clean, so a second fsync would report a success that never happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Iterator

from ..errors import from_os_error

_RENAME_NOREPLACE = 1
_FULLFSYNC = 51  # fcntl of Darwin: fsync there does not empty the drive's cache


@contextlib.contextmanager
def system_calls(doing: str, file: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turns OSError into the error of ours that stands for it; `doing` says at what."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, file, doing) from error


def sync_fd(fd: int) -> None:
    """fsync, down to the medium."""
    if os.uname().sysname == "Darwin":
        import fcntl

        fcntl.fcntl(fd, _FULLFSYNC)
    else:
        os.fsync(fd)


def sync_dir(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Makes the names in a directory last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> bool:
    """syncfs of the file system that holds `fd`; False where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    syncfs = getattr(libc, "syncfs", None)
    if syncfs is None:
        return False
    if syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            return False
        raise OSError(number, os.strerror(number))
    return True


def rename_new(old: str, new: str, *, dir_fd: int) -> None:
    """Renames within a directory, and fails with EEXIST rather than replace.

    Where the system or file system has no such rename the name is looked up
    first; the store's lock keeps others of ours away meanwhile.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 is not None:
        done = renameat2(
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(os.fsencode(old)),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(os.fsencode(new)),
            ctypes.c_uint(_RENAME_NOREPLACE),
        )
        if done == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number), new)
    with contextlib.suppress(FileNotFoundError):
        os.stat(new, dir_fd=dir_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(name: str, data: bytes, *, dir_fd: int, mode: int = 0o644) -> None:
    """Writes a whole file so that readers and a power cut see the old or the new one."""
    temporary = f".{name}.{secrets.token_hex(6)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode, dir_fd=dir_fd)
    try:
        try:
            write_all(fd, data)
            sync_fd(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    sync_fd(dir_fd)


def replace_link(name: str, target: str, *, dir_fd: int, sync: bool = True) -> None:
    """Points the link `name` at `target` in one atomic step, and makes it last.

    Without `sync` the caller makes the directory last.
    """
    temporary = f".{name}.{secrets.token_hex(6)}.tmp"
    os.symlink(target, temporary, dir_fd=dir_fd)
    try:
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    if sync:
        sync_fd(dir_fd)


def read_file(name: str, *, dir_fd: int, limit: int) -> bytes:
    """A small record's bytes; OSError(EFBIG) beyond `limit` bytes, ELOOP for a link."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(name, flags, dir_fd=dir_fd)
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return data


def remove_tree(name: str, *, dir_fd: int) -> None:
    """Removes a directory and everything in it, following no link; absence is fine.

    A folder that was made without write permission gets it back first.
    """
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd
        )
    except FileNotFoundError:
        return
    except (NotADirectoryError, OSError) as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            if error.errno != errno.EACCES:
                raise
            os.chmod(name, 0o700, dir_fd=dir_fd)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        else:
            os.unlink(name, dir_fd=dir_fd)
            return
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for below, is_dir in found:
            if is_dir:
                remove_tree(below, dir_fd=fd)
            else:
                os.unlink(below, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)
