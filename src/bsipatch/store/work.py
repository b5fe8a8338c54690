"""How a long operation of the store is steered: threads, progress, a way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import CancelledError

#: called with phase, bytes done and bytes in all
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(slots=True, kw_only=True)
class Work:
    """jobs: threads. progress: told what is done, from any thread. stop: set it to cancel."""

    jobs: int = 1
    progress: Progress | None = None
    stop: threading.Event | None = None
    _phase: str = ""
    _total: int = 0
    _done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raises CancelledError once `stop` is set."""
        if self.stop is not None and self.stop.is_set():
            raise CancelledError

    def begin(self, phase: str, total: int) -> None:
        """The next phase, of `total` bytes."""
        self.check()
        with self._lock:
            self._phase, self._total, self._done = phase, total, 0
        self._tell()

    def advance(self, count: int) -> None:
        """`count` more bytes are done. Raises CancelledError."""
        self.check()
        with self._lock:
            self._done += count
        self._tell()

    @property
    def total(self) -> int:
        """Bytes of the current phase."""
        return self._total

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self._phase, min(self._done, self._total), self._total)


class Share:
    """One file's part of a phase, for callbacks that report absolute numbers."""

    def __init__(self, work: Work, size: int) -> None:
        self._work, self._size, self._done = work, size, 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """delta's progress callback; only what is written counts, the rest just polls."""
        if phase == "write":
            step = max(0, min(done, self._size) - self._done)
            self._done += step
            self._work.advance(step)
        else:
            self._work.check()

    def finish(self) -> None:
        """Whatever was not reported yet."""
        self._work.advance(self._size - self._done)
        self._done = self._size
