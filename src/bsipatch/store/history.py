"""The store's log: one JSON line for each thing that happened, oldest first.

Lines are appended and synced before success is reported.  A power cut can
leave half a line at the end; readers skip it and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from .durable import replace_file, sync_fd, write_all
from .records import now

HISTORY = "history.jsonl"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK = 1 << 16


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `event` is one of

    init, apply, revert, remove, gc    what people and programs asked for
    good                               the generation passed its trial
    unhealthy, gave-up, undone         it did not: a check failed, its starts did, it was stopped
    allowed                            a bar was lifted
    refused, failed                    an update did not go live
    recovered                          an interrupted move was finished
    """

    time: str
    event: str
    #: the generation that is live after the event, and before it
    live: int
    was: int | None = None
    #: what the live tree is called ("26.3.1 (a)") and its build
    display: str = ""
    build: str = ""
    #: the update file or baseline tree concerned
    source: str = ""
    #: why it was refused or failed: the error's code and words
    error: str = ""
    reason: str = ""
    #: who asked for it, where that matters
    by: str = ""


def append(root_fd: int, event: Event, *, sync: bool = True) -> None:
    """Adds one line and makes it last. The store must be locked. Raises OSError.

    Without `sync` a power cut can take the line, or leave half of it; those before it last.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(HISTORY, flags, 0o644, dir_fd=root_fd)
    try:
        end = _whole_lines(fd)
        if end != os.fstat(fd).st_size:
            os.ftruncate(fd, end)
        os.lseek(fd, end, os.SEEK_SET)
        try:
            write_all(fd, msgspec.json.encode(event) + b"\n")
        except OSError:
            os.ftruncate(fd, end)
            raise
        if sync:
            sync_fd(fd)
    finally:
        os.close(fd)
    if end == 0 and sync:
        sync_fd(root_fd)


def make_last(root_fd: int) -> None:
    """Makes lines last that were added without a sync. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(HISTORY, _READ, dir_fd=root_fd)
        try:
            sync_fd(fd)
        finally:
            os.close(fd)


def read(root_fd: int) -> list[Event]:
    """Every whole line, oldest first; a line that is none of ours is left out."""
    try:
        fd = os.open(HISTORY, _READ, dir_fd=root_fd)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    events = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            events.append(msgspec.json.decode(line, type=Event))
    return events


def last(root_fd: int) -> Event | None:
    """The newest event, found from the end of the file."""
    try:
        fd = os.open(HISTORY, _READ, dir_fd=root_fd)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - _CHUNK)
        lines = os.pread(fd, size - start, start)
    finally:
        os.close(fd)
    for line in reversed(lines[: lines.rfind(b"\n") + 1].splitlines()):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(line, type=Event)
    return None


def trim(root_fd: int, keep: int) -> int:
    """Keeps the newest `keep` events; returns how many went. The store must be locked."""
    events = read(root_fd)
    if len(events) <= keep:
        return 0
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events[-keep:])
    replace_file(HISTORY, lines, dir_fd=root_fd)
    return len(events) - keep


def event(kind: str, live: int, **more: object) -> Event:
    """An event of this moment."""
    return msgspec.convert({"time": now(), "event": kind, "live": live, **more}, Event)


def _whole_lines(fd: int) -> int:
    """Bytes up to and including the last newline."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - _CHUNK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
