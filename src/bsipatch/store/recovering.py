"""`bsipatch recover`: whatever was interrupted is finished or undone, and said so."""

from __future__ import annotations

from dataclasses import dataclass

from . import boot, durable, trials
from .boot import BootReport
from .store import Store
from .work import Work


@dataclass(frozen=True, slots=True)
class Recovered:
    """found: paths below the store that were unfinished business. done: sentences, in order."""

    found: tuple[str, ...]
    done: tuple[str, ...]
    report: BootReport


def recover(store: Store, *, checks: bool = True, work: Work | None = None) -> Recovered:
    """Brings the store to a whole state and ends a trial whose checks are due.

    Every command that changes something does the first part by itself.  Safe to
    interrupt and to repeat.  checks: False to leave a trial as it is.  Raises
    HealthError after the generation before is live again, StoreBusyError,
    StoreDamagedError, SystemCallError, CancelledError.
    """
    with durable.system_calls("reading the store", store.file):
        found = store.unfinished()
    with store.writing("recover") as recovered:
        done = tuple(recovered)
        trial = store.trial()
        if trial is None or (checks and trial.scope == "relaunch"):
            report = boot.settle(store, boot=trials.boot_id(), checks=checks, work=work or Work())
            if trial is not None:
                done = (*done, f"generation {trial.number} passed its trial")
            return Recovered(found, done, report)
        return Recovered(found, done, boot.describe(store, trial, trials.boot_id()))
