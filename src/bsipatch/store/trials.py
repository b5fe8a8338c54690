"""The record of a trial, and the boot counter: what has yet to prove itself, how often it may try.

The counter runs only while a generation is on trial; a machine whose generation
is good writes nothing when it starts.  A start counts when it reached the
managed programs and then neither passed its checks nor ended in good order::

    phase of the last start    the next start finds   and so
    -------------------------  ---------------------  ------------------------------------
    applied                    (no start yet)         the first try is taken
    begun, never running       lost power early       a blip: the try is given back
    running, never ok          died in our name       the try stays taken
    ended                      was shut down          a blip: the try is given back

Blips are bounded too (`Trial.blips`): an update that kills the machine before
any program starts must not be able to hide behind them.  When they are used
up every start counts.

Pure but for `read` and `write`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import NotFoundError
from ..limits import Limits
from . import durable, records
from .records import Start, Trial

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Begun:
    """What a start means for the trial.

    trial      as it stands from now on; None when its tries are used up
    note       one sentence for people
    changed    False when this very start was counted already
    """

    trial: Trial | None
    note: str
    changed: bool


def read(root_fd: int, file: str, limits: Limits) -> Trial | None:
    """The trial under way, if any. Raises StoreDamagedError, SystemCallError."""
    shown = f"{file}/{records.TRIAL}"
    try:
        return records.read(Trial, records.TRIAL, dir_fd=root_fd, limits=limits, file=shown)
    except NotFoundError:
        return None


def write(root_fd: int, trial: Trial, *, sync: bool = True) -> None:
    """Writes the trial down, durably. Raises OSError.

    Without `sync` its name lasts from the folder's next sync on.
    """
    durable.replace_file(records.TRIAL, records.encode(trial), dir_fd=root_fd, sync=sync)


def boot_id() -> str:
    """The kernel's id of this start of the machine; "" where there is none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()[:64]
    except (OSError, UnicodeDecodeError):
        return ""


def new(
    number: int,
    old: int,
    scope: Literal["relaunch", "restart"],
    *,
    tries: int,
    blips: int,
    boot: str,
) -> Trial:
    """The trial of a generation that is about to go live in the start `boot`."""
    return Trial(
        number=number,
        old=old,
        scope=scope,
        tries=tries,
        blips=blips,
        start=Start(boot=boot, phase="applied"),
        since=records.now(),
    )


def begin(trial: Trial, boot: str) -> Begun:
    """A start begins: takes a try, after giving back that of a start that was only a blip."""
    if boot and trial.start.boot == boot:
        return Begun(trial, "this start was counted already", changed=False)
    tries, blips, told = trial.tries, trial.blips, "the first start"
    match trial.start.phase:
        case "begun" | "ended" if blips > 0:
            early = trial.start.phase == "begun"
            tries, blips = tries + 1, blips - 1
            told = (
                "the start before ended before any program ran"
                if early
                else "the start before was shut down in good order"
            ) + ": not counted"
        case "begun" | "ended":
            told = "too many starts ended early: the one before counts"
        case "running":
            told = "the start before died once the programs ran: it counts"
        case "applied":
            pass
    if tries <= 0:
        return Begun(None, told, changed=True)
    start = Start(boot=boot, phase="begun")
    taken = msgspec.structs.replace(trial, tries=tries - 1, blips=blips, start=start)
    return Begun(taken, told, changed=True)


def mark(trial: Trial, boot: str, phase: Literal["running", "ended"]) -> Trial:
    """The start `boot` came this far; another start's marks change nothing."""
    start = trial.start
    if start.phase == "applied" or start.boot != boot or start.phase == phase:
        return trial
    return msgspec.structs.replace(trial, start=Start(boot=boot, phase=phase))


def waits(trial: Trial, boot: str) -> bool:
    """Whether there is nothing to judge yet: it takes effect with a restart that did not come."""
    phase, begun = trial.start.phase, trial.start.boot
    return trial.scope == "restart" and phase == "applied" and (not boot or begun == boot)
