"""What commands print: text for people, one JSON object for programs, bars while they wait."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..errors import from_os_error

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import IO, Any, Never

    from rich.progress import Progress, TaskID

    from ..errors import BsipatchError
    from ..output import FileName

#: seconds of quiet before a bar appears
_DELAY = 1.0
_INTERVAL = 0.1
#: of the names that `status` shows, so that its three parts have one column of values
STATUS_WIDTH = len("Generation 0")

#: what moves a terminal's cursor, or turns the order of what follows around -> what is shown
_ESCAPES = {
    **{c: f"\\x{c:02x}" for c in (*range(9), *range(11, 32), *range(127, 160))},
    **{c: f"\\u{c:04x}" for c in (0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F))},
    **{c: f"\\u{c:04x}" for c in range(0x2066, 0x206A)},
}


def printable(text: str) -> str:
    """`text` without what a name, a reason or a feed could do to the terminal it is shown on."""
    return text.translate(_ESCAPES)


def emit(json: bool, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Prints `facts` as one JSON object, or `lines` as they are."""
    if json:
        import json as json_module

        plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
        print(json_module.dumps({"ok": True, **facts}, sort_keys=True, ensure_ascii=plain))
        return
    for line in lines:
        print(printable(line))


def fail(json: bool, facts: Mapping[str, Any], lines: Iterable[str], error: BsipatchError) -> Never:
    """Ends a command whose findings are an error: `lines`, then the error; or one JSON object."""
    if json:
        import typer

        emit(True, {**facts, **error.as_dict(), "class": type(error).__name__, "ok": False}, ())
        raise typer.Exit(error.exit_code)
    emit(False, facts, lines)
    raise error


def number(count: int, noun: str) -> str:
    """ "1 offer", "5 offers"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes for people: "12,093,800 bytes (11.5 MiB)"."""
    exact = number(count, "byte")
    return exact if count < 1024 else f"{exact} ({short_size(count)})"


def short_size(count: int) -> str:
    """Bytes for people, short: "11.5 MiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def ratio(part: int, whole: int) -> str:
    """ "1.23 % of the new one, 81 times smaller"."""
    if not part or not whole:
        return ""
    share = f"{100 * part / whole:.2f} % of the new one"
    times = whole / part
    return share if times < 1.5 else f"{share}, {times:,.0f} times smaller"


def seconds(duration: float) -> str:
    """ "38 ms", "4.1 s", "2 min 5 s"."""
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    if duration < 100:
        return f"{duration:.1f} s"
    return f"{duration // 60:.0f} min {duration % 60:.0f} s"


def columns(rows: Sequence[tuple[str, str]], least: int = 0) -> list[str]:
    """Name and value in two aligned columns, the first `least` wide or wider."""
    width = max([least, *(len(name) for name, _ in rows)])
    return [f"{name:<{width}}  {value}" for name, value in rows if value]


@contextmanager
def opening(path: FileName) -> Iterator[IO[bytes]]:
    """A file to look into, with errors of ours."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - the `with` is below
    except OSError as error:
        raise from_os_error(error, path) from error
    with file:
        yield file


class Bar:
    """Receives (phase, done bytes, total bytes) from any thread; draws at most ten times a second.

    Nothing is drawn within the first second, nor when stderr is not a terminal.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._began = time.monotonic()
        self._drawn = 0.0
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        if not self._enabled:
            return
        now = time.monotonic()
        if now - self._began < _DELAY:
            return
        if phase == self._phase and now - self._drawn < _INTERVAL and done < total:
            return
        with self._lock:
            self._drawn = now
            self._draw(phase, done, total)

    def close(self) -> None:
        """Removes the bar."""
        self._enabled = False
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _draw(self, phase: str, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = _make_progress()
            self._progress.start()
        if self._task is None or phase != self._phase:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(phase, total=total or None)
            self._phase = phase
        self._progress.update(self._task, completed=done, total=total or None)


def _make_progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@contextmanager
def progress(json: bool = False) -> Iterator[Bar]:
    """A bar for the time of the with block; silent under --json and off a terminal."""
    bar = Bar(not json and sys.stderr is not None and sys.stderr.isatty())
    try:
        yield bar
    finally:
        bar.close()
