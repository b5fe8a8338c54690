"""A feed as its publisher handles it: opened, looked at, changed by whole publications."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root

from bsipatch.errors import ExistsError, UsageError
from bsipatch.feed.names import CHANNELS, check_channel, check_role
from bsipatch.limits import DEFAULT, Limits
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed import roots
from bsipatch.publish.feed.edits import Change, Draft, diff
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.planning import Intent, draft_of, plan_publication, versions_after
from bsipatch.publish.feed.state import METADATA, TIMESTAMP, State, load_state, remember
from bsipatch.publish.feed.storage import Storage, open_storage
from bsipatch.publish.feed.transaction import File, Hook, Publication, publish, recover
from bsipatch.trust import PublicKey

__all__ = ["Feed", "Report", "check_vacant", "create"]

Edit = Callable[[Draft, int], Draft]


@dataclass(frozen=True, slots=True)
class Report:
    """What a command did, or (dry run, unsigned root) would do.

    changes    line by line                    versions   role -> (version before, version after)
    published  whether devices see it now      pending    a root to be signed or published elsewhere
    missing    signatures that the pending root lacks
    recovered  "finished" or "discarded": what became of an earlier publication that had died
    """

    changes: tuple[Change, ...]
    versions: dict[str, tuple[int, int]]
    published: bool
    recovered: str = ""
    pending: bytes | None = None
    missing: int = 0


def _no_hook(step: str) -> None:
    """Nobody follows the steps."""


def _clock() -> int:
    return int(time.time())


class Feed:
    """A feed that is there, verified. Not for several threads at once.

    state      what is published now
    recovered  "", or what became of a publication that had died
    """

    def __init__(
        self,
        storage: Storage,
        keys: KeyRing,
        *,
        clock: Callable[[], int] = _clock,
        hook: Hook = _no_hook,
        take_over: bool = False,
        ignore: str | None = None,
        look: bool = False,
        limits: Limits = DEFAULT,
    ) -> None:
        """Finishes or discards what a dead publisher left, then reads and verifies everything.

        look: only reads, and leaves what a publisher left; changes are refused.

        ignore: a channel to be begun anew, whose contents are taken for nothing.
        clock gives seconds since 1970.  Raises NotFoundError, PublishError (somebody is at it),
        RollbackError, TrustError, CorruptError, FeedError, TransferError.
        """
        self.storage, self.keys = storage, keys
        self._clock, self._hook, self._limits = clock, hook, limits
        self.look = look
        self.recovered = (
            "" if look else recover(storage, clock(), limits=limits, hook=hook, take_over=take_over)
        )
        self.ignored = None if ignore is None else check_channel(ignore)
        self.state: State = load_state(storage, keys, limits=limits, ignore=self.ignored)
        if self.recovered:
            self._remember()

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str],
        keys: KeyRing,
        *,
        take_over: bool = False,
        limits: Limits = DEFAULT,
    ) -> Feed:
        """The feed in a directory or at an address; see open_storage() and Feed()."""
        return cls(open_storage(os.fspath(place)), keys, take_over=take_over, limits=limits)

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return self._clock()

    def key_ids(self, role: str) -> list[str]:
        """The ids of a role's keys. Raises UnsafePathError for a role that there is not."""
        delegator = self.state.targets if check_role(role) in CHANNELS else self.state.root
        return [key.keyid for key in md.role_keys(delegator.signed, role)]

    # --- changes ---

    def edit(
        self, change: Edit, *, sources: Mapping[str, Path] | None = None, dry_run: bool = False
    ) -> Report:
        """Publishes what `change` makes of the listings; nothing when that is nothing.

        sources: new update files by SHA-256.  Raises what the edit raises, ConflictError,
        ThresholdError, PassphraseError, TransferError.
        """
        if self.ignored is not None:
            raise UsageError(f"{self.ignored} is to get other keys first")
        draft = change(draft_of(self.state), self.now)
        if not diff(draft_of(self.state), draft):
            return Report((), {}, False, self.recovered)
        return self._publish(Intent(draft, dict(sources or {})), dry_run)

    def refresh(self, *, dry_run: bool = False) -> Report:
        """Renews what will expire: timestamp and snapshot, and roles past two thirds of their time.

        Roles whose keys are not here are left; `feed status` warns of them.
        """
        renew = set()
        for role in ("targets", *self.state.channels):
            metadata = self.state.metadata_of(role)
            left = metadata.signed.expires.timestamp() - self.now
            if left < md.periods_of(self.state.root.signed)[role] / 3 and self._can_sign(role):
                renew.add(role)
        intent = Intent(draft_of(self.state), renew=frozenset(renew))
        return self._publish(intent, dry_run)

    def rotate(
        self,
        role: str,
        *,
        add: Sequence[PublicKey] = (),
        drop: Sequence[str] = (),
        threshold: int | None = None,
        hold: bool = False,
        dry_run: bool = False,
    ) -> Report:
        """Gives a role other keys. `drop` names keys by id or the beginning of one.

        A channel's keys stand in the targets role, everybody else's in the root: when root keys are
        missing here, and with `hold` in any case, the report's `pending` is the next root, to be
        handed to publish_root() once it is signed.  Raises UsageError, ThresholdError, and what
        edit() raises.
        """
        if self.ignored not in (None, role):
            raise UsageError(f"only {self.ignored} can be begun anew here", found=role)
        if check_role(role) in CHANNELS:
            if hold:
                raise UsageError("a channel's keys do not stand in the root", found=role)
            targets = roots.with_channel_keys(self.state, role, add, drop, threshold)
            renew = frozenset() if self.ignored is None else frozenset({role})
            return self._publish(
                Intent(draft_of(self.state), targets=targets, renew=renew), dry_run
            )
        root = roots.propose(self.state.root, role, add, drop, threshold, self.now)
        ids = {k.keyid for r in (self.state.root, root) for k in md.role_keys(r.signed, "root")}
        if not dry_run:
            md.sign(root, self.keys.available(ids))
        return self._with_root(root, dry_run, hold)

    def publish_root(self, data: bytes, *, file: str, dry_run: bool = False) -> Report:
        """Publishes a root that was signed elsewhere.

        Raises ThresholdError while signatures by either root's keys are missing, CorruptError.
        """
        root = roots.read(data, file)
        roots.check_next(self.state.root, root, file)
        roots.check_complete(self.state.root, root, file)
        return self._with_root(root, dry_run, hold=False)

    def _with_root(self, root: Metadata[Root], dry_run: bool, hold: bool) -> Report:
        changes = tuple(roots.describe(self.state.root, root))
        missing = roots.missing(self.state.root, root)
        if hold or (missing and not dry_run):
            versions = {"root": (self.state.root.signed.version, root.signed.version)}
            pending = None if dry_run else md.to_bytes(root)
            return Report(changes, versions, False, self.recovered, pending, missing)
        return self._publish(Intent(draft_of(self.state), root=root), dry_run, changes)

    def _publish(self, intent: Intent, dry_run: bool, more: tuple[Change, ...] = ()) -> Report:
        if self.look and not dry_run:
            raise UsageError("this feed was opened to be looked at")
        changes = more + tuple(diff(draft_of(self.state), intent.draft))
        if intent.targets is not None:
            changes += tuple(roots.describe_channels(self.state, intent.targets))
        before = self.state
        if not dry_run:
            planned = plan_publication(
                self.storage, before, intent, self.keys, self.now, limits=self._limits
            )
            publish(self.storage, planned, self.now, limits=self._limits, hook=self._hook)
            self.ignored = None
            self.state = load_state(self.storage, self.keys, limits=self._limits)
            self._remember()
        versions = {
            role: (before.metadata_of(role).signed.version, version)
            for role, version in (
                versions_after(before, intent)
                if dry_run
                else {r: self.state.metadata_of(r).signed.version for r in _roles(before)}
            ).items()
        }
        moved = {role: pair for role, pair in versions.items() if pair[0] != pair[1]}
        return Report(changes, moved, not dry_run, self.recovered)

    def _remember(self) -> None:
        remember(self.keys, self.state.root_bytes, self.state.timestamp.signed.version)

    def _can_sign(self, role: str) -> bool:
        root, targets = self.state.root.signed, self.state.targets.signed
        delegator = targets if role in CHANNELS else root
        ids = [key.keyid for key in md.role_keys(delegator, role)]
        needed: int = delegator.get_delegated_role(role).threshold
        return sum(self.keys.has(key_id) for key_id in ids) >= needed


def _roles(state: State) -> list[str]:
    return ["root", "targets", *state.channels, "snapshot", "timestamp"]


# --- making one ---


def check_vacant(storage: Storage, *, limits: Limits = DEFAULT) -> None:
    """Raises ExistsError when a feed is there already, and what reading the storage raises."""
    if storage.read(TIMESTAMP, limits.max_timestamp) is not None:
        raise ExistsError("a feed is there already", file=storage.name)


def create(
    storage: Storage,
    keys: KeyRing,
    root: Metadata[Root],
    channel_keys: Mapping[str, Sequence[PublicKey]],
    *,
    clock: Callable[[], int] = _clock,
    hook: Hook = _no_hook,
    limits: Limits = DEFAULT,
) -> Feed:
    """Publishes the first state of a feed: a complete root (see metadata.new_root), empty channels.

    Raises ExistsError when a feed is there, ThresholdError when the root is not signed by enough of
    its keys or another role's key is missing, and what publishing raises.
    """
    check_vacant(storage, limits=limits)
    if root.signed.version != 1:
        raise UsageError("a feed begins with version 1 of its root", found=root.signed.version)
    roots.check_complete(None, root, "the root")
    now = clock()
    periods = md.periods_of(root.signed)
    targets = md.new_targets(now + periods["targets"], delegations=True)
    files: list[File] = []
    meta: dict[str, md.MetaFile] = {}

    def finish(role: str, made: Metadata[Any], delegator: Any) -> bytes:
        wanted = [key.keyid for key in md.role_keys(delegator, role)]
        md.sign(made, keys.available(wanted))
        md.check_signed(delegator, role, made, role)
        data = md.to_bytes(made)
        if role != "timestamp":
            files.append(File(path=f"{METADATA}1.{role}.json", text=data.decode()))
            meta[f"{role}.json"] = md.metafile(1, data)
        return data

    for channel in CHANNELS:
        given = list(channel_keys[channel])
        md.set_delegation(targets.signed, channel, given, 1)
    for channel in CHANNELS:
        finish(channel, md.new_targets(now + periods[channel]), targets.signed)
    finish("targets", targets, root.signed)
    snapshot = md.new_snapshot(now + periods["snapshot"], meta)
    data = finish("snapshot", snapshot, root.signed)
    timestamp = md.new_timestamp(now + periods["timestamp"], md.metafile(1, data))
    root_bytes = md.to_bytes(root)
    publication = Publication(
        base="",
        payloads=(),
        sources={},
        files=tuple(files),
        timestamp=finish("timestamp", timestamp, root.signed).decode(),
        root=File(path=f"{METADATA}1.root.json", text=root_bytes.decode()),
    )
    # First, so that a publisher who dies on the way still knows which root is its own.
    remember(keys, root_bytes, 1)
    publish(storage, publication, now, limits=limits, hook=hook)
    return Feed(storage, keys, clock=clock, hook=hook, limits=limits)
