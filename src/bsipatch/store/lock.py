"""One writer at a time: the store's lock, which names who holds it.

The file is its owner's alone, for whoever may open it for reading may also lock it, and so
keep a store from its updates.  Others learn that it is held, and not by whom.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from ..errors import StoreBusyError
from .durable import system_calls

LOCK = "lock"
_PAUSE = 0.05  # seconds between tries
_MAX_HOLDER = 4096
_MODE = 0o600
_SOMEBODY = "a process of the store's owner"


@contextlib.contextmanager
def locked(
    root_fd: int, doing: str, *, timeout: float, file: str, name: str = LOCK
) -> Iterator[None]:
    """Holds the store's lock; `doing` is what others are told ("apply").

    `name`: of the lock's file in the folder, where a folder has several.

    Waits at most `timeout` seconds, then raises StoreBusyError that names the
    holder.  The kernel drops the lock when this process ends, however it ends.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with system_calls("opening the lock", file):
        fd = os.open(name, flags, _MODE, dir_fd=root_fd)
    try:
        with contextlib.suppress(OSError):  # another's file: its owner sees to it
            if os.fstat(fd).st_mode & 0o777 != _MODE:
                os.fchmod(fd, _MODE)  # made by a version that let everybody read it
        _wait(fd, timeout, file)
        with contextlib.suppress(OSError):  # a full disk must not keep anyone from reverting
            _write_holder(fd, doing)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def holder(root_fd: int) -> str | None:
    """Who holds the lock now ("process 17 (bsipatch apply) since ..."), None when free.

    Looks without taking the lock, so that asking never makes an apply fail.  Whoever may not
    read it is told only that somebody holds it.
    """
    try:
        fd = os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=root_fd)
    except PermissionError:
        return _SOMEBODY if _is_held_unread(root_fd) else None
    except OSError:
        return None
    try:
        told = os.pread(fd, _MAX_HOLDER, 0)
        return _read_holder(fd) if told and _is_held(fd, told) else None
    finally:
        os.close(fd)


def _is_held(fd: int, told: bytes) -> bool:
    """By the kernel's own list, else by whether the process that was named lives."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _is_listed(os.fstat(fd).st_ino)
    try:
        os.kill(int(json.loads(told)["pid"]), 0)
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _is_held_unread(root_fd: int) -> bool:
    """The same without the file: by the kernel's list, else by whether a holder is noted in it."""
    try:
        status = os.stat(LOCK, dir_fd=root_fd, follow_symlinks=False)
    except OSError:
        return False
    try:
        return _is_listed(status.st_ino)
    except (OSError, UnicodeDecodeError):
        return status.st_size > 0


def _is_listed(inode: int) -> bool:
    with open("/proc/locks", encoding="ascii") as locks:
        return any(" FLOCK " in line and _inode_of(line) == str(inode) for line in locks)


def _inode_of(line: str) -> str:
    """The inode in a line such as "1: FLOCK  ADVISORY  WRITE 17 fe:00:4711 0 EOF"."""
    fields = line.split()
    return fields[5].rpartition(":")[2] if len(fields) > 5 else ""


def _wait(fd: int, timeout: float, file: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                with system_calls("locking", file):
                    raise
        if time.monotonic() >= deadline:
            raise StoreBusyError(_read_holder(fd), file=file)
        time.sleep(_PAUSE)


def _write_holder(fd: int, doing: str) -> None:
    command = f"{os.path.basename(sys.argv[0] or 'python')} {doing}"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"pid": os.getpid(), "command": command, "since": since})
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode(), 0)


def _read_holder(fd: int) -> str:
    try:
        told = json.loads(os.pread(fd, _MAX_HOLDER, 0))
        return f"process {int(told['pid'])} ({told['command']}) since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process, which has not said who it is"
