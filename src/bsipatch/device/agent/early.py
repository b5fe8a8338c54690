"""Whether there is anything to do at all, told by a few small files and with few imports."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import BsipatchError
from .. import policy_files, schedule
from ..schedule import Schedule, Timing
from . import memo as memos

#: what a store that follows a feed has
CONFIG = "feed/config.toml"
DEVICE = "feed/device-id"
#: what is written when somebody else changed what the agent decides by
SETTINGS = (policy_files.SETTINGS, CONFIG)
CHANGES = ("current", *SETTINGS, "bars.json", "moved.json", "pending.json", "trial.json")


def timing(every: float | None) -> Timing:
    """Checks every so many seconds; everything else in proportion. None: as usual."""
    if every is None:
        return Timing()
    usual = Timing()
    share = every / usual.interval
    return Timing(
        interval=every,
        jitter=usual.jitter * share,
        retry=min(usual.retry, every / 4),
        cap=every,
    )


def due(root: Path, now: float, timing: Timing) -> float | None:
    """Seconds until the feed is to be asked; None when no feed is followed.

    It is asked at once when its settings or the owner's are newer than the last check.
    """
    if not (root / CONFIG).exists():
        return None
    checked = _changed(root / schedule.NAME)
    if checked is not None and any((_changed(root / n) or 0) > checked for n in SETTINGS):
        return 0.0
    return schedule.due_in(schedule.load(root / schedule.NAME) or Schedule(), now, timing)


def quiet(root: Path, now: float, timing: Timing) -> bool:
    """Whether there is nothing to do at all before the memo's moment: told by a few small files.

    What a single run asks first, so that one that comes too early costs next to nothing.
    """
    known = memos.load(root)
    wait = due(root, now, timing)
    if wait == 0 or not known.written <= now < known.wake:
        return False
    if any((_changed(path) or 0) > known.written for path in _deciding(root)):
        return False
    return not any(_ended(pid) for pid in known.pids)


def watched(root: Path) -> tuple[Path, ...]:
    """Folders in which a change may be one of what the agent decides by."""
    return (root, root / "feed", *_managed())


def _deciding(root: Path) -> Iterator[Path]:
    yield from (root / name for name in CHANGES)
    for folder in _managed():
        yield folder
        with contextlib.suppress(OSError):
            yield from folder.iterdir()


def _managed() -> tuple[Path, Path]:
    return (policy_files.MANAGED, policy_files.MANAGED / "managed.d")


def _changed(path: Path) -> float | None:
    """When a file was put there or changed, whatever time it carries; None without one."""
    with contextlib.suppress(OSError):
        return os.lstat(path).st_ctime
    return None


def _ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def spread_first(root: Path, now: float, timing: Timing) -> None:
    """Puts a device that never checked somewhere into the next minutes, each somewhere else."""
    path = root / schedule.NAME
    with contextlib.suppress(BsipatchError, OSError, UnicodeDecodeError):
        if not path.exists():
            device = (root / DEVICE).read_text("utf-8").strip()
            schedule.save(path, schedule.first(device, now, timing))


def note_check(root: Path, device: str) -> None:
    """Remembers a check that somebody made by hand; the agent's next one comes after it.

    What cannot be written costs one check too many.
    """
    path, now = root / schedule.NAME, time.time()
    before = schedule.load(path) or Schedule()
    with contextlib.suppress(BsipatchError):
        schedule.save(path, schedule.succeeded(before, device, now, Timing()))
