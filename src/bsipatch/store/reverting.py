"""Going back on purpose: to the generation before, or to the baseline."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..errors import BsipatchError, StoreDamagedError, StoreStateError
from ..limits import Limits
from . import bars, durable, live, localhealth, moving, records, trials
from .generations import is_unproven, read_generation
from .records import Generation, Pending, Trial


@dataclass(frozen=True, slots=True)
class Reverted:
    """What a revert did.

    notes    what could not be written, as sentences
    seconds  the work done under the lock
    """

    left: Generation
    live: Generation
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a revert leads, and the move that takes it there."""

    left: Generation
    target: Generation
    pending: Pending


def revert(
    root_fd: int, file: str, limits: Limits, *, baseline: bool, remove: bool, reason: str
) -> Reverted:
    """Goes back one generation, or to the baseline. The store must be locked and recovered.

    Costs a few small writes whatever the tree's size.  What is left behind is
    not offered again by itself; asked for by name it may come back.  A
    generation that never passed its trial begins it again.  Raises
    StoreStateError when the baseline is live.
    """
    began = time.perf_counter()
    with durable.system_calls("reverting", file):
        made = plan(root_fd, file, limits, baseline=baseline, remove=remove, reason=reason)
        notes = moving.move(root_fd, file, limits, made.pending)
    return Reverted(made.left, made.target, tuple(notes), time.perf_counter() - began)


def plan(
    root_fd: int, file: str, limits: Limits, *, baseline: bool, remove: bool, reason: str
) -> Plan:
    """What `revert` will do; nothing is written. Raises as it does."""
    left = read_generation(root_fd, records.live_number(root_fd, file), file, limits)
    if left.number == records.BASELINE:
        raise StoreStateError(
            "the baseline is live: there is nothing to revert", file=file, hint=""
        )
    targets = live.reachable(root_fd, left, file, limits)
    target = targets[-1] if baseline or remove else targets[0]
    if not moving.exists(root_fd, target.number):
        name = records.generation_name(target.number)
        raise StoreDamagedError("a generation has no tree", file=f"{file}/{name}")
    why = reason or ("removed by its owner" if remove else "reverted by its owner")
    behind = [left, *(item for item in targets if item.number > target.number)]
    made = [bars.make(item, "owner", why) for item in behind]
    pending = Pending(
        new=target.number,
        old=left.number,
        source="",
        started=records.now(),
        verb="remove" if remove else "revert",
        trial=_trial(root_fd, target, targets, file, limits),
        bars=tuple(bar for bar in made if bar is not None),
        reason=reason,
        by=bars.person(),
    )
    return Plan(left, target, pending)


def _trial(
    root_fd: int, target: Generation, targets: list[Generation], file: str, limits: Limits
) -> Trial | None:
    """The trial of a generation that was replaced before it could pass one."""
    if not is_unproven(root_fd, target.number):
        return None
    good = next(item for item in targets if not is_unproven(root_fd, item.number))
    try:
        ours = localhealth.read(root_fd, file, limits)
        tries, blips = ours.starts, ours.blips
    except BsipatchError:  # going back must not fail for its sake
        tries, blips = limits.trial_starts, limits.trial_blips
    return trials.new(
        target.number, good.number, "restart", tries=tries, blips=blips, boot=trials.boot_id()
    )
