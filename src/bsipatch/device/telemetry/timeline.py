"""The store's history and the device's log as one list, oldest first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...errors import UsageError
from ...store import Event
from ..logs import Entry, Level

_AGO = re.compile(r"([0-9]{1,6})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
#: what the store's events are, when they are not good news
_LEVELS: dict[str, Level] = {
    "refused": "warning",
    "revert": "warning",
    "remove": "info",
    "recovered": "warning",
    "fallback": "warning",
    "undone": "warning",
    "unhealthy": "error",
    "gave-up": "error",
    "failed": "error",
}


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. `source` is "history" or "device", `at` seconds since 1970."""

    time: str
    at: float
    source: str
    event: str
    text: str
    level: Level = "info"
    update: str = ""
    data: dict[str, Any] = {}


def merged(history: Iterable[Event], entries: Iterable[Entry]) -> list[Moment]:
    """Both in the order of their times; what was written first comes first at equal times."""
    moments = [_of_event(event) for event in history] + [_of_entry(entry) for entry in entries]
    return sorted(moments, key=lambda moment: moment.at)


def since(text: str, now: float) -> float:
    """Seconds since 1970 of "2026-03-17", "2026-03-17T12:00Z" or "3d" (ago). Raises UsageError."""
    ago = _AGO.fullmatch(text)
    if ago:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "not a moment",
            found=text,
            hint="Write 2026-03-17, 2026-03-17T12:00Z, or how long ago: 90m, 12h, 3d, 2w.",
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def seconds(time: str) -> float:
    """Seconds since 1970 of a time as the logs write it; 0 for one that is none."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _of_event(event: Event) -> Moment:
    lines = [f"{event.display or 'generation'} (generation {event.live})"]
    lines += [event.reason] if event.reason else []
    lines += [f"from {event.source}"] if event.source else []
    data = {
        name: value
        for name, value in msgspec.to_builtins(event).items()
        if name not in ("time", "event")
    }
    return Moment(
        time=event.time,
        at=seconds(event.time),
        source="history",
        event=event.event,
        text="\n".join(lines),
        level=_LEVELS.get(event.event, "info"),
        data=data,
    )


def _of_entry(entry: Entry) -> Moment:
    return Moment(
        time=entry.time,
        at=seconds(entry.time),
        source="device",
        event=entry.event,
        text=entry.text,
        level=entry.level,
        update=entry.update,
        data=entry.data,
    )
