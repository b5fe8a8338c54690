"""The device's log: one JSON line for each thing that the device did or decided by itself.

The store's history says what became of the store; this log says why: what a
check found, which route a download took and why it fell back, what was waited
for.  Lines are whole or absent; the file is rotated at a size, and the one
before is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..errors import from_os_error

NAME = "device.log"
Level = Literal["debug", "info", "warning", "error"]
#: bytes at which the file is rotated, and of one line
_ROTATE = 4 << 20
_MOST_LINE = 1 << 16
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `time` is ISO 8601 in UTC, `event` a short stable name, `data` JSON types."""

    time: str
    event: str
    text: str
    level: Level = "info"
    #: the update concerned, by its id
    update: str = ""
    data: dict[str, Any] = {}


class Log:
    """Appends to STORE/device.log. Safe from several threads and processes."""

    def __init__(self, store: Path, *, rotate: int = _ROTATE) -> None:
        self.path = store / NAME
        self._rotate = rotate

    def write(
        self,
        event: str,
        text: str,
        *,
        level: Level = "info",
        update: str = "",
        now: float | None = None,
        data: dict[str, Any] | None = None,
    ) -> Entry:
        """Adds one line. Raises SystemCallError, NoSpaceError, NotFoundError."""
        entry = Entry(
            time=stamp(now), event=event, text=text, level=level, update=update, data=data or {}
        )
        line = msgspec.json.encode(entry)
        if len(line) > _MOST_LINE:
            entry = Entry(
                time=entry.time,
                event=event,
                text=text[:1000],
                level=level,
                update=update[:600],
                data={"left_out": len(line)},
            )
            line = msgspec.json.encode(entry)
        try:
            self._append(line + b"\n")
        except OSError as error:
            raise from_os_error(error, self.path) from error
        return entry

    def _append(self, line: bytes) -> None:
        while True:
            fd = os.open(self.path, _FLAGS, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if not self._still_there(fd):
                    continue  # another process rotated it between the open and the lock
                size = os.fstat(fd).st_size
                if size and size + len(line) > self._rotate:
                    os.rename(self.path, self.path.with_name(f"{NAME}.1"))
                    continue
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # after half a line that a power cut left
                if os.write(fd, line) != len(line):
                    os.ftruncate(fd, size)
                    raise OSError(28, os.strerror(28))
                return
            finally:
                os.close(fd)

    def _still_there(self, fd: int) -> bool:
        ours = os.fstat(fd)
        with contextlib.suppress(FileNotFoundError):
            named = os.lstat(self.path)
            return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
        return False

    def read(self) -> list[Entry]:
        """Every whole line, oldest first, the rotated file's too; [] without a log."""
        return [
            entry
            for name in (f"{NAME}.1", NAME)
            for entry in _entries(_lines(self.path.with_name(name)))
        ]


def stamp(now: float | None = None) -> str:
    """A moment (seconds since 1970), or this one, as it stands in the log."""
    moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os_error(error, path) from error
    with os.fdopen(fd, "rb") as file:
        while line := file.readline(_MOST_LINE + 2):
            yield line


def _entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield msgspec.json.decode(line, type=Entry)


class JsonLines(logging.Formatter):
    """Formats the records of the standard library's logging as lines of the same kind."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON line without its end."""
        level: Level = (
            "error"
            if record.levelno >= logging.ERROR
            else "warning"
            if record.levelno >= logging.WARNING
            else "info"
            if record.levelno >= logging.INFO
            else "debug"
        )
        data = {"error": self.formatException(record.exc_info)} if record.exc_info else {}
        entry = Entry(
            time=stamp(record.created),
            event=record.name,
            text=record.getMessage(),
            level=level,
            data=data,
        )
        return msgspec.json.encode(entry).decode()
