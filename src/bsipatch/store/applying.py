"""Applies an update file to a store: old or new, never a mix."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from dataclasses import dataclass

from ..errors import (
    BsipatchError,
    CancelledError,
    MagicError,
    NotFoundError,
    StoreDamagedError,
)
from ..package import Package
from . import collecting, durable, eligibility, history, live, records, snapshot
from .beneath import DIRECTORY, Beneath
from .readback import explain, make_durable, read_back
from .records import Generation, Pending
from .recovery import discard
from .stage import Stage
from .store import Store
from .work import Work


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did.

    already   the update was live before; nothing was done
    was       the generation that was live before, still there to revert to
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
    seconds: float
    flip: float


def apply(
    store: Store,
    update: str | os.PathLike[str],
    *,
    work: Work | None = None,
    strategy: str | None = None,
    per_file_sync: bool = False,
    now: float | None = None,
) -> Applied:
    """Verifies, builds beside the live tree, reads back, and moves the pointer.

    The update is opened once and used through that descriptor.  An update that
    is not signed by the store's keys changes nothing at all, not even the
    history; any later refusal or failure is written there with its reason, and
    leaves the old generation live and no debris.

    strategy: "reflink", "hardlink" or "copy" instead of the store's own.
    now: seconds since 1970 instead of the clock.

    Raises TrustError, FormatError, EligibilityError, MismatchError,
    StoreError, NoSpaceError, SystemCallError, LimitError, CancelledError.
    """
    began = time.perf_counter()
    work = work or Work()
    source = os.path.abspath(update)
    fd = _open_update(update)
    try:
        with (
            Package.open(fd, store.verify, limits=store.limits) as package,
            store.writing("apply") as recovered,
        ):
            try:
                return _Applying(store, package, work, source).run(
                    strategy=strategy or store.identity.strategy,
                    per_file_sync=per_file_sync,
                    now=time.time() if now is None else now,
                    recovered=tuple(recovered),
                    began=began,
                )
            except CancelledError:
                raise
            except BsipatchError as error:
                store.note("refused" if _is_refusal(error) else "failed", error, source)
                raise
    except BsipatchError as error:
        if error.file is None:
            error.file = os.fspath(update)
        raise
    finally:
        os.close(fd)


def _is_refusal(error: BsipatchError) -> bool:
    """Whether the update was turned away before anything was built."""
    from ..errors import EligibilityError, TrustError

    return isinstance(error, EligibilityError | TrustError)


class _Applying:
    def __init__(self, store: Store, package: Package, work: Work, source: str) -> None:
        self._store, self._package, self._work, self._source = store, package, work, source
        self._manifest = package.manifest

    def run(
        self,
        *,
        strategy: str,
        per_file_sync: bool,
        now: float,
        recovered: tuple[str, ...],
        began: float,
    ) -> Applied:
        store, manifest = self._store, self._manifest
        eligibility.check_device(manifest, store.identity, now=now)
        was = store.live()
        digest = hashlib.sha256(self._package.manifest_bytes).hexdigest()
        if was.manifest == digest:
            return self._done(was, was, recovered, began, 0.0, already=True)
        base = eligibility.check_baseline(
            manifest,
            store.identity,
            store.expected_tree(records.BASELINE)[0],
            was,
            store.expected_tree(was.number)[0],
        )
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
            manifest=digest,
            source=self._source,
            created=records.now(),
        )
        flip = self._build(generation, base, per_file_sync)
        return self._done(generation, was, recovered, began, flip, already=False)

    def _done(
        self,
        generation: Generation,
        was: Generation,
        recovered: tuple[str, ...],
        began: float,
        flip: float,
        *,
        already: bool,
    ) -> Applied:
        return Applied(
            generation=generation,
            was=was,
            already=already,
            counts=self._manifest.count(),
            size=sum(entry.size for entry in self._manifest.new_entries()),
            update_size=self._package.size,
            recovered=recovered,
            seconds=time.perf_counter() - began,
            flip=flip,
        )

    def _next_number(self) -> int:
        """A number that neither a generation nor the history has used."""
        used = {records.BASELINE, *records.generation_numbers(self._store.fd)}
        for event in history.read(self._store.fd):
            used.add(event.live)
            used.add(event.was or 0)
        return max(used) + 1

    def _prepare(self, base: int, strategy: str) -> str:
        """Drift and space; returns the strategy that will be used."""
        store, manifest = self._store, self._manifest
        shown = str(store.tree_path(base))
        with durable.system_calls("looking at the base", shown):
            with _tree_of(store, records.generation_name(base)) as tree:
                eligibility.check_drift(tree, manifest.old_entries(), shown)
            chosen = snapshot.choose(strategy, store.fd)
            eligibility.check_space(
                store.fd,
                manifest.required_space + _copied_bytes(self._package, chosen),
                len(manifest.actions),
                store.limits,
                store.file,
            )
        return chosen

    def _build(self, generation: Generation, base: int, per_file_sync: bool) -> float:
        """Stage, check and flip; whatever goes wrong before the flip leaves nothing behind."""
        store = self._store
        name = str(generation.number)
        stage = name + records.STAGE_SUFFIX
        flipped = False
        generations = os.open(records.GENERATIONS, DIRECTORY, dir_fd=store.fd)
        try:
            try:
                with durable.system_calls("staging", store.file):
                    os.mkdir(stage, 0o700, dir_fd=generations)
                    self._fill(stage, generation, base, per_file_sync)
                    self._work.check()
                    began = time.perf_counter()
                    self._intend(generation)
                    durable.rename_new(stage, name, dir_fd=generations)
                    durable.sync_fd(generations)
                    live.flip(store.fd, generation.number)
                    flipped = True
                    taken = time.perf_counter() - began
            except BaseException:
                if not flipped:
                    self._undo(stage, generation, generations)
                raise
            with durable.system_calls("writing the history", store.file):
                self._record(generation)
            return taken
        finally:
            os.close(generations)

    def _fill(self, stage: str, generation: Generation, base: int, per_file_sync: bool) -> None:
        """Everything of the new generation, durable and verified, in its stage."""
        store, manifest = self._store, self._manifest
        place = f"{records.GENERATIONS}/{stage}"
        folder = os.open(place, DIRECTORY, dir_fd=store.fd)
        try:
            os.mkdir(records.TREE, 0o700, dir_fd=folder)
            durable.replace_file(records.ENVELOPE, self._package.envelope, dir_fd=folder)
            durable.replace_file(records.GENERATION, records.encode(generation), dir_fd=folder)
            with (
                _tree_of(store, records.generation_name(base)) as old,
                _tree_of(store, place) as new,
            ):
                Stage(
                    self._package,
                    old,
                    new,
                    folder,
                    strategy=generation.strategy,
                    work=self._work,
                    limits=store.limits,
                ).build()
                make_durable(new, per_file=per_file_sync)
                expected = manifest.new_tree()
                found = read_back(
                    new,
                    expected.size,
                    xattrs=manifest.xattrs,
                    work=self._work,
                    limits=store.limits,
                )
                if found.digest != manifest.result_digest:
                    raise explain(manifest, found, str(store.tree_path(base)))
            os.fchmod(folder, 0o755)
            durable.sync_fd(folder)
        finally:
            os.close(folder)

    def _intend(self, generation: Generation) -> None:
        assert generation.previous is not None
        pending = Pending(
            new=generation.number,
            old=generation.previous,
            source=self._source,
            started=records.now(),
        )
        durable.replace_file(records.PENDING, records.encode(pending), dir_fd=self._store.fd)

    def _undo(self, stage: str, generation: Generation, generations: int) -> None:
        """Best effort: what cannot be removed now is removed by the next writer's recovery."""
        with contextlib.suppress(OSError, BsipatchError):
            if records.live_number(self._store.fd, self._store.file) == generation.number:
                return  # the flip took place and only its sync failed: recovery decides
            durable.remove_tree(stage, dir_fd=generations)
            discard(self._store.fd, generation.number)
            os.unlink(records.PENDING, dir_fd=self._store.fd)

    def _record(self, generation: Generation) -> None:
        store = self._store
        history.append(
            store.fd,
            history.event(
                "apply",
                generation.number,
                was=generation.previous,
                display=generation.display,
                build=generation.build,
                source=self._source,
            ),
        )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(records.PENDING, dir_fd=store.fd)
            durable.sync_fd(store.fd)
        if len(records.generation_numbers(store.fd)) > store.limits.max_generations:
            collecting.collect(store.fd, store.file, store.limits)


def _tree_of(store: Store, place: str) -> Beneath:
    """The tree in a generation or stage, reached from the store's own descriptor."""
    try:
        return Beneath(f"{place}/{records.TREE}", dir_fd=store.fd)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamagedError("a generation has no tree", file=str(store.root / place)) from error


def _open_update(update: str | os.PathLike[str]) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(update, flags)
    except FileNotFoundError:
        raise NotFoundError("no such update file", file=update) from None
    except OSError as error:
        with durable.system_calls("opening the update", update):
            raise error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MagicError("not a regular file", file=update)
    return fd


def _copied_bytes(package: Package, strategy: str) -> int:
    """Bytes that this strategy copies although the files do not change."""
    shared = ("keep", "clone", "chmod") if strategy == "copy" else ("chmod",)
    if strategy == "reflink":
        return 0
    return sum(
        action.result.size
        for action in package.manifest.actions
        if action.do in shared and action.result is not None
    )
