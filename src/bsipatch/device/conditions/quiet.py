"""Quiet hours on the local wall clock, across midnight and changes of summer time.

What counts is what a clock on the wall shows.  Hours that do not exist on the
day the clock goes forward are never quiet; those that come twice on the day it
goes back are quiet both times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from ..policy_schema import DAYS, Hours
from ._answer import Answer

_MINUTE = 60
#: minutes looked ahead for the end: a week and a day
_HORIZON = 8 * 24 * 60


def within(hours: Hours, local: datetime) -> bool:
    """Whether a wall-clock time lies in the hours; `to` itself does not."""
    start, end, at = _minutes(hours.start), _minutes(hours.end), local.hour * 60 + local.minute
    if start < end:
        began, inside = local, start <= at < end
    elif at >= start:
        began, inside = local, True
    else:
        began, inside = local.replace(tzinfo=None) - timedelta(days=1), at < end
    return inside and (not hours.days or DAYS[began.weekday()] in hours.days)


def until(hours: Sequence[Hours], now: float, zone: tzinfo | None) -> float | None:
    """When quiet hours end that hold at `now`, however they adjoin; None within eight days.

    Looks minute by minute, so that whatever the zone's clock does is taken as it comes.
    """
    at = int(now) // _MINUTE * _MINUTE
    for _ in range(_HORIZON):
        at += _MINUTE
        local = datetime.fromtimestamp(at, zone)
        if not any(within(one, local) for one in hours):
            return float(at)
    return None


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Ok outside all of `hours`. `zone` is None for the machine's own."""

    hours: Sequence[Hours]
    zone: tzinfo | None = None
    name: str = "quiet-hours"

    def ask(self, now: float) -> Answer:
        """Looks at the clock."""
        local = datetime.fromtimestamp(now, self.zone).astimezone(self.zone)
        evidence: dict[str, object] = {
            "local": local.isoformat(timespec="minutes"),
            "hours": [f"{one.start}-{one.end} {' '.join(one.days)}".rstrip() for one in self.hours],
        }
        holding = [one for one in self.hours if within(one, local)]
        if not holding:
            text = "outside quiet hours" if self.hours else "no quiet hours are set"
            return Answer(name=self.name, ok=True, code=self.name, text=text, evidence=evidence)
        end = until(self.hours, now, self.zone)
        told = "for more than a week"
        if end is not None:
            told = f"until {datetime.fromtimestamp(end, self.zone):%a %H:%M}"
        return Answer(
            name=self.name,
            ok=False,
            code=self.name,
            text=f"quiet hours {told}",
            until=end,
            evidence=evidence,
        )
