"""An explanation as tables for the terminal."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

from bsipatch.delta import Explanation
from bsipatch.report import _figures
from bsipatch.report._figures import Line

if TYPE_CHECKING:
    from rich.table import Table

#: lines of a table before the rest is summed up
SHOWN = 14
#: columns where there is no terminal to ask
_WIDTH = 120
#: characters of a section's name
_NAME = 32


def show(told: Explanation, file: IO[str] | None = None) -> None:
    """Prints the tables; their totals are the patch's size."""
    from rich.console import Console

    out = file if file is not None else sys.stdout
    console = Console(file=out, width=None if out.isatty() else _WIDTH, highlight=False)
    console.print(_streams(told))
    if told.complete:
        console.print()
        console.print(_sections(told))
        console.print()
        console.print(_kinds(told))
        console.print()
        console.print(_rows(told))


def number(count: int | None) -> str:
    """A count with thousands apart; nothing for none."""
    return f"{count:,}" if count else ""


def short(name: str) -> str:
    """A name without its middle when it is long."""
    keep = _NAME // 2
    return name if len(name) <= _NAME else f"{name[:keep]}…{name[-keep:]}"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole and part else ""


def _table(title: str, *columns: str, left: int = 1) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        # Where room is short, names wrap and numbers stay whole.
        table.add_column(
            column,
            justify="left" if index < left else "right",
            no_wrap=index >= left,
            overflow="fold",
        )
    return table


def _streams(told: Explanation) -> Table:
    table = _table(
        "Streams", "stream", "codec", "entries", "decoded", "in the patch", "share", left=2
    )
    for stream in sorted(told.streams, key=lambda s: -(s.patch_bytes or 0)):
        shared = stream.patch_bytes is None
        table.add_row(
            stream.name,
            stream.codec,
            number(stream.entries),
            number(stream.plain_bytes),
            "shared" if shared else number(stream.patch_bytes),
            "" if shared else percent(stream.patch_bytes or 0, told.patch_size),
        )
    if told.shared_bytes:
        share = percent(told.shared_bytes, told.patch_size)
        table.add_row("shared coder", "", "", "", number(told.shared_bytes), share)
    share = percent(told.header_bytes, told.patch_size)
    table.add_row("header and directory", "", "", "", number(told.header_bytes), share)
    plain = sum(stream.plain_bytes for stream in told.streams)
    table.add_section()
    table.add_row("patch", "", "", number(plain), number(told.patch_size), "100.0%")
    return table


def _shares(line: Line, told: Explanation) -> list[str]:
    get = line.streams.get
    return [
        number(line.patch_bytes),
        percent(line.patch_bytes, told.patch_size),
        *(number(get(name)) for name in _figures.STREAMS[:5]),
        number((get("layout") or 0) + (get(_figures.HEADER) or 0)),
    ]


def _sections(told: Explanation) -> Table:
    table = _table(
        "Sections of the new file, and the bytes of the patch they took",
        "section", "size", "patch", "share",
        "cover", "overrides", "refs", "bytes", "literals", "frame",
    )  # fmt: skip
    lines = [line for line in _figures.by_section(told) if line.patch_bytes]
    shown, hidden = lines[:SHOWN], lines[SHOWN:]
    if hidden:
        shown = [*shown, _figures.rest(hidden, f"{len(hidden)} more")]
    for line in [*shown, _figures.frame(told)]:
        table.add_row(short(line.name), number(line.size), *_shares(line, told))
    table.add_section()
    whole = _figures.total(told)
    table.add_row("patch", number(whole.size), *_shares(whole, told))
    return table


def _kinds(told: Explanation) -> Table:
    table = _table(
        "References carried over, and how they came out",
        "kind", "references", "moved", "right", "overridden", "fixed", "corrected", "patch",
    )  # fmt: skip
    lines = [line for line in _figures.by_kind(told) if line.references]
    for line in lines:
        table.add_row(*_kind(line))
    table.add_section()
    table.add_row(*_kind(_figures.rest(lines, "all references")))
    return table


def _kind(line: Line) -> list[str]:
    counts = (line.references, line.moved, line.right, line.overridden, line.fixed, line.corrected)
    return [line.name, *map(number, counts), number(line.patch_bytes)]


def _rows(told: Explanation) -> Table:
    table = _table(
        "What cost most: pieces of the cover, references and bytes wrong, literals",
        "section", "kind", "patch", "share", "pieces", "refs", "bytes", "runs",
        "literals", left=2,
    )  # fmt: skip
    for line in [line for line in _figures.by_row(told) if line.patch_bytes][:SHOWN]:
        table.add_row(
            short(line.name),
            line.detail,
            number(line.patch_bytes),
            percent(line.patch_bytes, told.patch_size),
            number(line.cover_entries),
            number(line.fixed + line.corrected),
            number(line.byte_corrections),
            number(line.byte_runs),
            number(line.literal_bytes),
        )
    return table
