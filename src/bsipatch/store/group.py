"""A group of components: several managed trees that are updated in one step, all or none.

A component is an ordinary store, made by `init` at GROUP/components/NAME and
then adopted; every command works on it as on any other.  What is more: several
of them can be updated, and taken back, together (see grouped.py for the links).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..errors import (
    BsipatchError,
    CancelledError,
    HealthError,
    NotFoundError,
    StoreStateError,
    UsageError,
)
from ..limits import DEFAULT, Limits
from ..manifest import check_release_field
from ..package import Package
from . import durable, exchange, grouped, live, moving, records, reverting
from .applying import Applied, Applying, Planned, Terms, is_refusal, open_update
from .moving import Move
from .records import Member, Pending, Trial
from .store import Store
from .work import Work


@dataclass(frozen=True, slots=True)
class _One:
    """One component's part of a transaction."""

    name: str
    store: Store
    applying: Applying
    planned: Planned
    recovered: tuple[str, ...]


class Group:
    """A folder of components. Holds no descriptor; safe to use from several threads."""

    def __init__(self, root: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
        """The group at `root`, whose components are made and adopted one by one."""
        self.root, self.limits = Path(os.path.abspath(root)), limits

    def path(self, name: str) -> Path:
        """Where a component's store lies. Raises ManifestError for a name that is none."""
        check_release_field("platform", name, limits=self.limits)
        return self.root / grouped.COMPONENTS / name

    def components(self) -> tuple[str, ...]:
        """The adopted components, by name. Raises SystemCallError."""
        folder = self.root / grouped.COMPONENTS
        with durable.system_calls("reading the group", folder):
            try:
                names = sorted(os.listdir(folder))
            except FileNotFoundError:
                raise NotFoundError(
                    "no such group",
                    file=self.root,
                    hint=f"Make its first component: bsipatch init --store {folder}/NAME …",
                ) from None
        return tuple(name for name in names if self._is_adopted(name))

    def _is_adopted(self, name: str) -> bool:
        try:
            target = os.readlink(self.root / grouped.COMPONENTS / name / records.CURRENT)
        except OSError:
            return False
        return records.group_name(target) == name

    def adopt(self, name: str) -> None:
        """Makes the store at components/NAME a component; it stays live as it is.

        Safe to repeat.  Raises NotFoundError, StoreStateError for a live path
        that is a directory (such a path cannot move together with others).
        """
        with (
            Store(self.path(name), limits=self.limits) as store,
            store.writing("adopt"),
            durable.system_calls("adopting", store.file),
        ):
            if self._is_adopted(name):
                return
            if exchange.exchanged(store.fd) is not None:
                raise StoreStateError(
                    "its live path is a directory, which cannot move with others", file=store.file
                )
            with contextlib.suppress(FileExistsError):
                os.mkdir("../../" + grouped.SETS, 0o755, dir_fd=store.fd)
                durable.sync_dir("../..", dir_fd=store.fd)
            # First the set, then the link that leads to it: both show the same generation.
            grouped.flip(store.fd, name, records.live_number(store.fd, store.file))
            durable.replace_link(records.CURRENT, records.IN_GROUP + name, dir_fd=store.fd)

    def apply(
        self,
        updates: Mapping[str, str | os.PathLike[str]],
        *,
        work: Work | None = None,
        strategy: str | None = None,
        per_file_sync: bool = False,
        terms: Terms | None = None,
        now: float | None = None,
    ) -> dict[str, Applied]:
        """Applies an update to each component named, in one transaction.

        All are built and read back before the first becomes live, then all
        become live by one rename.  When a health check of one fails, all go
        back together, also after a restart.  Raises what store.apply raises.
        """
        if not updates:
            raise UsageError("no component is named")
        began, work = time.perf_counter(), work or Work()
        with contextlib.ExitStack() as stack:
            parts = [
                self._open(stack, name, updates[name], work, terms or Terms(), strategy, now)
                for name in sorted(updates)
            ]
            moved = _linked([part for part in parts if part.planned.pending is not None])
            flip = self._make_live(moved, per_file_sync)
            peers = {part.name: part.store for part, _ in moved}
            # One that passes is good; when a later one fails, it goes back with it all the same.
            results = {
                part.name: part.applying.prove(pending.trial, peers) for part, pending in moved
            }
            return {
                part.name: part.applying.done(
                    part.planned,
                    part.recovered,
                    began,
                    trial=part.store.trial(),
                    health=results.get(part.name, ()),
                    flip=flip,
                )
                for part in parts
            }

    def _open(
        self,
        stack: contextlib.ExitStack,
        name: str,
        update: str | os.PathLike[str],
        work: Work,
        terms: Terms,
        strategy: str | None,
        now: float | None,
    ) -> _One:
        """Everything of one component up to knowing what will be built."""
        store, recovered = self._locked(stack, name, "apply together")
        fd = open_update(update)
        stack.callback(os.close, fd)
        package = stack.enter_context(Package.open(fd, store.verify, limits=self.limits))
        source = os.path.abspath(update)
        applying = Applying(store, package, work, source, terms)
        try:
            planned = applying.plan(
                strategy=strategy or store.identity.strategy,
                now=time.time() if now is None else now,
            )
        except (CancelledError, HealthError):
            raise
        except BsipatchError as error:
            store.note("refused" if is_refusal(error) else "failed", error, source)
            raise
        return _One(name, store, applying, planned, tuple(recovered))

    def _locked(
        self, stack: contextlib.ExitStack, name: str, doing: str
    ) -> tuple[Store, list[str]]:
        """A component's store, locked and recovered until the stack ends; what that did."""
        path = self.path(name)
        store = stack.enter_context(Store(path, limits=self.limits))
        if not self._is_adopted(name):
            raise StoreStateError(
                "not a component of this group",
                file=path,
                hint=f"Adopt it: bsipatch group adopt {self.root} {name}",
            )
        return store, stack.enter_context(store.writing(doing))

    def _make_live(self, moved: Sequence[tuple[_One, Pending]], per_file_sync: bool) -> float:
        """Stages all, then flips; returns the seconds of the flip."""
        if not moved:
            return 0.0
        staged: list[tuple[_One, Pending]] = []
        try:
            for part, pending in moved:
                planned = replace(part.planned, pending=pending)
                try:
                    staged.append((part, part.applying.stage(planned, per_file_sync)))
                except CancelledError:
                    raise
                except BsipatchError as error:
                    part.store.note("failed", error, pending.source)
                    raise
            began = time.perf_counter()
            members = [
                Member(name=part.name, old=ready.old, new=ready.new) for part, ready in staged
            ]
            with durable.system_calls("making them live", self.root):
                live.flip_together(staged[0][0].store.fd, members)
        except BaseException:
            for part, ready in staged:
                part.applying.undo(ready)
            raise
        taken = time.perf_counter() - began
        for part, ready in staged:
            part.applying.settle(ready)
        return taken

    def revert(
        self, *, baseline: bool = False, remove: bool = False, reason: str = ""
    ) -> dict[str, reverting.Reverted]:
        """Takes every component back one generation, or to its baseline, in one step.

        Components at their baseline stay there.  Raises StoreStateError when
        all are, StoreBusyError.
        """
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            plans: dict[str, tuple[Store, reverting.Plan]] = {}
            for name in self.components():
                store, _ = self._locked(stack, name, "revert together")
                if records.live_number(store.fd, store.file) != records.BASELINE:
                    made = reverting.plan(
                        store.fd,
                        store.file,
                        self.limits,
                        baseline=baseline,
                        remove=remove,
                        reason=reason,
                    )
                    plans[name] = (store, made)
            if not plans:
                raise StoreStateError(
                    "every baseline is live: there is nothing to revert", file=self.root, hint=""
                )
            group = tuple(
                Member(name=name, old=plan.left.number, new=plan.target.number)
                for name, (_, plan) in plans.items()
            )
            moves = [
                Move(
                    store.fd,
                    store.file,
                    self.limits,
                    msgspec.structs.replace(plan.pending, group=group),
                )
                for store, plan in plans.values()
            ]
            with durable.system_calls("reverting", self.root):
                notes = tuple(moving.move_together(moves))
            taken = time.perf_counter() - began
            return {
                name: reverting.Reverted(plan.left, plan.target, notes, taken)
                for name, (_, plan) in plans.items()
            }

    @contextlib.contextmanager
    def stores(self) -> Iterator[dict[str, Store]]:
        """Every component's store, opened for reading."""
        with contextlib.ExitStack() as stack:
            yield {
                name: stack.enter_context(Store(self.path(name), limits=self.limits))
                for name in self.components()
            }


def _linked(parts: Sequence[_One]) -> list[tuple[_One, Pending]]:
    """Each part with its record, whose trial knows all that goes back together."""
    known = [(part, part.planned.pending) for part in parts if part.planned.pending is not None]
    group = tuple(
        Member(name=part.name, old=_good(pending, part.planned.settled), new=pending.new)
        for part, pending in known
    )
    return [
        (
            part,
            msgspec.structs.replace(
                pending,
                trial=None
                if pending.trial is None
                else msgspec.structs.replace(pending.trial, group=group),
            ),
        )
        for part, pending in known
    ]


def _good(pending: Pending, settled: Trial | None) -> int:
    """The generation to go back to: the one before, or what that would itself go back to."""
    return pending.old if settled is None else settled.old
