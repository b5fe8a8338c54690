"""Runs one program of a health check: for so long, saying so much, and never beyond that.

The program gets a session and process group of its own, no input, a small
environment and no descriptor of ours.  When its time is over the whole group is
killed; so is whatever it left running when it ended.  A program that starts a
session of its own escapes that, but keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import CancelledError

#: seconds between looks at the clock and at `stop`
_TICK = 0.05
_CHUNK = 1 << 16
#: all that a program finds of our own environment
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    problem  "" when it ended with exit code 0, else one clause
    output   what it wrote last, on stdout and stderr, up to the limit
    seconds  how long it took
    """

    problem: str
    output: str
    seconds: float


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a health command."""
    return {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/", **more}


def run(
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    seconds: float,
    most: int,
    stop: threading.Event | None = None,
) -> Outcome:
    """Runs `command` in `cwd` with exactly the environment `env`.

    seconds: its time; then it is killed with all its children.  most: bytes of
    output that are kept, the last ones.  Raises CancelledError once `stop` is
    set; the program is killed then too.  Never raises for what the program does.
    """
    began = time.monotonic()
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Outcome(f"cannot be run: {reason}", "", time.monotonic() - began)
    tail = _Tail(most)
    try:
        in_time = _follow(child, tail, began + seconds, stop)
    finally:
        _end(child, tail)
    if not in_time:
        problem = f"did not end within {seconds:g} s and was killed"
    elif child.returncode < 0:
        problem = f"was killed by {_signal_name(-child.returncode)}"
    else:
        problem = f"ended with exit code {child.returncode}" if child.returncode else ""
    return Outcome(problem, tail.text(), time.monotonic() - began)


def _follow(
    child: subprocess.Popen[bytes], tail: _Tail, deadline: float, stop: threading.Event | None
) -> bool:
    """Reads along until the program ends; False when its time is over first."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if stop is not None and stop.is_set():
                raise CancelledError
            left = deadline - time.monotonic()
            if child.poll() is not None:
                return True
            if left <= 0:
                return False
            if not selector.get_map():
                time.sleep(min(_TICK, left))
            for _ in selector.select(min(_TICK, left)) if selector.get_map() else ():
                data = os.read(child.stdout.fileno(), _CHUNK)
                if data:
                    tail.add(data)
                else:  # it closed its output and goes on
                    selector.unregister(child.stdout)


def _end(child: subprocess.Popen[bytes], tail: _Tail) -> None:
    """Kills what is left of the group, and reads what was written so far."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    with child.stdout:
        os.set_blocking(child.stdout.fileno(), False)
        # What escaped may go on writing; the pipe's own size bounds what is read here.
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):
                data = os.read(child.stdout.fileno(), _CHUNK)
                if not data:
                    break
                tail.add(data)


class _Tail:
    """The last bytes of what was written."""

    def __init__(self, most: int) -> None:
        self._most, self._data, self._cut = most, b"", False

    def add(self, data: bytes) -> None:
        data = self._data + data
        self._cut = self._cut or len(data) > self._most
        self._data = data[-self._most :]

    def text(self) -> str:
        """As text without control characters, which a terminal might obey."""
        text = self._data.decode("utf-8", "replace").strip()
        clean = "".join(
            c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
        )
        return f"… {clean}" if self._cut else clean


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
