"""What a command costs: wall and CPU time, private memory, bytes written.

Each command runs as a child of its own.  Times come from the clock around it and from
wait4; memory is sampled while it runs, when that is asked for: looking on takes some
percent of a processor, which short runs on every processor would feel.  Bytes written
are read from its /proc entry once it has ended and before it is reaped.  Where there is
no /proc (macOS), memory is the largest resident set and bytes written are unknown.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: seconds between two samples of memory, at first and at most
_FIRST, _LAST = 0.0005, 0.005
#: of a process's time, the share that walking its page tables may take
_ROLLUP_SHARE = 0.02


class RunError(Exception):
    """A command failed, or took too long; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What commands cost. Seconds and bytes; None where the system does not tell."""

    seconds: float
    user: float
    system: float
    private: int | None  #: the most private memory at once: anonymous or swapped; if watched
    rss: int  #: the largest resident set, file pages included
    written: int | None  #: bytes that went to storage or will
    faults: int  #: page faults
    switches: int  #: context switches

    @property
    def cpu(self) -> float:
        """Seconds of processor time."""
        return self.user + self.system


def total(costs: Iterable[Cost]) -> Cost:
    """Commands one after another: times and bytes add up, memory is the most of any."""
    them = list(costs)
    private = [cost.private for cost in them if cost.private is not None]
    written = [cost.written for cost in them if cost.written is not None]
    return Cost(
        seconds=sum(cost.seconds for cost in them),
        user=sum(cost.user for cost in them),
        system=sum(cost.system for cost in them),
        private=max(private) if len(private) == len(them) else None,
        rss=max((cost.rss for cost in them), default=0),
        written=sum(written) if len(written) == len(them) else None,
        faults=sum(cost.faults for cost in them),
        switches=sum(cost.switches for cost in them),
    )


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    watch: bool = True,
) -> tuple[Cost, str]:
    """Runs a command to its end; gives its cost and what it printed on stdout.

    timeout: seconds.  watch: for its private memory.  Raises: RunError.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        try:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=_usual(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise RunError(f"{command[0]} cannot be run: {error}") from error
        sampler = _Sampler(child.pid, on=watch)
        killer = _Killer(child.pid, timeout)
        try:
            ended, written = _wait(child.pid)
            private = sampler.stop()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            killer.cancel()
            sampler.stop()
            if child.returncode is None:
                _kill(child.pid)
                child.wait()
        if killer.fired:
            raise RunError(f"took longer than {timeout:.0f} s")
        if child.returncode:
            out.seek(0)
            err.seek(0)
            words = (err.read() or out.read()).decode(errors="replace").split("\n")
            told = " / ".join([line.strip() for line in words if line.strip()][-3:])
            raise RunError(f"exit code {child.returncode}: {told or 'no output'}")
        out.seek(0)
        printed = out.read().decode(errors="replace")
    rss = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    cost = Cost(
        seconds=(ended or time.perf_counter()) - began,
        user=usage.ru_utime,
        system=usage.ru_stime,
        private=private,
        rss=rss,
        written=written,
        faults=usage.ru_minflt + usage.ru_majflt,
        switches=usage.ru_nvcsw + usage.ru_nivcsw,
    )
    return cost, printed


def _usual(env: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a program as users run it: compiled modules are kept between starts."""
    usual = dict(os.environ if env is None else env)
    usual.pop("PYTHONDONTWRITEBYTECODE", None)
    return usual


def _wait(pid: int) -> tuple[float, int | None]:
    """Waits without reaping, where that can be done; when it ended, and its bytes written."""
    if not hasattr(os, "waitid"):
        return 0.0, None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ended = time.perf_counter()
    return ended, fields(PROC / str(pid) / "io").get("write_bytes")


def _kill(pid: int) -> None:
    """Ends a child and all that it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _Killer:
    """Ends a process that takes too long."""

    def __init__(self, pid: int, timeout: float | None) -> None:
        self.fired = False
        self._pid = pid
        self._timer = threading.Timer(timeout, self._fire) if timeout else None
        if self._timer:
            self._timer.daemon = True
            self._timer.start()

    def _fire(self) -> None:
        self.fired = True
        _kill(self._pid)

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()


# --- memory ---


def fields(path: Path) -> dict[str, int]:
    """Numbers of a /proc file of `name: number` lines; KiB become bytes. Empty if unreadable."""
    found: dict[str, int] = {}
    try:
        text = path.read_text()
    except OSError:
        return found
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def private_rollup(pid: int) -> int | None:
    """Exact private memory: pages that no file backs, and those swapped out.

    Pages of mapped files are not counted, though the system calls them private while no
    one else maps them, and dirty while they wait to be written: they are the page cache's.
    """
    told = fields(PROC / str(pid) / "smaps_rollup")
    return told["Anonymous"] + told.get("Swap", 0) if "Anonymous" in told else None


def private_quick(pid: int) -> int | None:
    """About the same from counters that the system keeps: cheap enough to ask often."""
    told = fields(PROC / str(pid) / "status")
    return told["RssAnon"] + told.get("VmSwap", 0) if "RssAnon" in told else None


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in PROC.glob(f"{parent}/task/*/children"):
            try:
                found += [int(word) for word in task.read_text().split()]
            except OSError:
                continue
    return found


class _Sampler:
    """Watches the private memory of a process and its children in a thread."""

    def __init__(self, pid: int, *, on: bool) -> None:
        self._pid = pid
        self._peak: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True) if on else None
        if self._thread is not None:
            self._thread.start()

    def stop(self) -> int | None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return self._peak

    def _watch(self) -> None:
        pause, next_rollup = _FIRST, 0.0
        while True:
            now = time.perf_counter()
            pids = family(self._pid)
            ask = private_rollup if now >= next_rollup else private_quick
            seen = [value for value in map(ask, pids) if value is not None]
            if seen:
                self._peak = max(self._peak or 0, sum(seen))
            if ask is private_rollup:
                took = time.perf_counter() - now
                next_rollup = now + max(10 * pause, took / _ROLLUP_SHARE)
            if self._stop.wait(pause):
                return
            pause = min(pause * 1.5, _LAST)
