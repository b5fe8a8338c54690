"""Removes generations that nobody needs any more."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..limits import Limits
from . import durable, history, records, trials
from .beneath import DIRECTORY
from .generations import discard, read_generation


@dataclass(frozen=True, slots=True)
class Collected:
    """Which generations went, which stay, and the bytes of disk that came free.

    Blocks that clones share count as free here although another generation holds them.
    """

    removed: tuple[int, ...]
    kept: tuple[int, ...]
    freed: int


def collect(root_fd: int, file: str, limits: Limits) -> Collected:
    """Keeps the baseline, the live generation and the one before it; the store must be locked.

    While a generation is on trial, the one that is live again if it fails stays too.
    Each generation goes by a durable rename to the trash first, so that a crash
    never leaves half of one in place.  Raises StoreDamagedError, SystemCallError.
    """
    with durable.system_calls("collecting", file):
        live = read_generation(root_fd, records.live_number(root_fd, file), file, limits)
        there = records.generation_numbers(root_fd)
        keep = {records.BASELINE, live.number}
        if live.previous is not None and live.previous in there:
            keep.add(live.previous)
        trial = trials.read(root_fd, file, limits)
        if trial is not None and trial.old in there:
            keep.add(trial.old)
        removed = [number for number in there if number not in keep]
        freed = 0
        for number in removed:
            freed += _own_bytes(records.generation_name(number), root_fd)
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
    return Collected(tuple(removed), tuple(sorted(keep)), freed)


def make_room(root_fd: int, file: str, limits: Limits) -> None:
    """Collects when there are more generations than the limit, and only then."""
    with durable.system_calls("making room", file):
        many = len(records.generation_numbers(root_fd)) > limits.max_generations
    if many:
        collect(root_fd, file, limits)


def _own_bytes(name: str, dir_fd: int) -> int:
    """Bytes of disk below a directory that no other generation holds by a hard link."""
    fd = os.open(name, DIRECTORY, dir_fd=dir_fd)
    total = 0
    try:
        with os.scandir(fd) as entries:
            found = list(entries)
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                if not entry.is_dir(follow_symlinks=False) and status.st_nlink == 1:
                    total += status.st_blocks * 512
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                total += _own_bytes(entry.name, fd)
    finally:
        os.close(fd)
    return total
