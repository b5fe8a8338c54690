"""The one way in which the pointer moves: apply, revert, remove, going back, and recovery.

A move is written down in pending.json before anything else happens, carried
out, and settled; only then does the record go.  Whoever finds the record knows
from it and from the pointer what is left to do: TABLE.

Abandoning removes a generation that never went live, and leaves everything
else as it was.  Finishing moves the pointer: that a trial failed was decided
before.  Settling writes what the move means: the trial that it begins or ends,
the bars, the line of the history.  All three can be interrupted anywhere and
done again.

Reverting must be quick, so it settles in two steps.  Its record holds all of
what it means and lasts before the pointer moves; from then on it is done.  The
history gets its line unsynced, and the record stays as moved.json, where the
bars are read as well, until the next writer has settled it durably: `fold`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec

from ..errors import BsipatchError, StoreDamagedError
from ..limits import Limits
from . import bars, durable, exchange, grouped, history, live, records, trials
from .generations import discard, read_generation
from .records import Pending

Todo: TypeAlias = Literal["abandon", "finish", "settle"]

#: (verb, state, whether `new` is live) -> what is left to do.  A verb has only the states it
#: goes through; an apply that is ready is the record of a version before this one.
TABLE: dict[tuple[str, str, bool], Todo] = {
    ("apply", "intent", False): "abandon",
    ("apply", "intent", True): "settle",
    ("apply", "ready", False): "abandon",
    ("apply", "ready", True): "settle",
    ("revert", "ready", False): "abandon",
    ("revert", "ready", True): "settle",
    ("remove", "ready", False): "abandon",
    ("remove", "ready", True): "settle",
    ("back", "ready", False): "finish",
    ("back", "ready", True): "settle",
}

#: the history's word for a move: by verb, and for going back by the bar that it leaves
_WORDS = {"apply": "apply", "revert": "revert", "remove": "remove"}
_BACK = {"health": "unhealthy", "starts": "gave-up", "publisher": "withdrawn"}
_UNDONE = "undone"
#: what people wait for, and what is settled lightly
_LIGHT = ("revert", "remove")

#: a full disk must not keep anyone from going back
_FULL = (errno.ENOSPC, errno.EDQUOT)


def todo(pending: Pending, live_number: int, file: str) -> Todo:
    """What a record found by recovery asks for. Raises StoreDamagedError."""
    found = TABLE.get((pending.verb, pending.state, pending.new == live_number))
    if found is None:
        raise StoreDamagedError(
            "a move of the pointer is in a state that it cannot have",
            file=f"{file}/{records.PENDING}",
            found=f"{pending.verb} {pending.state}",
        )
    return found


def write(root_fd: int, pending: Pending, *, sync: bool = True) -> None:
    """Writes a move down, durably. Raises OSError.

    Without `sync` the caller makes the folder last, with the flip that follows.
    """
    durable.replace_file(records.PENDING, records.encode(pending), dir_fd=root_fd, sync=sync)


@dataclass(frozen=True, slots=True)
class Move:
    """A move of one store's pointer: its folder, its path for messages, its limits, the record."""

    root_fd: int
    file: str
    limits: Limits
    pending: Pending


def move(root_fd: int, file: str, limits: Limits, pending: Pending) -> list[str]:
    """A move to a generation that is there already; the store must be locked and recovered.

    Opens no file of either tree.  Where the disk is full the pointer moves all
    the same, and the sentences that come back say what could not be written.
    Raises OSError.
    """
    return move_together([Move(root_fd, file, limits, pending)])


def move_together(moves: Sequence[Move]) -> list[str]:
    """`move` for one store, or for several components of a group in one step."""
    first = moves[0]
    together = first.pending.group
    # The pointer of most stores lies in the same folder as the record: one sync makes both last.
    # Cut off before it, recovery finds neither, the record, or both.
    apart = (
        bool(together)
        or grouped.name_of(first.root_fd) is not None
        or exchange.shown(first.root_fd) is not None
    )
    moves = [replace(move, pending=_with_unfolded(move)) for move in moves]
    written = [
        _unless_full(functools.partial(write, move.root_fd, move.pending, sync=apart))
        for move in moves
    ]
    try:
        if together:
            live.flip_together(first.root_fd, together)
        else:
            live.flip(first.root_fd, first.pending.new, sync=False)
    except BaseException:
        for move in moves:
            if move.pending.verb != "back":  # that one is due whatever happens
                with contextlib.suppress(OSError):
                    durable.remove_file(records.PENDING, dir_fd=move.root_fd)
        raise
    durable.sync_fd(first.root_fd)
    settled = [
        _unless_full(functools.partial(_settle_lightly if recorded else _settle_fully, move))
        for move, recorded in zip(moves, written, strict=True)
    ]
    if all(settled):
        return []
    if all(written):
        return ["the disk is full: the history could not be written yet"]
    return ["the disk is full: the history and the bars could not be written yet"]


def _with_unfolded(move: Move) -> Pending:
    """The record of a move, with the bars of one before it that could not be folded."""
    try:
        before = bars.last_move(move.root_fd, move.file, move.limits)
    except BsipatchError:  # going back must not fail for its sake
        before = None
    if before is None:
        return move.pending
    return msgspec.structs.replace(move.pending, bars=(*before.bars, *move.pending.bars))


def _settle_fully(move: Move) -> None:
    settle(move.root_fd, move.file, move.limits, move.pending)


def _settle_lightly(move: Move) -> None:
    """What a move that lasts means, without one sync more. Raises OSError."""
    root_fd, pending = move.root_fd, move.pending
    if pending.verb not in _LIGHT or not bars.is_readable(root_fd, move.file, move.limits):
        _settle_fully(move)
        return
    _settle_trial(root_fd, pending)
    told = _told(root_fd, move.file, move.limits, pending)
    if told is not None:
        history.append(root_fd, told, sync=False)
    durable.rename_over(records.PENDING, records.MOVED, old_dir=root_fd, new_dir=root_fd)


def fold(root_fd: int, file: str, limits: Limits) -> bool:
    """Settles the last move durably, where it left its record; True when its line was lost.

    A full disk, or a record that cannot be read, waits for a later writer.  Idempotent.
    Raises OSError.
    """
    try:
        pending = bars.last_move(root_fd, file, limits)
    except StoreDamagedError:
        return False
    if pending is None:
        return False
    told = None
    if not any(_tells(event, pending) for event in history.read(root_fd)):
        told = _told(root_fd, file, limits, pending)
    if not _unless_full(functools.partial(_fold, root_fd, file, limits, pending, told)):
        return False
    return told is not None


def _fold(
    root_fd: int, file: str, limits: Limits, pending: Pending, told: history.Event | None
) -> None:
    bars.put(root_fd, pending.bars, file, limits)
    if told is not None:
        history.append(root_fd, told)
    else:
        history.make_last(root_fd)
    durable.remove_file(records.MOVED, dir_fd=root_fd)


def _unless_full(action: Callable[[], object]) -> bool:
    """Whether it was done; False when the disk is full. Raises any other OSError."""
    try:
        action()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return False
    return True


def settle(
    root_fd: int,
    file: str,
    limits: Limits,
    pending: Pending,
    *,
    recovered: str = "",
    sync: bool = True,
) -> None:
    """Writes down what a move that took place means, and removes its record.

    Idempotent.  `recovered` is the reason to write when recovery does it.  Without `sync` the
    line of the history lasts, and a power cut may bring back the record: it has lasted since
    the flip, and is settled once more.  Raises OSError.
    """
    _settle_trial(root_fd, pending, sync=sync)
    bars.put(root_fd, pending.bars, file, limits)
    told = _told(root_fd, file, limits, pending, recovered)
    if told is not None:
        history.append(root_fd, told)
    else:
        history.make_last(root_fd)
    durable.remove_file(records.PENDING, dir_fd=root_fd, sync=sync)


def _tells(event: history.Event, pending: Pending) -> bool:
    """Whether a line of the history is that of this move."""
    return (event.live, event.was) == (pending.new, pending.old) and event.time >= pending.started


def _settle_trial(root_fd: int, pending: Pending, *, sync: bool = True) -> None:
    if pending.trial is not None:
        trials.write(root_fd, pending.trial, sync=sync)
    else:
        durable.remove_file(records.TRIAL, dir_fd=root_fd, sync=False)


def _told(
    root_fd: int, file: str, limits: Limits, pending: Pending, recovered: str = ""
) -> history.Event | None:
    """The line of the history that a move gets; None when it is there."""
    last = history.last(root_fd)
    if last is not None and _tells(last, pending):
        return None
    generation = read_generation(root_fd, pending.new, file, limits)
    # A revert may have been reported before its line was lost: it is told as what it is.
    return history.event(
        "recovered" if recovered and pending.verb not in _LIGHT else _word(pending),
        pending.new,
        was=pending.old,
        display=generation.display,
        build=generation.build,
        source=pending.source,
        reason="; ".join(part for part in (pending.reason, recovered) if part),
        by=pending.by,
    )


def abandon(root_fd: int, pending: Pending) -> bool:
    """Undoes a move that did not take place; True when a generation went. Raises OSError."""
    gone = False
    if pending.verb == "apply" and pending.new != records.BASELINE:
        gone = pending.new in records.generation_numbers(root_fd)
        if gone:
            discard(root_fd, pending.new)
    durable.remove_file(records.PENDING, dir_fd=root_fd)
    return gone


def _word(pending: Pending) -> str:
    if pending.verb != "back":
        return _WORDS[pending.verb]
    return _BACK[pending.bars[0].why] if pending.bars else _UNDONE


def exists(root_fd: int, number: int) -> bool:
    """Whether a generation's tree is there to go to."""
    tree = f"{records.generation_name(number)}/{records.TREE}"
    try:
        os.close(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
