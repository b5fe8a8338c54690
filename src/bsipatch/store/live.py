"""The one pointer: which generation is live, flipping it, and where a revert leads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ..errors import StoreStateError
from ..limits import Limits
from . import durable, history, records
from .records import Generation
from .recovery import read_generation


@dataclass(frozen=True, slots=True)
class Reverted:
    """What a revert did; `seconds` is the work done under the lock."""

    left: Generation
    live: Generation
    seconds: float


def flip(root_fd: int, number: int, *, sync: bool = True) -> None:
    """Makes a generation live: one atomic rename, made to last. Raises OSError."""
    target = records.generation_name(number)
    durable.replace_link(records.CURRENT, target, dir_fd=root_fd, sync=sync)


def reachable(root_fd: int, live: Generation, file: str, limits: Limits) -> list[Generation]:
    """What can be reverted to, nearest first; the baseline is last, and never listed twice.

    Each generation remembers the one before it.  One that was collected since
    is skipped.
    """
    there = set(records.generation_numbers(root_fd))
    found: list[Generation] = []
    at = live
    seen = {live.number}
    while at.previous is not None and at.previous not in seen and at.previous in there:
        seen.add(at.previous)
        at = read_generation(root_fd, at.previous, file, limits)
        found.append(at)
    if records.BASELINE not in seen:
        found.append(read_generation(root_fd, records.BASELINE, file, limits))
    return found


def revert(root_fd: int, file: str, limits: Limits, *, baseline: bool) -> Reverted:
    """Goes back one generation, or to the baseline. The store must be locked and recovered.

    Costs two small writes whatever the tree's size.  Raises StoreStateError
    when the baseline is live.
    """
    began = time.perf_counter()
    with durable.system_calls("reverting", file):
        left = read_generation(root_fd, records.live_number(root_fd, file), file, limits)
        if left.number == records.BASELINE:
            raise StoreStateError(
                "the baseline is live: there is nothing to revert", file=file, hint=""
            )
        targets = reachable(root_fd, left, file, limits)
        target = targets[-1] if baseline else targets[0]
        tree = f"{records.generation_name(target.number)}/{records.TREE}"
        os.close(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd))
        # Journalling file systems commit the rename with the history's line, so that the last
        # sync has nothing left to do. Cut off in between, recovery tells which of both it was.
        flip(root_fd, target.number, sync=False)
        history.append(
            root_fd,
            history.event(
                "revert",
                target.number,
                was=left.number,
                display=target.display,
                build=target.build,
            ),
        )
        durable.sync_fd(root_fd)
    return Reverted(left, target, time.perf_counter() - began)
