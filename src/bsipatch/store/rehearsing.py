"""Does everything that applying and reverting an update would do, and activates nothing.

STORE/rehearsal.tmp/ becomes a store of its own: copies of the records, and links
to the generations, which nobody writes to.  The update is applied there by the
very code that would apply it, health checks included, and reverted; then the
folder goes.  What is left by a crash is removed by the next recovery.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from . import durable, records
from .applying import Applied, Terms, apply
from .beneath import DIRECTORY
from .lock import LOCK
from .reverting import Reverted
from .store import Store
from .work import Work

REHEARSAL = "rehearsal.tmp"
#: what belongs to the real store alone: its lock, a move under way, where its tree is shown
_NOT_COPIED = frozenset({LOCK, records.PENDING, "live.json"})


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would happen.

    applied   as apply would say
    reverted  as revert would say; None when the update is live already
    phases    seconds by phase, in order
    """

    applied: Applied
    reverted: Reverted | None
    phases: dict[str, float]

    @property
    def seconds(self) -> float:
        """All phases together."""
        return sum(self.phases.values())


class _Clock:
    """A progress callback that notes how long each phase takes, and passes everything on."""

    def __init__(self, work: Work) -> None:
        self._tell = work.progress
        self.phases: dict[str, float] = {}
        self._phase, self._since = "verifying", time.perf_counter()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self.enter(phase)
        if self._tell is not None:
            self._tell(phase, done, total)

    def enter(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[self._phase] = self.phases.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now


def rehearse(
    store: Store,
    update: str | os.PathLike[str],
    *,
    work: Work | None = None,
    strategy: str | None = None,
    per_file_sync: bool = False,
    terms: Terms | None = None,
    now: float | None = None,
) -> Rehearsal:
    """Applies the update to a throw-away copy of the store, and reverts it.

    Nothing is activated, nothing is written into the history, and nothing is left,
    whatever happens.  The update's health checks do run.  Raises what apply and
    revert raise.
    """
    work = work or Work()
    clock = _Clock(work)
    timed = Work(jobs=work.jobs, progress=clock, stop=work.stop)
    with store.writing("rehearse"), _throw_away(store) as copy:
        applied = apply(
            copy,
            update,
            work=timed,
            strategy=strategy,
            per_file_sync=per_file_sync,
            terms=terms,
            now=now,
        )
        reverted = None
        if not applied.already:
            clock.enter("reverting")
            reverted = copy.revert(baseline=False)
        clock.enter("removing")
        _remove(store)
        clock.enter("end")
    return Rehearsal(applied, reverted, clock.phases)


@contextlib.contextmanager
def _throw_away(store: Store) -> Iterator[Store]:
    """A store that reads the real one's generations and writes none of them."""
    try:
        with durable.system_calls("preparing the rehearsal", store.file):
            _copy_records(store)
        # the copy's generations are links, which nothing may collect
        limits = store.limits.but(max_generations=store.limits.max_entries)
        with Store(store.root / REHEARSAL, limits=limits) as copy:
            yield copy
    finally:
        with contextlib.suppress(OSError):
            _remove(store)


def _copy_records(store: Store) -> None:
    _remove(store)
    os.mkdir(REHEARSAL, 0o700, dir_fd=store.fd)
    folder = os.open(REHEARSAL, DIRECTORY, dir_fd=store.fd)
    try:
        with os.scandir(store.fd) as entries:
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in files:
            if name not in _NOT_COPIED:
                # the history alone may be larger than a record
                data = durable.read_file(name, dir_fd=store.fd, limit=store.limits.max_manifest)
                durable.replace_file(name, data, dir_fd=folder)
        os.mkdir(records.GENERATIONS, 0o700, dir_fd=folder)
        for number in records.generation_numbers(store.fd):
            name = records.generation_name(number)
            os.symlink(f"../../{name}", name, dir_fd=folder)
        live = records.generation_name(records.live_number(store.fd, store.file))
        durable.replace_link(records.CURRENT, live, dir_fd=folder)
    finally:
        os.close(folder)


def _remove(store: Store) -> None:
    """Removes the copy; the links in it are removed, not followed."""
    durable.remove_tree(REHEARSAL, dir_fd=store.fd)
