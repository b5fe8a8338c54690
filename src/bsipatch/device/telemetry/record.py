"""What the agent writes into the device's log so that metrics and reports can be made of it.

One function for each kind of line; the data are structs, so that whoever reads
them later (metrics, reports) reads exactly what was written here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import msgspec

from ...fleet.model import Route
from ..logs import Entry, Log
from ..policy import Wait

CHECK = "check"
CHECK_FAILED = "check-failed"
WAITING = "waiting"
INSTALLED = "installed"
FAILED = "install-failed"
TAKEN_OFF = "taken-off"


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a check that found an update: when it was published, the ring it was offered to."""

    published: int
    ring: int = 100


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of an update that is not on yet: the reasons, by their codes."""

    published: int
    ring: int = 100
    reasons: tuple[str, ...] = ()


class Installation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of an installation. Sizes in bytes, `seconds` of applying.

    received   bytes that travelled         full      what the largest way would have taken
    applied    bytes of the new tree        fallbacks codes of the ways that failed before
    """

    published: int
    ring: int = 100
    route: Route = "direct"
    received: int = 0
    full: int = 0
    applied: int = 0
    seconds: float = 0.0
    fallbacks: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of an update that did not go on, or did not stay on: `reason` is an error's code.

    `reverted`: it was live and was taken back by its trial.
    """

    published: int
    ring: int = 100
    reason: str = ""
    reverted: bool = False
    fallbacks: tuple[str, ...] = ()


class TakenOff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of an improvement that is no longer on: "owner" or "withdrawn"."""

    reason: str = "owner"


Data = Seen | Waiting | Installation | Failure | TakenOff
_KINDS: dict[str, type[Data]] = {
    CHECK: Seen,
    WAITING: Waiting,
    INSTALLED: Installation,
    FAILED: Failure,
    TAKEN_OFF: TakenOff,
}


def checked(
    log: Log, text: str, *, update: str = "", data: Seen | None = None, now: float | None = None
) -> Entry:
    """A check that came through; `text` says what it found, `data` which update, if any."""
    return log.write(
        CHECK, text, update=update, now=now, data=None if data is None else _plain(data)
    )


def check_failed(log: Log, reason: str, text: str, *, now: float | None = None) -> Entry:
    """A check that did not; `reason` is the error's code."""
    return log.write(CHECK_FAILED, text, level="warning", now=now, data={"reason": reason})


def waiting(
    log: Log,
    update: str,
    waits: Iterable[Wait],
    *,
    published: int,
    ring: int = 100,
    now: float | None = None,
) -> Entry:
    """An update that is offered and waits; each wait with its own words and evidence."""
    told = list(waits)
    data = Waiting(published=published, ring=ring, reasons=tuple(wait.code for wait in told))
    return log.write(
        WAITING,
        "\n".join(wait.text for wait in told) or "waiting",
        update=update,
        now=now,
        data={**_plain(data), "waits": [_plain(wait) for wait in told]},
    )


def installed(
    log: Log, update: str, data: Installation, text: str, *, now: float | None = None
) -> Entry:
    """An update that went live."""
    return log.write(INSTALLED, text, update=update, now=now, data=_plain(data))


def failed(log: Log, update: str, data: Failure, text: str, *, now: float | None = None) -> Entry:
    """An update that did not, or that its trial took back."""
    return log.write(FAILED, text, level="error", update=update, now=now, data=_plain(data))


def taken_off(log: Log, update: str, reason: str, text: str, *, now: float | None = None) -> Entry:
    """An improvement that was removed by its owner or withdrawn by its publisher."""
    data = _plain(TakenOff(reason=reason))
    return log.write(TAKEN_OFF, text, level="warning", update=update, now=now, data=data)


def read(entries: Sequence[Entry]) -> list[tuple[Entry, Data]]:
    """The entries that speak of one update, with their data; what breaks its struct is left out."""
    found: list[tuple[Entry, Data]] = []
    for entry in entries:
        kind = _KINDS.get(entry.event)
        if kind is not None and entry.update:
            with contextlib.suppress(msgspec.ValidationError):
                found.append((entry, msgspec.convert(entry.data, kind)))
    return found


def _plain(data: msgspec.Struct) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(data)
    return found
