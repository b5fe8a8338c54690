"""The starts of the machine, as an init system tells of them: begin, running, ok, ended.

trials.py has the rules by which a start is counted; here they meet the store.
A store without a trial is not locked and nothing in it is written, so that the
many starts of a machine's life cost nothing and cannot go wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from . import collecting, durable, records, trial, trials
from .health import Result
from .records import Generation, Trial
from .store import Store
from .trial import fall_back, judge
from .work import Work

State = Literal["good", "waiting", "trial", "reverted"]


@dataclass(frozen=True, slots=True)
class BootReport:
    """What a mark of the start did.

    state    good: nothing is on trial (any more); waiting: for a restart; trial: this start is
             one; reverted: the tries are used up and the generation before is live
    live     what is live now
    trial    as it stands, None when there is none
    note     one sentence for people
    results  of the health checks, when they ran
    """

    state: State
    live: Generation
    trial: Trial | None
    note: str
    results: tuple[Result, ...] = ()
    recovered: tuple[str, ...] = ()


def boot_begin(store: Store, *, boot_id: str | None = None) -> BootReport:
    """A start begins, and no managed program runs yet: takes a try, or goes back for good.

    boot_id: instead of the kernel's.  Raises StoreBusyError, StoreDamagedError,
    SystemCallError.
    """
    boot = trials.boot_id() if boot_id is None else boot_id
    if _is_quiet(store):
        return BootReport("good", store.live(), None, "nothing is on trial")
    with store.writing("boot-begin") as recovered:
        found = store.trial()
        told = tuple(recovered)
        if found is None:
            return BootReport("good", store.live(), None, "nothing is on trial", (), told)
        begun = trials.begin(found, boot)
        if begun.trial is None:
            reason = f"it did not come up: the tries are used up ({begun.note})"
            notes = fall_back(store, found, "starts", reason)
            note = "; ".join([reason, *notes])
            return BootReport("reverted", store.live(), None, note, (), told)
        if begun.changed:
            with durable.system_calls("counting the start", store.file):
                trials.write(store.fd, begun.trial)
        waiting = trials.waits(begun.trial, boot)
        state: State = "waiting" if waiting else "trial"
        return BootReport(state, store.live(), begun.trial, begun.note, (), told)


def boot_mark(
    store: Store, phase: Literal["running", "ended"], *, boot_id: str | None = None
) -> BootReport:
    """The start came as far as the managed programs, or was shut down in good order."""
    boot = trials.boot_id() if boot_id is None else boot_id
    if _is_quiet(store):
        return BootReport("good", store.live(), None, "nothing is on trial")
    with store.writing(f"boot-mark {phase}") as recovered:
        found = store.trial()
        if found is None:
            note = "nothing is on trial"
            return BootReport("good", store.live(), None, note, (), tuple(recovered))
        marked = trials.mark(found, boot, phase)
        if marked != found:
            with durable.system_calls("marking the start", store.file):
                trials.write(store.fd, marked)
            note = f"this start is {phase}"
        else:
            note = "this start is not counted, or was marked already"
        state: State = "waiting" if trials.waits(marked, boot) else "trial"
        return BootReport(state, store.live(), marked, note, (), tuple(recovered))


def boot_ok(
    store: Store,
    *,
    boot_id: str | None = None,
    checks: bool = True,
    work: Work | None = None,
) -> BootReport:
    """The start went well: runs the health checks, and what is on trial is good.

    checks: False to believe it without them.  Raises HealthError after the
    generation before is live again, StoreBusyError, ConfigError, CancelledError.
    """
    boot = trials.boot_id() if boot_id is None else boot_id
    if _is_quiet(store):
        return BootReport("good", store.live(), None, "nothing is on trial")
    with store.writing("boot-ok") as recovered:
        return settle(
            store, boot=boot, checks=checks, work=work or Work(), recovered=tuple(recovered)
        )


def settle(
    store: Store, *, boot: str, checks: bool, work: Work, recovered: tuple[str, ...] = ()
) -> BootReport:
    """Ends the trial if it can be ended now. The store must be locked and recovered.

    Raises HealthError, CancelledError, SystemCallError.
    """
    found = store.trial()
    if found is None:
        return BootReport("good", store.live(), None, "nothing is on trial", (), recovered)
    if trials.waits(found, boot):
        return replace(describe(store, found, boot), recovered=recovered)
    results: tuple[Result, ...] = ()
    if checks:
        results = judge(store, found, work).results
    else:
        trial.good(store, found, "its health checks were left out on request")
    collecting.make_room(store.fd, store.file, store.limits)
    return BootReport("good", store.live(), None, "the trial is passed", results, recovered)


def describe(store: Store, found: Trial, boot: str) -> BootReport:
    """How a trial stands, nothing changed."""
    if trials.waits(found, boot):
        return BootReport("waiting", store.live(), found, "it takes effect with the next restart")
    return BootReport("trial", store.live(), found, f"on trial, {found.tries} more starts")


def _is_quiet(store: Store) -> bool:
    """Whether nothing is on trial and nothing was interrupted; asked without the lock."""
    names = (records.TRIAL, records.PENDING)
    with durable.system_calls("reading the store", store.file):
        return not any(_is_there(store.fd, name) for name in names)


def _is_there(root_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
