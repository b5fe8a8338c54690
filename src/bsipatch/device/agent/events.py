"""What ends a wait: a moment, a signal, files that changed, programs that ended. No polling.

Linux tells all of them through descriptors.  Elsewhere, and where a kernel lacks one, the
moment alone counts; the agent then notices changes when it looks the next time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from ...closing import Closing

_IN_CLOSE_WRITE, _IN_MOVED_TO = 0x08, 0x80
_IN_MOVE_SELF, _IN_DELETE_SELF = 0x800, 0x400
_IN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_EVENT = struct.Struct("iIII")
_CLOCK_REALTIME = 0
_ABSOLUTE, _CANCEL_ON_SET = 1, 2
_TIMES = struct.Struct("@llll")
_MOST = 1 << 16
#: seconds that poll is asked for at most, so that its milliseconds fit
_LONGEST = 86_400.0


class Waker(Closing):
    """Waits. For the main thread: it takes over the signals. Use it as a context manager."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._poll = select.poll()
        self._read, self._write = os.pipe2(_IN_FLAGS) if hasattr(os, "pipe2") else _pipe()
        self._poll.register(self._read, select.POLLIN)
        self._before = {n: signal.signal(n, lambda number, frame: None) for n in signals}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._files = self._call("inotify_init1", _IN_FLAGS)
        self._timer = self._call("timerfd_create", _CLOCK_REALTIME, _IN_FLAGS)
        for fd in (self._files, self._timer):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)
        self._pids: dict[int, int] = {}
        self._sockets: set[int] = set()
        self._closed = False

    def close(self) -> None:
        """Gives the signals back, and stops watching; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self.watch_pids(())
        for fd in (self._files, self._timer, self._read, self._write):
            if fd >= 0:
                os.close(fd)

    def watch_folder(self, folder: Path) -> None:
        """Wakes when a file in it was replaced or written. One that is not there never does."""
        if self._files >= 0 and self._libc is not None:
            mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_MOVE_SELF | _IN_DELETE_SELF
            self._libc.inotify_add_watch(self._files, os.fsencode(folder), mask)

    def watch_pids(self, pids: Iterable[int]) -> None:
        """Wakes when one of these programs ends, and of no others."""
        wanted = set(pids)
        for pid in set(self._pids) - wanted:
            fd = self._pids.pop(pid)
            self._poll.unregister(fd)
            os.close(fd)
        for pid in wanted - set(self._pids):
            with contextlib.suppress(OSError, AttributeError):
                fd = os.pidfd_open(pid)
                self._pids[pid] = fd
                self._poll.register(fd, select.POLLIN)

    def watch_socket(self, fd: int, *, watched: bool) -> None:
        """Wakes when somebody connects, or no longer does."""
        if watched and fd not in self._sockets:
            self._sockets.add(fd)
            self._poll.register(fd, select.POLLIN)
        elif not watched and fd in self._sockets:
            self._sockets.discard(fd)
            self._poll.unregister(fd)

    def wait(self, until: float, most: float | None = None) -> Woken:
        """Until the moment (seconds since 1970), whatever the clock is set to, or an event.

        At most `most` seconds, for whoever has something to say in between.
        """
        left = max(0.0, until - time.time())
        if self._timer >= 0 and self._libc is not None:
            times = _TIMES.pack(0, 0, int(max(until, 1)), int(until % 1 * 1e9) or 1)
            self._libc.timerfd_settime(self._timer, _ABSOLUTE | _CANCEL_ON_SET, times, None)
            left = _LONGEST
        timeout = min(left, _LONGEST, _LONGEST if most is None else most)
        ready = {fd for fd, _ in self._poll.poll(int(timeout * 1000) + 1)}
        woken = Woken()
        if self._read in ready:
            woken.signals = {signal.Signals(number) for number in _drained(self._read)}
        if self._files in ready:
            woken.files = bool(_drained(self._files))
        if self._timer in ready:
            # ECANCELED: the clock was set, so that every moment is to be asked for anew
            with contextlib.suppress(OSError):
                os.read(self._timer, 8)
            woken.clock = True
        woken.pids = {pid for pid, fd in self._pids.items() if fd in ready}
        woken.sockets = self._sockets & ready
        return woken

    def forget_files(self) -> None:
        """What changed so far was our own doing."""
        if self._files >= 0:
            _drained(self._files)

    def _call(self, name: str, *arguments: int) -> int:
        function = getattr(self._libc, name, None) if self._libc is not None else None
        return -1 if function is None else int(function(*arguments))


class Woken:
    """What ended a wait."""

    def __init__(self) -> None:
        self.signals: set[signal.Signals] = set()
        self.files = False
        self.clock = False
        self.pids: set[int] = set()
        self.sockets: set[int] = set()


def _drained(fd: int) -> bytes:
    found = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, _MOST):
            found += data
    return found


def _pipe() -> tuple[int, int]:
    pair = os.pipe()
    for fd in pair:
        os.set_blocking(fd, False)
    return pair
