"""How fast a transfer must be and may be, and the meter that holds it to that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import TransferError
from ..limits import DEFAULT, Limits


class SlowTransferError(TransferError):
    """Slower than the least rate, or longer than the time allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a transfer must be and may be.

    connect_timeout, read_timeout  seconds for a connection, and between two arrivals
    min_rate   least bytes a second, averaged over each `window` seconds; 0 asks nothing
    window     seconds
    total      seconds for the whole of one object; None for no end
    max_rate   most bytes a second, averaged; None for no limit
    """

    connect_timeout: float = DEFAULT.connect_timeout
    read_timeout: float = DEFAULT.read_timeout
    min_rate: int = DEFAULT.min_rate
    window: float = 60.0
    total: float | None = None
    max_rate: int | None = None

    @classmethod
    def of(cls, limits: Limits, **more: Any) -> Pace:
        """The limits' values, changed by name."""
        found = {
            "connect_timeout": limits.connect_timeout,
            "read_timeout": limits.read_timeout,
            "min_rate": limits.min_rate,
        }
        return cls(**{**found, **more})


class Meter:
    """Holds one transfer to its pace. Not for several threads."""

    def __init__(
        self,
        pace: Pace,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pace, self._name, self._clock, self._sleep = pace, name, clock, sleep
        self._began = self._window_began = clock()
        self._total = self._in_window = 0
        self._slept = 0.0
        # Someone who asks for a low rate must not be punished for getting it.
        self._least = min(pace.min_rate, pace.max_rate // 2) if pace.max_rate else pace.min_rate

    def took(self, count: int) -> None:
        """`count` more bytes came. Waits when they came too fast, raises SlowTransferError
        when they came too slowly."""
        self._total += count
        self._in_window += count
        now = self._clock()
        if self._pace.total is not None and now - self._began > self._pace.total:
            raise SlowTransferError(
                "it takes longer than it may", file=self._name, expected=f"{self._pace.total:g} s"
            )
        taken = now - self._window_began - self._slept
        if taken >= self._pace.window:
            if self._in_window < self._least * taken:
                raise SlowTransferError(
                    "it is too slow",
                    file=self._name,
                    expected=f"{self._least} bytes a second",
                    found=f"{int(self._in_window / taken)} over {taken:.0f} s",
                )
            self._window_began, self._in_window, self._slept = now, 0, 0.0
        if self._pace.max_rate:
            ahead = self._total / self._pace.max_rate - (now - self._began)
            if ahead > 0:
                self._sleep(ahead)
                self._slept += ahead
