"""One writer at a time: the store's lock, which names who holds it."""

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


@contextlib.contextmanager
def locked(root_fd: int, doing: str, *, timeout: float, file: str) -> Iterator[None]:
    """Holds the store's lock; `doing` is what others are told ("apply").

    Waits at most `timeout` seconds, then raises StoreBusyError that names the
    holder.  The kernel drops the lock when this process ends, however it ends.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with system_calls("opening the lock", file):
        fd = os.open(LOCK, flags, 0o644, dir_fd=root_fd)
    try:
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

    Looks without taking the lock, so that asking never makes an apply fail.
    """
    try:
        fd = os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=root_fd)
    except OSError:
        return None
    try:
        told = os.pread(fd, _MAX_HOLDER, 0)
        return _read_holder(fd) if told and _is_held(fd, told) else None
    finally:
        os.close(fd)


def _is_held(fd: int, told: bytes) -> bool:
    """By the kernel's own list, else by whether the process that was named lives."""
    try:
        inode = str(os.fstat(fd).st_ino)
        with open("/proc/locks", encoding="ascii") as locks:
            return any(" FLOCK " in line and _inode_of(line) == inode for line in locks)
    except (OSError, UnicodeDecodeError):
        pass
    try:
        os.kill(int(json.loads(told)["pid"]), 0)
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


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
