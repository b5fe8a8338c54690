"""Ends a trial: good, or the generation before is live again.

The store must be locked and recovered by whoever calls.  Interrupted anywhere,
the generation is still on trial, or going back is under way and recovery
finishes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import BsipatchError, CancelledError, StoreBusyError
from ..manifest import HealthCheck, Manifest, check_release_field
from . import bars, durable, grouped, health, history, localhealth, moving, records
from .generations import discard, prove
from .health import Result
from .moving import Move
from .records import Member, Pending, Trial, Why
from .store import Store
from .work import Work

#: components of a group by name, locked
Peers: TypeAlias = Mapping[str, Store]


@dataclass(frozen=True, slots=True)
class _Companions:
    """What goes back together, by name: those whose locks we hold, and those we do not."""

    locked: dict[str, Store]
    busy: dict[str, Store]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The trial that was judged, and what each check said."""

    trial: Trial
    results: tuple[Result, ...]


def checks_of(store: Store, manifest: Manifest) -> tuple[HealthCheck, ...]:
    """The manifest's checks, then the owner's; one that is in both is made once.

    Raises ConfigError for a file of the owner's that makes no sense.
    """
    ours = localhealth.read(store.fd, store.file, store.limits).checks
    return manifest.health + tuple(check for check in ours if check not in manifest.health)


def judge(
    store: Store,
    trial: Trial,
    work: Work,
    *,
    undoing: bool = False,
    peers: Peers | None = None,
) -> Verdict:
    """Runs the checks of the generation on trial, and ends the trial.

    When one fails the generation before is live again by the time the error
    comes out.  When the work is stopped the trial goes on, or with `undoing`
    it never was.  peers: the other components that were updated with it, when
    their locks are held already.  Raises HealthError, CancelledError, ConfigError.
    """
    manifest = store.manifest(trial.number)
    checks = checks_of(store, manifest) if manifest is not None else ()
    try:
        results = health.run(store, trial.number, checks, work)
    except (CancelledError, KeyboardInterrupt):
        if undoing:
            undo(store, trial, "stopped on request while it was on trial", peers)
        raise
    error = health.failure(results, store.file)
    if error is not None:
        notes = fall_back(store, trial, "health", f"health check failed: {error.detail}", peers)
        if notes:
            error.detail += f"; {'; '.join(notes)}"
        raise error
    passed = ", ".join(result.title for result in results)
    good(store, trial, f"passed: {passed}" if passed else "")
    return Verdict(trial, results)


def good(store: Store, trial: Trial, reason: str) -> None:
    """The generation has proved itself: its bars go, the trial ends. Raises SystemCallError."""
    with durable.system_calls("ending the trial", store.file):
        forget(store, trial.number)
        generation = store.generation(trial.number)
        event = history.event(
            "good",
            trial.number,
            was=trial.old,
            display=generation.display,
            build=generation.build,
            source=generation.source,
            reason=reason,
        )
        history.append(store.fd, event)
        prove(store.fd, trial.number)
        durable.remove_file(records.TRIAL, dir_fd=store.fd)


def forget(store: Store, number: int) -> None:
    """Lifts the bars of a generation that was applied all the same, and is good."""
    manifest = store.generation(number).manifest
    with contextlib.suppress(BsipatchError):  # a list that cannot be read bars nothing from here
        if manifest is not None and any(bar.manifest == manifest for bar in store.bars()):
            bars.lift(store.fd, {manifest}, store.file, store.limits)


def fall_back(
    store: Store, trial: Trial, why: Why, reason: str, peers: Peers | None = None
) -> list[str]:
    """Back to the generation before the trial, and the improvement barred.

    With it go the components that were updated together with it.  Returns what
    could not be written.  Raises SystemCallError.
    """
    with _together(store, trial, peers) as companions:
        return _back(store, trial, companions, why, reason)


def undo(store: Store, trial: Trial, reason: str, peers: Peers | None = None) -> None:
    """Back to the generation before the trial as if nothing had happened; nothing is barred."""
    with _together(store, trial, peers) as companions:
        _back(store, trial, companions, None, reason)
        numbers = {member.name: member.new for member in _members(store, trial)}
        for name, other in companions.locked.items():
            with durable.system_calls("removing a generation", other.file):
                discard(other.fd, numbers[name])


def _members(store: Store, trial: Trial) -> tuple[Member, ...]:
    """The components that go back together; a store of its own is one."""
    return trial.group or (Member(name="", old=trial.old, new=trial.number),)


@contextlib.contextmanager
def _together(store: Store, trial: Trial, peers: Peers | None) -> Iterator[_Companions]:
    """Every component that still shows what was activated with the trial.

    Their locks are taken; one that another process holds, which may be going
    back for the same reason, is moved without its records being written here:
    its own recovery finds that it moved.
    """
    own = grouped.name_of(store.fd) or ""
    locked: dict[str, Store] = {}
    busy: dict[str, Store] = {}
    with contextlib.ExitStack() as stack:
        for member in _members(store, trial):
            known = store if member.name in ("", own) else (peers or {}).get(member.name)
            where = locked
            if known is None:
                check_release_field("platform", member.name, limits=store.limits)
                known = stack.enter_context(
                    Store(store.root.parent / member.name, limits=store.limits)
                )
                try:
                    stack.enter_context(known.writing("going back with its group"))
                except StoreBusyError:
                    where = busy
            if records.live_number(known.fd, known.file) == member.new:
                where[member.name] = known
        yield _Companions(locked, busy)


def _back(
    store: Store, trial: Trial, companions: _Companions, why: Why | None, reason: str
) -> list[str]:
    """Moves all of them back, in one step."""
    everyone = {**companions.busy, **companions.locked}
    ways = {
        member.name: Member(
            name=member.name,
            old=member.new,
            new=member.old
            if moving.exists(everyone[member.name].fd, member.old)
            else records.BASELINE,
        )
        for member in _members(store, trial)
        if member.name in everyone
    }
    moves = []
    for name, other in companions.locked.items():
        generation = other.generation(ways[name].old)
        told = reason if other is store else f"it went back with {store.identity.product}: {reason}"
        bar = None if why is None else bars.make(generation, why, told)
        pending = Pending(
            new=ways[name].new,
            old=ways[name].old,
            source=generation.source,
            started=records.now(),
            verb="back",
            bars=() if bar is None else (bar,),
            reason=told,
            group=tuple(ways.values()) if trial.group else (),
        )
        moves.append(Move(other.fd, other.file, other.limits, pending))
    with durable.system_calls("going back", store.file):
        return moving.move_together(moves)
