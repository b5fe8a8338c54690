"""From what is published and what shall be listed to one publication: the roles' next versions."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from bsipatch.errors import InternalError, ThresholdError
from bsipatch.feed.names import CHANNELS, parse_target
from bsipatch.limits import Limits
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.edits import Draft
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.state import METADATA, State
from bsipatch.publish.feed.storage import Storage
from bsipatch.publish.feed.transaction import File, Payload, Publication

__all__ = ["Intent", "draft_of", "payload_path", "plan_publication", "versions_after"]

_MOST_SKIPPED = 10_000


@dataclass(frozen=True, slots=True)
class Intent:
    """What shall be different.

    sources  new update files by SHA-256
    renew    roles that get a new version (and time of validity) although nothing in them changes
    targets  the top targets with other delegations
    root     the next root, signed by enough keys of both roots
    """

    draft: Draft
    sources: dict[str, Path] = field(default_factory=dict)
    renew: frozenset[str] = frozenset()
    targets: Metadata[Targets] | None = None
    root: Metadata[Root] | None = None


def draft_of(state: State) -> Draft:
    """What is listed now, to be edited."""
    return Draft(dict(state.listings), state.numbers())


def payload_path(path: str) -> str:
    """Where the file of a target lies: TUF puts its digest before its name."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{parse_target(path).sha256}.{name}"


def versions_after(state: State, intent: Intent) -> dict[str, int]:
    """The version that each role would have, for a dry run."""
    found = {role: state.metadata_of(role).signed.version + 1 for role in _changed(state, intent)}
    for role in ("snapshot", "timestamp"):
        found[role] = state.metadata_of(role).signed.version + 1
    if intent.root is not None:
        found["root"] = intent.root.signed.version
    return found


def plan_publication(
    storage: Storage, state: State, intent: Intent, keys: KeyRing, now: int, *, limits: Limits
) -> Publication:
    """Makes and signs the next version of every role that needs one.

    Raises ThresholdError that names the missing keys, PassphraseError, KeyFileError.
    """
    return _Planner(storage, state, intent, keys, now, limits).run()


def _changed(state: State, intent: Intent) -> list[str]:
    """The targets roles that get a new version."""
    changed = []
    if intent.targets is not None or "targets" in intent.renew or _keys_changed(state, intent):
        changed.append("targets")
    for channel in CHANNELS:
        if channel not in state.channels:
            continue
        listed = dict(intent.draft.listings.get(channel, {})) != state.listings[channel]
        if listed or channel in intent.renew or _delegation_changed(state, intent, channel):
            changed.append(channel)
    return changed


def _keys_changed(state: State, intent: Intent) -> bool:
    if intent.root is None:
        return False
    old, new = state.root.signed.roles["targets"], intent.root.signed.roles["targets"]
    return set(old.keyids) != set(new.keyids) or old.threshold != new.threshold


def _delegation_changed(state: State, intent: Intent, channel: str) -> bool:
    if intent.targets is None:
        return False
    old = state.targets.signed.get_delegated_role(channel)
    new = intent.targets.signed.get_delegated_role(channel)
    return set(old.keyids) != set(new.keyids) or old.threshold != new.threshold


class _Planner:
    def __init__(
        self,
        storage: Storage,
        state: State,
        intent: Intent,
        keys: KeyRing,
        now: int,
        limits: Limits,
    ) -> None:
        self._storage, self._state, self._intent = storage, state, intent
        self._keys, self._now, self._limits = keys, now, limits
        self._root = intent.root if intent.root is not None else state.root
        self._periods = md.periods_of(self._root.signed)
        self._files: list[File] = []

    def run(self) -> Publication:
        state, intent = self._state, self._intent
        changed = _changed(state, intent)
        meta = dict(state.snapshot.signed.meta)
        top = intent.targets if intent.targets is not None else state.targets
        # Channels first: a device that follows the snapshot finds each role before its delegator.
        for channel in [name for name in changed if name != "targets"]:
            made = copy.deepcopy(state.channels[channel])
            listing = dict(intent.draft.listings.get(channel, {}))
            md.set_offers(made.signed, channel, listing, self._numbers(channel, listing))
            meta[f"{channel}.json"] = self._finish(made, channel, [top.signed])
        if "targets" in changed:
            made = copy.deepcopy(top)
            made.signed.version = state.targets.signed.version
            meta["targets.json"] = self._finish(made, "targets", self._roots())
        snapshot = copy.deepcopy(state.snapshot)
        snapshot.signed.meta = meta
        snapshot_meta = self._finish(snapshot, "snapshot", self._roots())
        timestamp = copy.deepcopy(state.timestamp)
        timestamp.signed.snapshot_meta = snapshot_meta
        timestamp.signed.version += 1
        self._sign(timestamp, "timestamp", self._roots())
        root = None
        if intent.root is not None:
            name = f"{METADATA}{intent.root.signed.version}.root.json"
            root = File(path=name, text=md.to_bytes(intent.root).decode())
        return Publication(
            base=state.base,
            payloads=tuple(self._payloads()),
            sources=self._sources(),
            files=tuple(self._files),
            timestamp=md.to_bytes(timestamp).decode(),
            root=root,
        )

    def _roots(self) -> list[Root]:
        """Both roots around a rotation: what both can verify never leaves a device stranded."""
        if self._intent.root is None:
            return [self._root.signed]
        return [self._root.signed, self._state.root.signed]

    def _finish(
        self, made: Metadata[Any], role: str, delegators: Iterable[Root | Targets]
    ) -> md.MetaFile:
        made.signed.version = self._free_version(role, made.signed.version + 1)
        self._sign(made, role, list(delegators))
        data = md.to_bytes(made)
        self._files.append(
            File(path=f"{METADATA}{made.signed.version}.{role}.json", text=data.decode())
        )
        return md.metafile(made.signed.version, data)

    def _sign(
        self, made: Metadata[Any], role: str, delegators: list[Root] | list[Root | Targets]
    ) -> None:
        made.signed.expires = md.when(self._now + self._periods[role])
        made.signatures.clear()
        wanted = {key.keyid for delegator in delegators for key in md.role_keys(delegator, role)}
        md.sign(made, self._keys.available(wanted))
        try:
            md.check_signed(delegators[0], role, made, role)
        except ThresholdError as error:
            names = [key.keyid for key in md.role_keys(delegators[0], role)]
            missing = ", ".join(n[:16] for n in names if not self._keys.has(n))
            raise ThresholdError(
                f"{role} cannot be signed here: the private keys {missing} are missing",
                file=self._keys.folder,
                expected=error.expected,
                found=error.found,
                hint="Bring them into the folder of keys, each in a folder of its own.",
            ) from None

    def _numbers(self, channel: str, listing: md.Listing) -> md.Numbers:
        """The highest sequence that this channel has ever listed of each series."""
        numbers = md.sequences_of(self._state.channels[channel].signed)
        for offer in [*self._state.listings[channel].values(), *listing.values()]:
            numbers[offer.series] = max(numbers.get(offer.series, 0), offer.sequence)
        return numbers

    def _free_version(self, role: str, version: int) -> int:
        # A discarded publication may have left files: their names are never used again.
        for candidate in range(version, version + _MOST_SKIPPED):
            if self._storage.size(f"{METADATA}{candidate}.{role}.json") is None:
                return candidate
        raise InternalError(f"no version of {role} is free", found=version)

    def _payloads(self) -> Iterable[Payload]:
        known = {
            parse_target(path).sha256: payload_path(path)
            for listing in self._state.listings.values()
            for path in listing
        }
        for channel, listing in self._intent.draft.listings.items():
            for path, offer in listing.items():
                if path in self._state.listings[channel]:
                    continue
                sha256 = parse_target(path).sha256
                yield Payload(
                    path=payload_path(path),
                    sha256=sha256,
                    size=offer.size,
                    copy=known.get(sha256, ""),
                )

    def _sources(self) -> dict[str, Path]:
        return {
            payload.path: self._intent.sources[payload.sha256]
            for payload in self._payloads()
            if payload.sha256 in self._intent.sources
        }
