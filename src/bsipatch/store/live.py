"""The one pointer: flipping it, and where a revert leads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..errors import BsipatchError
from ..limits import Limits
from . import durable, exchange, grouped, records
from .generations import read_generation
from .records import Generation, Member


def flip(root_fd: int, number: int, *, sync: bool = True) -> None:
    """Makes a generation live: one atomic rename, made to last. Raises OSError.

    Every move of the pointer goes through here.  Without `sync` the caller makes
    the store's folder last.  A live path that is a directory is exchanged first;
    when either fails it shows again what it showed before.  The pointer of a
    component is its group's (see grouped.py).
    """
    component = grouped.name_of(root_fd)
    if component is not None:
        grouped.flip(root_fd, component, number)
        return
    target = records.generation_name(number)
    before = exchange.shown(root_fd)
    try:
        exchange.show(root_fd, number)
        durable.replace_link(records.CURRENT, target, dir_fd=root_fd, sync=sync)
    except BaseException:
        if before is not None:
            with contextlib.suppress(OSError, BsipatchError):
                exchange.show(root_fd, before)
        raise


def flip_together(root_fd: int, members: Iterable[Member]) -> None:
    """Moves the pointers of a group's components, in one step; `root_fd` is any of them.

    Raises OSError, StoreBusyError.
    """
    grouped.flip_together(root_fd, members)


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
