"""A device's opt-in report for its publisher, made from its log, under a changing pseudonym.

The pseudonym of a month is a keyed hash of that month with a secret that never
leaves the device and has nothing to do with its id: reports of one month can be
told apart by device, those of two months cannot be brought together.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ...errors import PolicyError, from_os_error
from ...fleet.model import HOUR, MOST_UPDATES, Outcome, Report, State
from ...store import Generation
from ...store.durable import replace_file
from ..logs import Entry
from ..policy import Policy
from . import record
from .timeline import seconds

#: in the store's folder, readable by its owner alone
NAME_KEY = "report-key"
_SECRET_BYTES = 32
_CODE = re.compile(r"[a-z][a-z-]{0,39}")


def make(
    *,
    policy: Policy,
    secret: bytes,
    live: Generation,
    platform: str,
    entries: Sequence[Entry],
    now: float,
) -> Report:
    """The report as it would be sent now. Pure: the same arguments give the same report.

    Raises PolicyError unless reports are switched on: there is no other way to one.
    """
    if not policy.reports:
        raise PolicyError(
            "reports are switched off", hint="`bsipatch policy --set reports=true` turns them on."
        )
    period = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
    return Report(
        device=pseudonym(secret, live.product, period),
        period=period,
        made=_hour(now),
        product=live.product,
        platform=platform,
        version=live.version,
        letter=live.letter or "",
        channel=policy.channel,
        updates=tuple(outcomes(entries)[-MOST_UPDATES:]),
    )


def pseudonym(secret: bytes, product: str, period: str) -> str:
    """The device's name in the reports of one product and month: 32 hex digits."""
    text = f"bsipatch-report\0{product}\0{period}".encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:32]


def read_secret(store: Path) -> bytes:
    """The store's secret for pseudonyms; makes it at the first call.

    Raises SystemCallError, NoSpaceError, NotFoundError.
    """
    path = store / NAME_KEY
    try:
        folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                fd = os.open(NAME_KEY, flags, dir_fd=folder)
            except FileNotFoundError:
                found = b""
            else:
                with os.fdopen(fd, "rb") as file:
                    found = file.read(_SECRET_BYTES)
            if len(found) != _SECRET_BYTES:  # none yet, or one that a power cut left empty
                found = secrets.token_bytes(_SECRET_BYTES)
                replace_file(NAME_KEY, found, dir_fd=folder, mode=0o600)
            return found
        finally:
            os.close(folder)
    except OSError as error:
        raise from_os_error(error, path) from error


def outcomes(entries: Sequence[Entry]) -> list[Outcome]:
    """What became of each update that the log speaks of, in the order they were first seen."""
    known: dict[str, Outcome] = {}
    for entry, data in record.read(entries):
        at = _hour(seconds(entry.time))
        before = known.get(entry.update)
        seen = before.seen if before is not None else at
        match data:
            case record.TakenOff():
                if before is not None:
                    state: State = "withdrawn" if data.reason == "withdrawn" else "removed"
                    known[entry.update] = _changed(before, state, _code(data.reason))
            case record.Installation():
                known[entry.update] = Outcome(
                    id=entry.update,
                    state="protected",
                    published=_hour(data.published),
                    seen=seen,
                    protected=at,
                    ring=data.ring,
                    route=data.route,
                    fallbacks=_codes(data.fallbacks),
                    received=max(0, data.received),
                    full=max(0, data.full),
                    applied=max(0, data.applied),
                    apply_ms=max(0, round(data.seconds * 1000)),
                )
            case record.Failure():
                known[entry.update] = Outcome(
                    id=entry.update,
                    state="reverted" if data.reverted else "failed",
                    reason=_code(data.reason),
                    published=_hour(data.published),
                    seen=seen,
                    ring=data.ring,
                    fallbacks=_codes(data.fallbacks),
                )
            case record.Waiting() if before is None or before.state == "waiting":
                known[entry.update] = Outcome(
                    id=entry.update,
                    state="waiting",
                    reason=_code(data.reasons[0]) if data.reasons else None,
                    published=_hour(data.published),
                    seen=seen,
                    ring=data.ring,
                )
            case record.Seen() if before is None:
                known[entry.update] = Outcome(
                    id=entry.update,
                    state="waiting",
                    published=_hour(data.published),
                    seen=seen,
                    ring=data.ring,
                )
            case _:
                pass
    return list(known.values())


def _changed(outcome: Outcome, state: State, reason: str | None) -> Outcome:
    return msgspec.structs.replace(outcome, state=state, reason=reason)


def _hour(moment: float) -> int:
    return max(0, int(moment)) // HOUR * HOUR


def _code(text: str) -> str | None:
    """A reason that is safe to send: a short name, never a sentence with paths in it."""
    return text if _CODE.fullmatch(text) else "other" if text else None


def _codes(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(code for text in texts[:16] if (code := _code(text)) is not None)
