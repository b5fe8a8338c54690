"""What one report says: the structs, their bytes, and the gate that reads them.

docs/telemetry.md lists every field and why nothing in it is personal.  A report
comes from anywhere and is not signed by a key that a publisher knows, so the
gate takes nothing on trust: sizes, counts, characters and times are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bsipatch.errors import CorruptError, LimitError
from bsipatch.limits import DEFAULT, Limits

FORMAT = 1
#: seconds that every time in a report is rounded down to
HOUR = 3600
#: updates in one report, and bytes of one
MOST_UPDATES = 64
MOST_BYTES = 1 << 18

State = Literal["protected", "waiting", "failed", "reverted", "removed", "withdrawn"]
Route = Literal["direct", "chain", "full", "file"]
#: states in which an update was put on a device and did not stay by its own fault
FAILURES: frozenset[str] = frozenset({"failed", "reverted"})

_Pseudonym = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
_Period = Annotated[str, Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$", max_length=7)]
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Code = Annotated[str, Meta(pattern="^[a-z][a-z-]{0,39}$", max_length=40)]
_Time = Annotated[int, Meta(ge=0, le=1 << 40)]
_Size = Annotated[int, Meta(ge=0, le=1 << 50)]
_Percent = Annotated[int, Meta(ge=0, le=100)]


class Outcome(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What became of one update on one device. Times in seconds since 1970, whole hours."""

    #: the update's id in the feed
    id: _Name
    state: State
    #: why it is not on, by the feed's reasons or an error's name
    reason: _Code | None = None
    published: _Time
    #: when the device first saw it, and when it was on
    seen: _Time | None = None
    protected: _Time | None = None
    #: the share of devices, in percent, to which it was offered when this one came in
    ring: _Percent = 100
    route: Route | None = None
    #: ways that failed before, by reason
    fallbacks: Annotated[tuple[_Code, ...], Meta(max_length=16)] = ()
    #: bytes that travelled, and that the largest way would have taken
    received: _Size = 0
    full: _Size = 0
    #: bytes of the tree that was written, and the milliseconds that took
    applied: _Size = 0
    apply_ms: _Size = 0


class Report(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One device's report. `device` is a pseudonym that changes with every `period` (a month)."""

    format: Literal[1] = 1
    device: _Pseudonym
    period: _Period
    #: when it was made, whole hours
    made: _Time
    product: _Name
    platform: _Name
    version: _Name
    #: the improvement that is live; "" for none
    letter: Annotated[str, Meta(max_length=8)] = ""
    channel: Literal["developer", "beta", "release"]
    updates: Annotated[tuple[Outcome, ...], Meta(max_length=MOST_UPDATES)] = ()


_STEERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def encode(report: Report) -> bytes:
    """One line of JSON with its end."""
    return msgspec.json.encode(report) + b"\n"


def decode(line: bytes, *, file: str | None = None, offset: int | None = None) -> Report:
    """One report, checked completely. Raises CorruptError, LimitError."""
    if len(line) > MOST_BYTES:
        raise LimitError(
            "a report's size", file=file, offset=offset, expected=MOST_BYTES, found=len(line)
        )
    try:
        report = msgspec.json.decode(line, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(
            f"not a report: {ascii(str(error))[1:-1]}", file=file, offset=offset
        ) from None
    texts = [report.product, report.platform, report.version, report.letter]
    texts += [update.id for update in report.updates]
    # What reaches a terminal or a page must not be able to steer it.
    if any(_STEERS.search(text) for text in texts):
        raise CorruptError("a report with control characters", file=file, offset=offset)
    names = [update.id for update in report.updates]
    if len(set(names)) != len(names):
        raise CorruptError("a report names an update twice", file=file, offset=offset)
    for update in report.updates:
        if update.state == "protected" and update.protected is None:
            raise CorruptError(
                "a report of a protected device without the time", file=file, offset=offset
            )
    return report


def decode_lines(
    data: bytes, *, file: str | None = None, limits: Limits = DEFAULT
) -> Iterator[tuple[Report | None, CorruptError | LimitError | None]]:
    """Each report of a file with one JSON report a line, or what is wrong with that line."""
    offset = 0
    for line in data.split(b"\n"):
        if line.strip():
            try:
                yield decode(line, file=file, offset=offset), None
            except (CorruptError, LimitError) as error:
                yield None, error
        offset += len(line) + 1
