"""One agent for a store: STORE/agent.lock, held for as long as any of its processes lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ...errors import StoreBusyError, from_os_error

NAME = "agent.lock"


def lock(store: Path) -> int:
    """The locked descriptor; closing it lets go, which the kernel does for a killed process.

    Children inherit it only when it is passed to them.  Raises StoreBusyError when another
    agent works on this store, NotFoundError, SystemCallError.
    """
    path = store / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(fd)
        os.close(fd)
        raise StoreBusyError(
            f"another agent works on this store{holder}",
            file=path,
            hint="One agent is enough: the service or the timer, not both.",
        ) from None
    except OSError as error:
        os.close(fd)
        raise from_os_error(error, path) from error
    with contextlib.suppress(OSError):  # a full disk keeps no agent from working
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def holds(store: Path, fd: int) -> bool:
    """Whether the locked file is still the store's: adopting a base puts another in its place."""
    with contextlib.suppress(OSError):
        ours, named = os.fstat(fd), os.lstat(store / NAME)
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
    return False


def _holder(fd: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f", process {int(os.pread(fd, 20, 0))}"
    return ""
