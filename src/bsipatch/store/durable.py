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
from . import btrfs

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
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
    number = _renameat2(dir_fd, old, dir_fd, new, _RENAME_NOREPLACE)
    if number == 0:
        return
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), new)
    with contextlib.suppress(FileNotFoundError):
        os.stat(new, dir_fd=dir_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def exchange(old: str, new: str, *, old_dir: int, new_dir: int) -> None:
    """Swaps two names in one atomic step; the caller makes both directories last.

    Raises OSError: ENOSYS or EINVAL where the system or file system has no such
    rename, EXDEV on the lower layers of an overlay.
    """
    number = _renameat2(old_dir, old, new_dir, new, _RENAME_EXCHANGE)
    if number:
        raise OSError(number, os.strerror(number), new)


def move_new(old: str, new: str, *, old_dir: int, new_dir: int) -> None:
    """Moves a name into another directory where it replaces nothing, or fails with EEXIST.

    The caller makes both directories last.  Raises OSError.
    """
    number = _renameat2(old_dir, old, new_dir, new, _RENAME_NOREPLACE)
    if number:
        raise OSError(number, os.strerror(number), new)


def rename_over(old: str, new: str, *, old_dir: int, new_dir: int) -> None:
    """Puts a finished, synced file in another's place; the caller makes the directories last."""
    os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)


def _renameat2(old_dir: int, old: str, new_dir: int, new: str, flags: int) -> int:
    """The number of the error, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 is None:
        return errno.ENOSYS
    done = renameat2(
        ctypes.c_int(old_dir),
        ctypes.c_char_p(os.fsencode(old)),
        ctypes.c_int(new_dir),
        ctypes.c_char_p(os.fsencode(new)),
        ctypes.c_uint(flags),
    )
    return ctypes.get_errno() if done else 0


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_new(name: str, data: bytes, *, dir_fd: int, mode: int = 0o644) -> None:
    """Writes a new file that the caller's later sync of everything makes last. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, mode, dir_fd=dir_fd)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def replace_file(
    name: str, data: bytes, *, dir_fd: int, mode: int = 0o644, sync: bool = True
) -> None:
    """Writes a whole file so that readers and a power cut see the old or the new one.

    Without `sync` the caller makes the directory last.
    """
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
    if sync:
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


def remove_file(name: str, *, dir_fd: int, sync: bool = True) -> bool:
    """Removes a file, and makes its absence last; False when there was none.

    Without `sync` the caller makes the directory last.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    if sync:
        sync_fd(dir_fd)
    return True


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
        if btrfs.is_root(fd) and btrfs.delete(dir_fd, name):
            return
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
