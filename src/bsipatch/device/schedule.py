"""When to check next: an interval with jitter, and after failures a backoff with jitter.

Pure but for load() and save().  The jitter comes from the device's id and the
time, not from a random source: the same device asked twice gives the same
answer, a fleet spreads evenly, and a test can say what will happen.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import from_os_error
from ..output import OutputFile

#: in the store's folder
NAME = "schedule.json"
_SPACE = 1 << 64
#: a clock that differs by more than this from what was written has been set back
_SLACK = 300.0
_MOST = 1 << 14
#: failures beyond which the delay no longer grows (2 ** 30 times anything is over any cap)
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. Checks come every `interval` give or take half of `jitter`.

    After the nth failure in a row the next try comes after `retry * 2**(n-1)` seconds,
    at most `cap`, of which between half and all is waited.
    """

    interval: float = 6 * 3600.0
    jitter: float = 2 * 3600.0
    retry: float = 60.0
    cap: float = 6 * 3600.0


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of checks so far, kept in a file. Times in seconds since 1970."""

    #: when the next one is due; 0 for at once
    next_check: float = 0.0
    last_check: float | None = None
    last_success: float | None = None
    #: failures since then, and the newest one's words
    failures: int = 0
    last_error: str = ""


def fraction(device: str, purpose: str, at: float) -> float:
    """A number from 0 to below 1 that is always the same for the same arguments."""
    text = f"bsipatch-schedule\0{purpose}\0{device}\0{int(at)}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / _SPACE


def succeeded(schedule: Schedule, device: str, now: float, timing: Timing) -> Schedule:
    """After a check that came through, whatever it found."""
    shift = (fraction(device, "check", now) - 0.5) * timing.jitter
    return Schedule(
        next_check=now + max(timing.interval + shift, 1.0), last_check=now, last_success=now
    )


def failed(schedule: Schedule, device: str, now: float, error: str, timing: Timing) -> Schedule:
    """After a check that did not."""
    failures = schedule.failures + 1
    return Schedule(
        next_check=now + retry_delay(device, failures, now, timing),
        last_check=now,
        last_success=schedule.last_success,
        failures=failures,
        last_error=error[:1000],
    )


def retry_delay(device: str, failures: int, now: float, timing: Timing) -> float:
    """Seconds to wait after the nth failure in a row."""
    whole = min(timing.retry * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), timing.cap)
    return whole * (0.5 + fraction(device, f"retry {failures}", now) / 2)


def due_in(schedule: Schedule, now: float, timing: Timing) -> float:
    """Seconds until the next check is due; 0 when it is.

    A clock that was set back must not put checks off: when the last check lies in the
    future, or the next one farther away than any rule would put it, it is due now.
    """
    farthest = max(timing.interval + timing.jitter, timing.cap)
    set_back = schedule.last_check is not None and schedule.last_check > now + _SLACK
    if set_back or schedule.next_check - now > farthest + _SLACK:
        return 0.0
    return max(0.0, schedule.next_check - now)


def first(device: str, now: float, timing: Timing) -> Schedule:
    """For a device that has never checked: within minutes, but not all devices at once."""
    spread = min(timing.jitter, 600.0)
    return Schedule(next_check=now + fraction(device, "first", 0) * spread)


def load(path: Path) -> Schedule | None:
    """What was saved; None when there is nothing, or nothing that can be read.

    A damaged file costs one check too many, so it is no error.
    """
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        with path.open("rb") as file:
            data = file.read(_MOST)
        found = msgspec.json.decode(data, type=Schedule)
        if found.failures >= 0:
            return found
    return None


def save(path: Path, schedule: Schedule) -> None:
    """Keeps it, whole or not at all. Raises SystemCallError, NoSpaceError, NotFoundError."""
    try:
        with OutputFile(path, mode=0o644) as out:
            out.write(msgspec.json.encode(schedule) + b"\n")
            out.commit()
    except OSError as error:
        raise from_os_error(error, path) from error
