"""One store: the generations of one managed tree on one device.

Every method that changes something holds the store's lock and first brings the
store back to a whole state; reading methods take no lock.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .. import package, trust
from ..closing import Closing
from ..errors import BsipatchError, NotFoundError, StoreDamagedError, StoreStateError, VersionError
from ..limits import DEFAULT, Limits
from ..manifest import Manifest
from ..tree import Entry, Tree, check_tree
from . import bars, collecting, durable, exchange, history, live, records, trials
from .beneath import DIRECTORY
from .eligibility import without_xattrs
from .generations import read_generation
from .history import Event
from .lock import holder, locked
from .records import Bar, Generation, Identity, Trial
from .recovery import recover
from .reverting import Reverted, revert


@dataclass(frozen=True, slots=True)
class Status:
    """What is live, and what can be done about it.

    live        path of the live tree; the same before and after every flip
    reachable   what can be reverted to, nearest first, the baseline last
    generations every complete generation's number
    busy        who holds the store right now, None when nobody does
    unfinished  what an interrupted run left; the next writer clears it away
    trial       the live generation has yet to prove itself; None when it is good
    barred      the improvements that are not wanted again
    """

    live: Path
    identity: Identity
    generation: Generation
    baseline: Generation
    reachable: tuple[Generation, ...]
    generations: tuple[int, ...]
    manifest: Manifest | None
    busy: str | None
    unfinished: tuple[str, ...]
    trial: Trial | None
    barred: tuple[Bar, ...]


class Store(Closing):
    """An existing store. Use it as a context manager, or call close()."""

    def __init__(self, root: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
        """Opens the store at `root`.

        Raises NotFoundError when there is none, StoreDamagedError, VersionError.
        """
        self.root = Path(os.path.abspath(root))
        self.limits = limits
        try:
            self.fd = os.open(self.root, DIRECTORY & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                "no such store", file=root, hint="Make one with `bsipatch init`."
            ) from None
        except OSError as error:
            with durable.system_calls("opening the store", root):
                raise error
        try:
            self.identity = self._read_identity()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the store's folder. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # --- reading ---

    @property
    def file(self) -> str:
        """The store's path, for messages."""
        return str(self.root)

    @property
    def live_path(self) -> Path:
        """Path of the live tree; it stays the same, what it leads to changes."""
        with contextlib.suppress(OSError, BsipatchError):
            record = exchange.exchanged(self.fd)
            if record is not None:
                return Path(record.path)
        return self.root / records.CURRENT / records.TREE

    def tree_path(self, number: int) -> Path:
        """Path of one generation's tree."""
        return self.root / records.generation_name(number) / records.TREE

    def generation(self, number: int) -> Generation:
        """The record of one generation. Raises StoreDamagedError, SystemCallError."""
        return read_generation(self.fd, number, self.file, self.limits)

    def live(self) -> Generation:
        """The record of the live generation. Raises StoreDamagedError, SystemCallError."""
        return self.generation(records.live_number(self.fd, self.file))

    def policy(self) -> trust.Policy:
        """Whose signatures this store accepts."""
        keys = [
            trust.PublicKey.from_pem(pem.encode(), file=self.root / records.IDENTITY)
            for pem in self.identity.trust
        ]
        return trust.Policy(keys, self.identity.threshold, limits=self.limits)

    def verify(self, envelope: bytes) -> bytes:
        """The manifest's bytes inside an envelope that the store's keys have signed."""
        return trust.verify(envelope, self.policy(), limits=self.limits).payload

    def manifest(self, number: int) -> Manifest | None:
        """What the generation's update said; None for the baseline. Verified again each time."""
        if number == records.BASELINE:
            return None
        name = f"{records.generation_name(number)}/{records.ENVELOPE}"
        with durable.system_calls("reading a manifest", self.root / name):
            envelope = durable.read_file(
                name,
                dir_fd=self.fd,
                limit=(self.limits.max_manifest + 2) // 3 * 4 + self.limits.max_envelope,
            )
        head = io.BytesIO()
        package.write(head, envelope, ())
        head.seek(0)
        with package.Package.open(head, self.verify, limits=self.limits) as opened:
            return opened.manifest

    def expected_tree(self, number: int) -> tuple[Tree, bool]:
        """What a generation's tree must be, and whether that covers extended attributes.

        Raises StoreDamagedError when the record does not have the digest it must have.
        """
        manifest = self.manifest(number)
        if manifest is not None:
            return manifest.new_tree(), manifest.xattrs
        name = f"{records.generation_name(number)}/{records.BASELINE_ENTRIES}"
        shown = str(self.root / name)
        with durable.system_calls("reading the baseline's entries", shown):
            data = durable.read_file(name, dir_fd=self.fd, limit=self.limits.max_manifest)
        try:
            entries = msgspec.json.decode(data, type=list[Entry])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreDamagedError(f"unreadable record: {error}", file=shown) from error
        tree = Tree(entries)
        try:
            digest = without_xattrs(tree).digest
        except (ValueError, struct.error) as error:  # numbers and digests that cannot be
            raise StoreDamagedError(f"unreadable record: {error}", file=shown) from error
        if digest != self.identity.baseline:
            raise StoreDamagedError("the baseline's entries are not those of init", file=shown)
        check_tree(entries, limits=self.limits)
        return tree, any(entry.xattrs for entry in entries)

    def status(self) -> Status:
        """Everything `bsipatch status` shows. Raises StoreDamagedError, SystemCallError."""
        with durable.system_calls("reading the store", self.root):
            generation = self.live()
            busy = holder(self.fd)
            return Status(
                live=self.live_path,
                identity=self.identity,
                generation=generation,
                baseline=self.generation(records.BASELINE),
                reachable=(
                    tuple(live.reachable(self.fd, generation, self.file, self.limits))
                    if generation.number != records.BASELINE
                    else ()
                ),
                generations=tuple(records.generation_numbers(self.fd)),
                manifest=self.manifest(generation.number),
                busy=busy,
                unfinished=() if busy else self.unfinished(),
                trial=self._trial_of(generation.number),
                barred=self.bars(),
            )

    def unfinished(self) -> tuple[str, ...]:
        """What an interrupted run left, or one that is under way. Raises OSError."""
        found = records.leftovers(self.fd)
        for name in (records.PENDING, records.REPAIRING):
            with contextlib.suppress(FileNotFoundError):
                os.stat(name, dir_fd=self.fd, follow_symlinks=False)
                found.append(name)
        return tuple(sorted(found))

    def trial(self) -> Trial | None:
        """The trial of the live generation; None when that is good."""
        with durable.system_calls("reading the trial", self.root):
            return self._trial_of(records.live_number(self.fd, self.file))

    def _trial_of(self, number: int) -> Trial | None:
        """A trial of any other generation is void: recovery removes it."""
        trial = trials.read(self.fd, self.file, self.limits)
        return trial if trial is not None and trial.number == number else None

    def bars(self) -> tuple[Bar, ...]:
        """The improvements that are not wanted again, oldest first."""
        return bars.read(self.fd, self.file, self.limits)

    def history(self) -> list[Event]:
        """What happened, oldest first."""
        with durable.system_calls("reading the history", self.root):
            return history.read(self.fd)

    # --- changing ---

    @contextlib.contextmanager
    def writing(self, doing: str) -> Iterator[list[str]]:
        """Holds the lock over a recovered store; gives what recovery did, as sentences.

        Raises StoreBusyError, StoreDamagedError, SystemCallError.
        """
        with locked(self.fd, doing, timeout=self.limits.lock_timeout, file=self.file):
            yield recover(self.fd, self.file, self.limits)

    def revert(self, *, baseline: bool = False, remove: bool = False, reason: str = "") -> Reverted:
        """Back to the generation before the live one, or all the way to the baseline.

        Moves the pointer: no file is read or written.  What is left behind does
        not come back by itself (see bars.py); `reason` says why, for people.
        remove: to the baseline, and called so.  Raises StoreStateError when the
        baseline is live already, StoreBusyError.
        """
        with self.writing("remove" if remove else "revert"):
            return revert(
                self.fd, self.file, self.limits, baseline=baseline, remove=remove, reason=reason
            )

    def allow(self, wanted: str) -> tuple[Bar, ...]:
        """Lifts the bars that a person means: letter, build, digest or "all"; returns them.

        Raises NotFoundError that lists what is barred, StoreBusyError.
        """
        with self.writing("allow"), durable.system_calls("lifting a bar", self.root):
            chosen = bars.select(self.bars(), wanted)
            lifted = bars.lift(self.fd, {bar.manifest for bar in chosen}, self.file, self.limits)
            now = self.live()
            for bar in lifted:
                event = history.event(
                    "allowed",
                    now.number,
                    display=now.display,
                    build=now.build,
                    reason=f"{bar.display}, build {bar.build}, was barred: {bar.reason}",
                    by=bars.person(),
                )
                history.append(self.fd, event)
            return lifted

    def collect(self) -> collecting.Collected:
        """Removes every generation but the baseline, the live one and the one before it."""
        with self.writing("gc"):
            return collecting.collect(self.fd, self.file, self.limits)

    def note(self, kind: str, error: BsipatchError, source: str) -> None:
        """Writes a refusal or failure into the history, as far as that is possible."""
        with contextlib.suppress(BsipatchError, OSError):
            generation = self.live()
            event = history.event(
                kind,
                generation.number,
                display=generation.display,
                build=generation.build,
                source=source,
                error=error.code,
                reason=error.message,
            )
            history.append(self.fd, event)

    def _read_identity(self) -> Identity:
        name, shown = records.IDENTITY, str(self.root / records.IDENTITY)
        try:
            identity = records.read(Identity, name, dir_fd=self.fd, limits=self.limits, file=shown)
        except NotFoundError:
            raise NotFoundError(
                "not a store", file=self.root, hint="Make one with `bsipatch init`."
            ) from None
        if identity.format != records.FORMAT:
            raise VersionError("the store's", file=shown, expected=records.FORMAT)
        return identity


def refuse_state(detail: str, file: str) -> StoreStateError:
    """A StoreStateError without the usual advice."""
    return StoreStateError(detail, file=file, hint="")
