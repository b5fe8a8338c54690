"""Whoever opens the store for writing first brings it back to a whole state.

Recovery may itself be interrupted anywhere and simply runs again.
"""

from __future__ import annotations

import contextlib
import os

from ..errors import NotFoundError, StoreDamagedError
from ..limits import Limits
from . import durable, history, records
from .records import Generation, Pending


def recover(root_fd: int, file: str, limits: Limits) -> list[str]:
    """Finishes or undoes what an interrupted run left, under the lock.

    Returns what was done, as sentences, empty after a clean end.  Raises
    StoreDamagedError when the live generation itself is not there.
    """
    done: list[str] = []
    with durable.system_calls("recovering the store", file):
        live = records.live_number(root_fd, file)
        if live not in records.generation_numbers(root_fd):
            raise StoreDamagedError("the live generation is missing", file=file, found=live)
        done += _settle_pending(root_fd, file, limits, live)
        for path in records.leftovers(root_fd):
            folder, _, name = path.rpartition("/")
            fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root_fd)
            try:
                durable.remove_tree(name, dir_fd=fd)
            finally:
                os.close(fd)
            done.append(f"removed {path}, left by an interrupted run")
        done += _settle_history(root_fd, file, limits, live)
    return done


def _settle_pending(root_fd: int, file: str, limits: Limits, live: int) -> list[str]:
    """An activation under way was either finished by its flip, or never happened."""
    try:
        pending = records.read(Pending, records.PENDING, dir_fd=root_fd, limits=limits, file=file)
    except NotFoundError:
        return []
    done = []
    if pending.new != live and pending.new != records.BASELINE:
        discard(root_fd, pending.new)
        done.append(f"removed generation {pending.new}, which was never activated")
    os.unlink(records.PENDING, dir_fd=root_fd)
    durable.sync_fd(root_fd)
    return done


def _settle_history(root_fd: int, file: str, limits: Limits, live: int) -> list[str]:
    """A flip whose line in the history was lost gets one."""
    last = history.last(root_fd)
    if last is not None and last.live == live:
        return []
    generation = read_generation(root_fd, live, file, limits)
    history.append(
        root_fd,
        history.event(
            "recovered",
            live,
            was=None if last is None else last.live,
            display=generation.display,
            build=generation.build,
            source=generation.source,
            reason="the run that made this generation live ended before it wrote so",
        ),
    )
    return [f"generation {live} went live in an interrupted run"]


def read_generation(root_fd: int, number: int, file: str, limits: Limits) -> Generation:
    """The record of a generation. Raises StoreDamagedError when it is not what it must be."""
    name = f"{records.generation_name(number)}/{records.GENERATION}"
    try:
        found = records.read(Generation, name, dir_fd=root_fd, limits=limits, file=f"{file}/{name}")
    except NotFoundError as error:
        raise StoreDamagedError("a generation has no record", file=f"{file}/{name}") from error
    if found.number != number:
        raise StoreDamagedError(
            "a generation's record is of another", file=f"{file}/{name}", found=found.number
        )
    return found


def discard(root_fd: int, number: int) -> None:
    """Removes a generation: renamed to the trash durably, then unlinked. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(records.TRASH, 0o700, dir_fd=root_fd)
    name = f"{records.TRASH}/{number}"
    durable.remove_tree(name, dir_fd=root_fd)
    with contextlib.suppress(FileNotFoundError):
        os.rename(records.generation_name(number), name, src_dir_fd=root_fd, dst_dir_fd=root_fd)
        durable.sync_dir(records.GENERATIONS, dir_fd=root_fd)
        durable.remove_tree(name, dir_fd=root_fd)
    durable.remove_tree(records.TRASH, dir_fd=root_fd)
