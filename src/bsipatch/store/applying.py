"""Applies an update file to a store: old or new, never a mix."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import (
    BsipatchError,
    CancelledError,
    HealthError,
    MagicError,
    NotFoundError,
)
from ..package import Package
from . import (
    bars,
    boot,
    collecting,
    durable,
    eligibility,
    history,
    live,
    localhealth,
    moving,
    records,
    snapshot,
    trial,
    trials,
)
from .beneath import open_folder
from .filling import fill, tree_of
from .generations import discard
from .health import Result
from .records import Generation, Pending, Trial
from .store import Store
from .work import Work


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did.

    already   the update was live before; nothing was built
    was       the generation that was live before, still there to revert to
    trial     it waits for a restart to prove itself; None when it is good
    health    what each check said, those that ran
    seconds   the whole of it
    flip      the part in which the pointer moved, in seconds
    """

    generation: Generation
    was: Generation
    already: bool
    counts: dict[str, int]
    size: int
    update_size: int
    recovered: tuple[str, ...]
    trial: Trial | None
    health: tuple[Result, ...]
    seconds: float
    flip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an update may be applied, beyond what it says itself.

    health          False: it is good as soon as it is live, without a trial
    automatic       nobody asked for this very update: what the owner took off stays off
    even_if_barred  apply it although it failed here before
    """

    health: bool = True
    automatic: bool = False
    even_if_barred: bool = False


def apply(
    store: Store,
    update: str | os.PathLike[str] | int,
    *,
    source: str | None = None,
    work: Work | None = None,
    strategy: str | None = None,
    per_file_sync: bool = False,
    terms: Terms | None = None,
    now: float | None = None,
) -> Applied:
    """Verifies, builds beside the live tree, reads back, and moves the pointer.

    The update is opened once and used through that descriptor.  An update that
    is not signed by the store's keys changes nothing at all, not even the
    history; any later refusal or failure is written there with its reason, and
    leaves the old generation live and no debris.

    An update that takes effect when programs are relaunched goes through its
    health checks at once; when one fails the generation before is live again.
    One that waits for a restart is left on trial (see boot.py).

    update: a path, or an open descriptor, which stays the caller's: whoever has verified
    a download by its descriptor applies exactly that file, whatever the name leads to by now.
    source: what the history calls it instead of the path.
    strategy: "snapshot", "reflink", "hardlink" or "copy" instead of the store's own.
    now: seconds since 1970 instead of the clock.

    Raises TrustError, FormatError, EligibilityError (PolicyError when it is
    barred), MismatchError, StoreError, NoSpaceError, SystemCallError, LimitError,
    ConfigError (the owner's health checks), HealthError, CancelledError.
    """
    began = time.perf_counter()
    work = work or Work()
    if source is None:
        source = f"descriptor {update}" if isinstance(update, int) else os.path.abspath(update)
    fd = os.dup(update) if isinstance(update, int) else open_update(update)
    try:
        with (
            Package.open(fd, store.verify, limits=store.limits) as package,
            store.writing("apply") as recovered,
        ):
            try:
                return Applying(store, package, work, source, terms or Terms()).run(
                    strategy=strategy or store.identity.strategy,
                    per_file_sync=per_file_sync,
                    now=time.time() if now is None else now,
                    recovered=tuple(recovered),
                    began=began,
                )
            except (CancelledError, HealthError):  # the latter stands in the history by now
                raise
            except BsipatchError as error:
                store.note("refused" if is_refusal(error) else "failed", error, source)
                raise
    except BsipatchError as error:
        if error.file is None:
            error.file = source if isinstance(update, int) else os.fspath(update)
        raise
    finally:
        os.close(fd)


def is_refusal(error: BsipatchError) -> bool:
    """Whether the update was turned away before anything was built."""
    from ..errors import EligibilityError, TrustError

    return isinstance(error, EligibilityError | TrustError)


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be built from `base`; pending None when it is live already."""

    generation: Generation
    was: Generation
    base: int
    settled: Trial | None
    pending: Pending | None


class Applying:
    """One update on one store, step by step: plan, stage, (the flip), settle, prove.

    The store must be locked and recovered all the time.
    """

    def __init__(
        self, store: Store, package: Package, work: Work, source: str, terms: Terms
    ) -> None:
        self._store, self._package, self._work, self._source = store, package, work, source
        self._manifest, self._terms = package.manifest, terms
        self._digest = hashlib.sha256(package.manifest_bytes).hexdigest()

    def run(
        self,
        *,
        strategy: str,
        per_file_sync: bool,
        now: float,
        recovered: tuple[str, ...],
        began: float,
    ) -> Applied:
        """All of it, for a store of its own."""
        planned = self.plan(strategy=strategy, now=now)
        if planned.pending is None:
            return self.done(planned, recovered, began, trial=planned.settled)
        ready = self.stage(planned, per_file_sync)
        flipping = time.perf_counter()
        try:
            with durable.system_calls("making it live", self._store.file):
                live.flip(self._store.fd, ready.new)
        except BaseException:
            self.undo(ready)
            raise
        flip = time.perf_counter() - flipping
        self.settle(ready)
        results = self.prove(ready.trial)
        return self.done(
            planned, recovered, began, trial=self._store.trial(), health=results, flip=flip
        )

    def plan(self, *, strategy: str, now: float) -> Planned:
        """Whether it may be applied, and what will be built. Raises EligibilityError and so on."""
        store, manifest = self._store, self._manifest
        eligibility.check_device(manifest, store.identity, now=now)
        settled = self._settle_before()
        bars.check(
            store.bars(),
            manifest,
            self._digest,
            automatic=self._terms.automatic,
            even_if_barred=self._terms.even_if_barred,
        )
        was = store.live()
        if was.manifest == self._digest:
            return Planned(was, was, was.number, settled, None)
        baseline = self._digest_of(records.BASELINE)
        # only what stacks asks for the live tree, and reading one of many files takes its time
        live_digest = baseline if manifest.stacks_on is None else self._digest_of(was.number)
        base = eligibility.check_baseline(manifest, store.identity, baseline, was, live_digest)
        ours = localhealth.read(store.fd, store.file, store.limits)
        chosen = self._prepare(base, strategy)
        generation = Generation(
            number=self._next_number(),
            product=manifest.product,
            version=manifest.version,
            letter=manifest.letter,
            build=manifest.build,
            tree=manifest.result_digest,
            strategy=chosen,
            base=base,
            previous=was.number,
            manifest=self._digest,
            source=self._source,
            created=records.now(),
        )
        pending = Pending(
            new=generation.number,
            old=was.number,
            source=self._source,
            started=records.now(),
            state="intent",
            # What has yet to prove itself is nothing to fall back to.
            trial=self._trial(generation, was.number if settled is None else settled.old, ours),
        )
        return Planned(generation, was, base, settled, pending)

    def _digest_of(self, number: int) -> str:
        """A generation's tree digest, with extended attributes where the manifest has them."""
        xattrs = self._manifest.xattrs
        if number == records.BASELINE and not xattrs:
            return self._store.identity.baseline
        return eligibility.digest_of(self._store.expected_tree(number)[0], xattrs=xattrs)

    def _settle_before(self) -> Trial | None:
        """Ends a trial that an interrupted run left, if it can be; the one that goes on."""
        found = self._store.trial()
        if found is None:
            return None
        boot_id = trials.boot_id()
        if found.scope == "relaunch":
            with contextlib.suppress(HealthError):  # then what was good is live again
                boot.settle(self._store, boot=boot_id, checks=True, work=self._work)
        return self._store.trial()

    def _trial(
        self, generation: Generation, old: int, ours: localhealth.LocalHealth
    ) -> Trial | None:
        """The trial that the new generation has to pass, None when it is good as it is."""
        scope = self._manifest.activation.scope
        checks = self._manifest.health or ours.checks
        if not self._terms.health or (scope == "relaunch" and not checks):
            return None
        return trials.new(
            generation.number,
            old,
            scope,
            tries=ours.starts,
            blips=ours.blips,
            boot=trials.boot_id(),
        )

    def prove(
        self, begun: Trial | None, peers: Mapping[str, Store] | None = None
    ) -> tuple[Result, ...]:
        """The checks of an update that needs no restart; good ones make room."""
        store = self._store
        results: tuple[Result, ...] = ()
        if begun is not None and begun.scope == "restart":
            return results
        if begun is not None:
            results = trial.judge(store, begun, self._work, undoing=True, peers=peers).results
        else:
            with durable.system_calls("lifting a bar", store.file):
                trial.forget(store, records.live_number(store.fd, store.file))
        collecting.make_room(store.fd, store.file, store.limits)
        return results

    def done(
        self,
        planned: Planned,
        recovered: tuple[str, ...],
        began: float,
        *,
        trial: Trial | None,
        health: tuple[Result, ...] = (),
        flip: float = 0.0,
    ) -> Applied:
        """What is told of it."""
        return Applied(
            generation=planned.generation,
            was=planned.was,
            already=planned.pending is None,
            counts=self._manifest.count(),
            size=sum(a.result.size for a in self._manifest.actions if a.result is not None),
            update_size=self._package.size,
            recovered=recovered,
            trial=trial,
            health=health,
            seconds=time.perf_counter() - began,
            flip=flip,
        )

    def _next_number(self) -> int:
        """A number that neither a generation nor the history has used."""
        store = self._store
        with durable.system_calls("choosing a number for the generation", store.file):
            used = {records.BASELINE, *records.generation_numbers(store.fd)}
            events = history.read(store.fd)
        for event in events:
            used.add(event.live)
            used.add(event.was or 0)
        return max(used) + 1

    def _prepare(self, base: int, strategy: str) -> str:
        """Drift and space; returns the strategy that will be used."""
        store, manifest = self._store, self._manifest
        shown = str(store.tree_path(base))
        with durable.system_calls("looking at the base", shown):
            with tree_of(store, records.generation_name(base)) as tree:
                chosen = snapshot.choose(strategy, store.fd, base=tree.fd)
                # What stays as it is is looked at once, in the new tree.
                read = eligibility.entries_read(manifest, untouched=False)
                eligibility.check_drift(tree, read, shown)
            needed, inodes = eligibility.room(manifest, chosen)
            eligibility.check_space(store.fd, needed, inodes, store.limits, store.file)
        return chosen

    def stage(self, planned: Planned, per_file_sync: bool) -> Pending:
        """Builds and checks the new generation, whole and durable; the pointer may move then.

        Whatever goes wrong leaves nothing behind.
        """
        store, pending = self._store, planned.pending
        assert pending is not None
        name = str(pending.new)
        with durable.system_calls("staging", store.file):
            generations = open_folder(store.fd, records.GENERATIONS)
        try:
            with durable.system_calls("staging", store.file):
                # A stage is cleared away by its name: the record has to last from the rename on.
                moving.write(store.fd, pending, sync=False)
                os.mkdir(name + records.STAGE_SUFFIX, 0o700, dir_fd=generations)
                everything = fill(
                    store,
                    self._package,
                    planned.generation,
                    self._work,
                    on_trial=pending.trial is not None,
                    per_file_sync=per_file_sync,
                )
                self._work.check()
                if not everything:
                    durable.sync_fd(store.fd)
                durable.rename_new(name + records.STAGE_SUFFIX, name, dir_fd=generations)
                durable.sync_fd(generations)
                return pending
        except BaseException:
            self.undo(pending)
            raise
        finally:
            os.close(generations)

    def settle(self, ready: Pending) -> None:
        """Writes down what the flip means. Raises SystemCallError."""
        store = self._store
        with durable.system_calls("writing the history", store.file):
            # The record has lasted since the flip.  A trial must not be lost where a record
            # that names it is gone: there each name waits for the one before it.
            on_trial = ready.trial is not None
            moving.settle(store.fd, store.file, store.limits, ready, sync=on_trial)

    def undo(self, pending: Pending) -> None:
        """Best effort: what cannot be removed now is removed by the next writer's recovery."""
        store = self._store
        with contextlib.suppress(OSError, BsipatchError):
            if records.live_number(store.fd, store.file) == pending.new:
                return  # the flip took place and only its sync failed: recovery decides
            generations = open_folder(store.fd, records.GENERATIONS)
            try:
                durable.remove_tree(f"{pending.new}{records.STAGE_SUFFIX}", dir_fd=generations)
            finally:
                os.close(generations)
            discard(store.fd, pending.new)
            moving.abandon(store.fd, pending)


def open_update(update: str | os.PathLike[str]) -> int:
    """Opens an update file, following no link; the caller closes it.

    Raises NotFoundError, MagicError, SystemCallError.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(update, flags)
    except FileNotFoundError:
        raise NotFoundError("no such update file", file=update) from None
    except OSError as error:
        with durable.system_calls("opening the update", update):
            raise error
    try:
        with durable.system_calls("opening the update", update):
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
        if not regular:
            raise MagicError("not a regular file", file=update)
    except BaseException:
        os.close(fd)
        raise
    return fd
