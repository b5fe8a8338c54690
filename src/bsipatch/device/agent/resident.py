"""The agent that stays: it waits, and starts a process for each piece of work.

What it imports is what it weighs: next to nothing beyond the interpreter.  A process of
its own for each look brings the memory back when it ends, and a crash ends no more than that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import StoreBusyError, UsageError, from_os_error
from .. import notify
from . import early, single
from . import memo as memos
from .events import Waker, Woken

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
#: seconds after which a worker that died is followed by another, doubled each time
_AFTER_DEATH, _LONGEST_PAUSE = 30.0, 3600.0
#: seconds that children get to end when we do, and that a worker may take for all of its work
_GRACE, _MOST_WORK = 80.0, 6 * 3600.0
#: seconds for which an agent that ends is waited for
_HANDOVER = 10.0
#: the shortest time between two looks without an event
_BREATH = 1.0
_BACKLOG = 64


@dataclass(slots=True)
class Door:
    """A listening socket, and the process that answers it while somebody asks."""

    role: str
    socket: socket.socket
    child: subprocess.Popen[bytes] | None = None


class Resident:
    """One run of the agent, from start to signal."""

    def __init__(self, root: Path, every: float | None, doors: Sequence[Door]) -> None:
        self._root, self._every, self._doors = root, every, doors
        self._timing = early.timing(every)
        self._lock = -1
        self._worker: subprocess.Popen[bytes] | None = None
        self._began, self._deaths, self._wake = 0.0, 0, 0.0
        self._again = False
        self._notifier = notify.Notifier.from_environment()
        self._watchdog = notify.watchdog_interval()

    def run(self) -> int:
        """Until SIGTERM or SIGINT. Raises StoreBusyError, SystemCallError."""
        with Waker(_SIGNALS) as waker, self._notifier:
            self._lock = self._locked()
            try:
                self._watch_folders(waker)
                for door in self._doors:
                    waker.watch_socket(door.socket.fileno(), watched=True)
                self._notifier.ready("starting")
                self._until_signal(waker)
                self._notifier.stopping("stopping")
                self._end_children()
            finally:
                self._kill_children()
                os.close(self._lock)
        return 0

    def _locked(self) -> int:
        deadline = time.monotonic() + _HANDOVER
        while True:
            try:
                return single.lock(self._root)
            except StoreBusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _until_signal(self, waker: Waker) -> None:
        self._look(waker)
        while True:
            woken = waker.wait(self._moment(), self._watchdog)
            if woken.signals & {signal.SIGTERM, signal.SIGINT}:
                return
            if self._watchdog is not None:
                self._notifier.alive()
            self._reap(waker)
            self._answer(waker, woken)
            self._again |= signal.SIGHUP in woken.signals
            if self._worker is not None:
                if time.monotonic() - self._began > _MOST_WORK:
                    self._worker.terminate()
            elif self._is_called(waker, woken):
                self._look(waker)

    def _is_called(self, waker: Waker, woken: Woken) -> bool:
        if self._again or woken.pids or time.time() >= self._wake:
            return True
        return (woken.files or woken.clock) and not self._is_quiet(waker)

    def _moment(self) -> float:
        """When to wake by itself, seconds since 1970."""
        if self._worker is not None:
            return time.time() + max(1.0, self._began + _MOST_WORK - time.monotonic())
        return self._wake

    def _is_quiet(self, waker: Waker) -> bool:
        if not single.holds(self._root, self._lock):
            # Another base was adopted: the store at this place is a new one.
            fresh = single.lock(self._root)
            os.close(self._lock)
            self._lock = fresh
            self._watch_folders(waker)
            return False
        return early.quiet(self._root, time.time(), self._timing)

    def _watch_folders(self, waker: Waker) -> None:
        for folder in early.watched(self._root):
            waker.watch_folder(folder)

    # --- the worker ---

    def _look(self, waker: Waker) -> None:
        waker.watch_pids(())
        self._again = False
        every = [] if self._every is None else [str(self._every)]
        self._began = time.monotonic()
        self._worker = _start("work", self._lock, str(self._root), *every)
        self._notifier.status("working")

    def _reap(self, waker: Waker) -> None:
        for door in self._doors:
            if door.child is not None and door.child.poll() is not None:
                door.child = None
                waker.watch_socket(door.socket.fileno(), watched=True)
        if self._worker is None or self._worker.poll() is None:
            return
        code, self._worker = self._worker.returncode, None
        waker.forget_files()
        known, now = memos.load(self._root), time.time()
        if code != 0:
            self._deaths += 1
            pause = min(_AFTER_DEATH * 2 ** min(self._deaths - 1, 16), _LONGEST_PAUSE)
            self._wake = now + pause
            self._notifier.status(f"a worker ended with {code}, another follows in {pause:.0f} s")
            return
        self._deaths = 0
        self._wake = max(known.wake, now + _BREATH)
        # Whatever somebody else changed after it was looked at is not asleep.
        if not self._is_quiet(waker) and known.wake > now:
            self._wake = now + _BREATH
        waker.watch_pids(known.pids)
        self._notifier.status(f"waits for: {known.doing}")

    # --- who asks ---

    def _answer(self, waker: Waker, woken: Woken) -> None:
        for door in self._doors:
            fd = door.socket.fileno()
            if fd in woken.sockets and door.child is None:
                # From here on it accepts, we do not look.
                waker.watch_socket(fd, watched=False)
                door.child = _start(door.role, fd, str(self._root))

    # --- the end ---

    def _children(self) -> list[subprocess.Popen[bytes]]:
        found = [self._worker, *(door.child for door in self._doors)]
        return [child for child in found if child is not None and child.poll() is None]

    def _end_children(self) -> None:
        """Asks them to stop, and waits: a worker stops between two steps, and clears up."""
        for child in self._children():
            child.terminate()
        deadline = time.monotonic() + _GRACE
        for child in self._children():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))

    def _kill_children(self) -> None:
        for child in self._children():
            child.kill()
            child.wait()


def _start(role: str, fd: int, *arguments: str) -> subprocess.Popen[bytes]:
    """A child with one descriptor of ours: the lock that it keeps held, or where it listens."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", f"{__package__}.children", role, str(os.getpid()), str(fd)]
    return subprocess.Popen(
        [*command, *arguments], pass_fds=(fd,), env=environment, stdin=subprocess.DEVNULL
    )


def doors(metrics: str | None) -> list[Door]:
    """The sockets that a service manager opened, and one for Prometheus where it is asked for.

    Raises UsageError for an address that is none, SystemCallError.
    """
    found = []
    for name, fds in notify.activated_sockets().items():
        role = "metrics" if name == "metrics" else "api"
        found += [Door(role, socket.socket(fileno=fd)) for fd in fds]
    if metrics is not None:
        found.append(Door("metrics", listening(metrics)))
    return found


def listening(address: str) -> socket.socket:
    """Listens at ADDRESS:PORT. Raises UsageError, SystemCallError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            "no address to listen at", expected="such as 127.0.0.1:9464", found=address
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, int(port)))
            made.listen(_BACKLOG)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise from_os_error(error, address) from error
    return made
