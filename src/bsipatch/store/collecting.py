"""Removes generations that nobody needs any more."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..limits import Limits
from . import durable, history, records
from .recovery import discard, read_generation


@dataclass(frozen=True, slots=True)
class Collected:
    """Which generations went, which stay, and the bytes of disk that came free."""

    removed: tuple[int, ...]
    kept: tuple[int, ...]
    freed: int


def collect(root_fd: int, file: str, limits: Limits) -> Collected:
    """Keeps the baseline, the live generation and the one before it; the store must be locked.

    Each generation goes by a durable rename to the trash first, so that a crash
    never leaves half of one in place.  Raises StoreDamagedError, SystemCallError.
    """
    with durable.system_calls("collecting", file):
        live = read_generation(root_fd, records.live_number(root_fd, file), file, limits)
        there = records.generation_numbers(root_fd)
        keep = {records.BASELINE, live.number}
        if live.previous is not None and live.previous in there:
            keep.add(live.previous)
        before = _free(root_fd)
        removed = [number for number in there if number not in keep]
        for number in removed:
            discard(root_fd, number)
        history.trim(root_fd, limits.max_history)
        if removed:
            history.append(
                root_fd,
                history.event(
                    "gc",
                    live.number,
                    display=live.display,
                    build=live.build,
                    reason="removed generations " + ", ".join(map(str, removed)),
                ),
            )
        freed = max(0, _free(root_fd) - before)
    return Collected(tuple(removed), tuple(sorted(keep)), freed)


def _free(root_fd: int) -> int:
    status = os.fstatvfs(root_fd)
    return status.f_bfree * status.f_frsize
