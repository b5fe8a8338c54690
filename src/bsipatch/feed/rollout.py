"""Staged rollouts: which devices are in now, by integers alone, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from bsipatch.errors import FeedError

__all__ = ["check_steps", "is_member", "percent_at", "position", "schedule"]

_PREFIX = b"bsipatch-rollout\0"
_SPACE = 1 << 64
#: steps of one rollout
MOST_STEPS = 64

Step = tuple[int, int]


def position(salt: str, device_id: str) -> int:
    """Where a device stands in the order of a rollout: 0 to 2^64 - 1, fixed for ever."""
    digest = hashlib.sha256(_PREFIX + salt.encode() + b"\0" + device_id.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def is_member(salt: str, device_id: str, percent: int) -> bool:
    """Whether the device is among the first `percent` of a hundred.

    A device that is in at one percentage is in at every higher one.
    """
    return position(salt, device_id) * 100 < percent * _SPACE


def percent_at(steps: Sequence[Step], now: int) -> int:
    """The percentage that holds at `now` (seconds since 1970); 0 before the first step."""
    return max((percent for percent, since in steps if since <= now), default=0)


def schedule(percents: Sequence[int], every: int, start: int) -> tuple[Step, ...]:
    """One step for each percentage, `every` seconds apart from `start` on.

    Raises FeedError for percentages that do not grow within 1 to 100.
    """
    steps = tuple((percent, start + index * every) for index, percent in enumerate(percents))
    check_steps(steps)
    return steps


def check_steps(steps: Sequence[Step]) -> None:
    """Percentages within 1 to 100 that grow, at times that grow. Raises FeedError."""
    if len(steps) > MOST_STEPS:
        raise FeedError("a rollout has too many steps", expected=MOST_STEPS, found=len(steps))
    percent, since = 0, -1
    for step in steps:
        if not percent < step[0] <= 100:
            raise FeedError(
                "a rollout's percentages must grow within 1 to 100",
                found=", ".join(str(p) for p, _ in steps),
            )
        if step[1] <= since:
            raise FeedError("a rollout's times must grow", found=step[1])
        percent, since = step
