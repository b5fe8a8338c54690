"""Whoever opens the store for writing first brings it back to a whole state.

Recovery may itself be interrupted anywhere and simply runs again.
"""

from __future__ import annotations

import os

from ..errors import NotFoundError, StoreDamagedError
from ..limits import Limits
from . import durable, exchange, grouped, history, moving, records, sweeping, trials
from . import live as live_pointer
from .generations import read_generation
from .records import Pending


def recover(root_fd: int, file: str, limits: Limits) -> list[str]:
    """Finishes or undoes what an interrupted run left, under the lock.

    Returns what was done, as sentences, empty after a clean end.  A generation
    on trial stays so.  Raises StoreDamagedError when the live generation itself
    is not there.
    """
    with durable.system_calls("recovering the store", file):
        found = _point_again(root_fd)
        live = records.live_number(root_fd, file)
        if live not in records.generation_numbers(root_fd):
            raise StoreDamagedError("the live generation is missing", file=file, found=live)
        live, done = exchange.settle(root_fd, live)
        done = [*found, *done]
        if moving.fold(root_fd, file, limits):
            done.append("wrote down the last move of the pointer again, which a power cut took")
        done += _finish_move(root_fd, file, limits, live)
        live = records.live_number(root_fd, file)
        trial = trials.read(root_fd, file, limits)
        if trial is not None and trial.number != live:
            durable.remove_file(records.TRIAL, dir_fd=root_fd)
            done.append(f"ended the trial of generation {trial.number}, which is not live")
        done += [
            f"removed {path}, left by an interrupted repair"
            for path in sweeping.sweep(root_fd, file, limits)
        ]
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


def _point_again(root_fd: int) -> list[str]:
    """Makes a pointer that is gone again, as the history knows it.

    Nothing of ours removes it and no power cut takes it, but somebody may have.  That of
    a component is left to people: made here, it would not be its group's.
    """
    if records.has_pointer(root_fd) or grouped.lies_in_one(root_fd):
        return []
    last = history.last(root_fd)
    if last is None or last.live not in records.generation_numbers(root_fd):
        return []  # who asks which one is live says what is wrong
    live_pointer.flip(root_fd, last.live)
    return [f"`{records.CURRENT}` was gone: it leads to generation {last.live} again, as last"]


def _finish_move(root_fd: int, file: str, limits: Limits, live: int) -> list[str]:
    """A move under way either took place with its flip, or never happened."""
    shown = f"{file}/{records.PENDING}"
    try:
        pending = records.read(Pending, records.PENDING, dir_fd=root_fd, limits=limits, file=shown)
    except NotFoundError:
        return []
    todo = moving.todo(pending, live, file)
    if todo == "finish":
        moving.move(root_fd, file, limits, pending)
        return [f"finished going back: {pending.reason}; generation {pending.new} is live"]
    if todo == "settle":
        why = "the run that made this generation live ended before it wrote so"
        moving.settle(root_fd, file, limits, pending, recovered=why)
        return [f"finished an interrupted {_told(pending)}: generation {live} is live"]
    as_before = f"generation {live} is live as before"
    if moving.abandon(root_fd, pending):
        gone = f"removed generation {pending.new}, which was never activated"
        return [f"undid an interrupted {_told(pending)}: {gone}; {as_before}"]
    return [f"undid an interrupted {_told(pending)}: {as_before}"]


def _told(pending: Pending) -> str:
    """A move for people: what, of what, since when."""
    source = f" of {pending.source}" if pending.source else ""
    return f"{pending.verb}{source}, begun {pending.started}"


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
