"""What is published now, verified by the publisher from the root that it trusts.

A publisher signs what it builds on, so it must believe a bucket no more than a device does: whoever
can write there but has no key must not get anything signed.  Only expiry is no error here, since an
expired feed must be renewable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from bsipatch.errors import (
    CorruptError,
    KeyFileError,
    NotFoundError,
    RollbackError,
    from_os_error,
)
from bsipatch.feed.names import CHANNELS
from bsipatch.limits import Limits
from bsipatch.output import OutputFile
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.storage import Storage

__all__ = ["METADATA", "TIMESTAMP", "State", "load_state", "remember", "trusted_root"]

METADATA = "metadata/"
TIMESTAMP = METADATA + "timestamp.json"
_ROOT = "root.json"
_SEEN = "seen.json"


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timestamp: int


@dataclass(frozen=True, kw_only=True)
class State:
    """One whole published state. `base` is the SHA-256 of the timestamp it hangs on."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    channels: dict[str, Metadata[Targets]]
    listings: dict[str, md.Listing]
    base: str
    root_bytes: bytes = field(repr=False)

    def metadata_of(self, role: str) -> Metadata[Any]:
        """Any role's metadata."""
        top: dict[str, Metadata[Any]] = {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": self.targets,
        }
        return self.channels[role] if role in self.channels else top[role]

    def numbers(self) -> md.Numbers:
        """The highest sequence ever given of each series, over all channels."""
        highest: md.Numbers = {}
        for channel, metadata in self.channels.items():
            told = list(md.sequences_of(metadata.signed).items())
            told += [(o.series, o.sequence) for o in self.listings[channel].values()]
            for series, number in told:
                highest[series] = max(highest.get(series, 0), number)
        return highest


def trusted_root(keys: KeyRing) -> bytes:
    """The root that this publisher trusts. Raises NotFoundError before `feed init`."""
    path = keys.folder / _ROOT
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            "these keys belong to no feed yet", file=path, hint="`bsipatch feed init` makes one."
        ) from None
    except OSError as error:
        raise from_os_error(error, path) from error


def remember(keys: KeyRing, root: bytes, timestamp: int) -> None:
    """Keeps the newest root, and the timestamp's version that must not come down again."""
    for name, data in (
        (_ROOT, root),
        (_SEEN, msgspec.json.encode(_Seen(timestamp))),
    ):
        with OutputFile(keys.folder / name) as out:
            out.write(data)
            out.commit()


def load_state(
    storage: Storage, keys: KeyRing, *, limits: Limits, ignore: str | None = None
) -> State:
    """Reads and verifies everything. Raises NotFoundError, TrustError, CorruptError, FeedError.

    ignore: a channel whose contents count for nothing, whatever they are: its key is in the wrong
    hands, and it is to begin anew.
    """
    root_bytes = trusted_root(keys)
    root = md.parse(root_bytes, Root, str(keys.folder / _ROOT))
    root, root_bytes = _walk_roots(storage, root, root_bytes, limits)
    stored = storage.read(TIMESTAMP, limits.max_timestamp)
    if stored is None:
        raise NotFoundError("no feed is there", file=f"{storage.name}/{TIMESTAMP}")
    timestamp = md.parse(stored.data, Timestamp, TIMESTAMP)
    md.check_signed(root.signed, "timestamp", timestamp, TIMESTAMP)
    _check_seen(keys, timestamp.signed.version)
    snapshot_meta = timestamp.signed.snapshot_meta
    data = _file(storage, "snapshot", snapshot_meta, limits.max_snapshot)
    snapshot = md.parse(data, Snapshot, "snapshot")
    md.check_signed(root.signed, "snapshot", snapshot, "snapshot")
    targets = _targets(storage, snapshot.signed, root.signed, "targets", limits)
    channels: dict[str, Metadata[Targets]] = {}
    listings: dict[str, md.Listing] = {}
    for name in delegated(targets.signed):
        if name == ignore:
            channels[name], listings[name] = _empty(snapshot.signed, name), {}
            continue
        channels[name] = _targets(storage, snapshot.signed, targets.signed, name, limits)
        listings[name] = md.offers_of(channels[name].signed, name, limits)
    return State(
        root=root,
        timestamp=timestamp,
        snapshot=snapshot,
        targets=targets,
        channels=channels,
        listings=listings,
        base=hashlib.sha256(stored.data).hexdigest(),
        root_bytes=root_bytes,
    )


def _empty(snapshot: Snapshot, name: str) -> Metadata[Targets]:
    made = md.new_targets(0)
    meta = snapshot.meta.get(f"{name}.json")
    made.signed.version = meta.version if meta is not None else 1
    return made


def delegated(targets: Targets) -> list[str]:
    """The channels that the top targets delegate to. Raises CorruptError for any other role."""
    roles = dict(targets.delegations.roles or {}) if targets.delegations is not None else {}
    for name, role in roles.items():
        if name not in CHANNELS or role.name != name or role.paths != [f"{name}/*/*"]:
            raise CorruptError("a delegation to something else than a channel", found=ascii(name))
    seen: dict[str, str] = {}
    for name, role in roles.items():
        for key_id in role.keyids:
            if seen.setdefault(key_id, name) != name:
                raise KeyFileError(f"{name} and {seen[key_id]} share a key", found=key_id)
    return [name for name in CHANNELS if name in roles]


def _walk_roots(
    storage: Storage, root: Metadata[Root], data: bytes, limits: Limits
) -> tuple[Metadata[Root], bytes]:
    for _ in range(limits.max_root_rotations):
        version = root.signed.version + 1
        name = f"{METADATA}{version}.root.json"
        stored = storage.read(name, limits.max_root)
        if stored is None:
            return root, data
        following = md.parse(stored.data, Root, name)
        if following.signed.version != version:
            raise CorruptError("a root of another version", file=name, expected=version)
        md.check_signed(root.signed, "root", following, name)
        md.check_signed(following.signed, "root", following, name)
        root, data = following, stored.data
    raise CorruptError("too many roots in a row", expected=limits.max_root_rotations)


def _targets(
    storage: Storage, snapshot: Snapshot, delegator: Root | Targets, name: str, limits: Limits
) -> Metadata[Targets]:
    meta = snapshot.meta.get(f"{name}.json")
    if meta is None:
        raise CorruptError(f"the snapshot does not name {name}")
    read = md.parse(_file(storage, name, meta, limits.max_targets), Targets, name)
    md.check_signed(delegator, name, read, name)
    if read.signed.version != meta.version:
        raise CorruptError(f"{name} is of another version", expected=meta.version)
    return read


def _file(storage: Storage, role: str, meta: md.MetaFile, most: int) -> bytes:
    name = f"{METADATA}{meta.version}.{role}.json"
    stored = storage.read(name, most)
    if stored is None:
        raise NotFoundError("the feed lacks a file that it names", file=f"{storage.name}/{name}")
    try:
        meta.verify_length_and_hashes(stored.data)
    except RepositoryError as error:
        raise CorruptError(str(error), file=name) from None
    return stored.data


def _check_seen(keys: KeyRing, version: int) -> None:
    try:
        seen = msgspec.json.decode((keys.folder / _SEEN).read_bytes(), type=_Seen)
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptError(str(error), file=keys.folder / _SEEN) from None
    if version < seen.timestamp:
        raise RollbackError(
            "the feed is older than what was published from here",
            expected=seen.timestamp,
            found=version,
            hint="Somebody has put back an old copy: find out who before publishing on.",
        )
