"""What the agent sees: the device's state, the store's unfinished business, its own memo."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Literal

from ...errors import BsipatchError
from ...limits import Limits
from ...store import Store, Trial, trials
from .. import relaunch
from ..schedule import Timing
from ..service import DeviceService
from . import memo as memos
from .deciding import Seen
from .early import due

_UPTIME = Path("/proc/uptime")


def look(service: DeviceService, now: float, timing: Timing, limits: Limits) -> Seen:
    """Everything at this moment. Raises StoreDamagedError, SystemCallError, NotFoundError."""
    state = service.state(history=0)
    with Store(service.root, limits=limits) as store:
        unfinished = store.unfinished() if not state.busy else ()
        trial = store.trial()
    first = next((one for one in state.listed if one.standing == "available"), None)
    wanted = () if first is None else first.activation.processes
    follows = state.standing != "no-feed"
    return Seen(
        now=now,
        due=due(service.root, now, timing) if follows else None,
        unfinished=bool(unfinished),
        trial=_trial(trial),
        starts=trial is not None and trial.start.phase in ("begun", "running"),
        up=uptime(),
        withdrawn=bool(state.withdrawn),
        moved=state.moved,
        listed=state.listed,
        programs=relaunch.running(wanted, math.inf),
        relaunch=state.needs.processes,
        live=state.installed.display,
        problem=state.policy_error or state.checks.problem,
        unread=state.feed is None and state.checks.last_success is not None,
        memo=memos.load(service.root).at(now),
    )


def _trial(trial: Trial | None) -> Literal["", "relaunch", "restart", "starting"]:
    if trial is None:
        return ""
    if trial.scope == "relaunch":
        return "relaunch"
    return "restart" if trials.waits(trial, trials.boot_id()) else "starting"


def uptime() -> float:
    """Seconds since the machine started; a long time where nobody knows."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return float(_UPTIME.read_text("ascii").split()[0])
    with contextlib.suppress(BsipatchError, OSError):
        return time.monotonic()
    return math.inf
