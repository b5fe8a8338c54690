"""STORE/operation.json: which operation is under way, for the other processes of this device.

Held by a lock that the kernel drops when its process ends, however it ends; what is
written in it counts only as long as the lock is held.  It is never synced: it tells of a
running process, and after a power cut there is none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import msgspec

from ..errors import StoreBusyError, from_os_error
from .service_state import Progress

NAME = "operation.json"
#: written whole, so that what was longer before leaves no rest behind
_SIZE = 1024
#: seconds in which another process' look at the lock is over
_PATIENCE = 0.5
_PAUSE = 0.02
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Beacon:
    """One process' side. Callers see to it that one thread at a time holds it."""

    def __init__(self, store: Path) -> None:
        self._path = store / NAME
        self._fd = -1

    def light(self, progress: Progress) -> None:
        """Raises StoreBusyError when another process has an operation under way, SystemCallError.

        The file is its owner's alone: whoever can open a file can also hold its lock, and
        so keep this device from its improvements.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            raise from_os_error(error, self._path) from error
        try:
            if not _locked(fd):
                told = _read(fd)
                what = f"{told.operation} since {told.began}" if told else "something"
                who = f"process {told.process}" if told else "another process"
                raise StoreBusyError(
                    f"{who} is busy with {what}",
                    file=self._path,
                    hint="Wait for its end.",
                )
        except OSError as error:
            os.close(fd)
            raise from_os_error(error, self._path) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self.write(progress)

    def write(self, progress: Progress) -> None:
        """What others are to see now. A full disk keeps nobody from installing."""
        told = msgspec.structs.replace(progress, process=os.getpid())
        data = msgspec.json.encode(told)
        if self._fd >= 0 and len(data) <= _SIZE:
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, data.ljust(_SIZE), 0)

    def quench(self) -> None:
        """The operation has ended."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)

    def look(self) -> Progress | None:
        """Another process' operation; None when there is none, or it may not be seen."""
        try:
            fd = os.open(self._path, os.O_RDONLY | _FLAGS)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _read(fd)
        finally:
            os.close(fd)
        return None


def _locked(fd: int) -> bool:
    """Whether the lock is ours now. Raises OSError."""
    ends = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= ends:
                return False
        time.sleep(_PAUSE)


def _read(fd: int) -> Progress | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(os.pread(fd, _SIZE, 0), type=Progress)
    return None
