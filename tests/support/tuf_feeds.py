"""Feeds for a device's tests, made with TUF's metadata API alone: in memory, and easy to break.

A Repository holds what a mirror serves, path by path.  publish() signs everything anew; an
attacker changes `files` afterwards, or the metadata before.  (feeds.py makes sound feeds by
the publisher's own code.)
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from bsipatch.device.choosing import Choice, choose
from bsipatch.device.feed_client import FeedClient, FeedView
from bsipatch.device.following import follow
from bsipatch.device.installing import Installed, Installer
from bsipatch.device.state.config import FeedConfig
from bsipatch.device.transport import Pace, Transport
from bsipatch.feed import names
from bsipatch.feed.model import Offer, to_custom
from bsipatch.manifest import Manifest
from bsipatch.store import Store
from tests.support.updates import CREATED, make_manifest, pack

#: the moment at which everything here is good, seconds since 1970
NOW = CREATED + 1000
DAY = 86400
CHANNELS = ("developer", "beta", "release")


def new_key() -> CryptoSigner:
    """An Ed25519 key pair."""
    return CryptoSigner(Ed25519PrivateKey.generate())


def when(seconds: int) -> datetime:
    """As the metadata's expires."""
    return datetime.fromtimestamp(seconds, UTC)


def sha256(data: bytes) -> str:
    """As hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repository:
    """The publisher's side. signers: of each role, by name; life: seconds that roles live."""

    now: int = NOW
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    thresholds: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    life: dict[str, int] = field(default_factory=dict)
    #: further delegations: role -> path patterns, before the channels' own
    intruders: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("root", "timestamp", "snapshot", "targets", *CHANNELS):
            self.signers.setdefault(role, [new_key()])
        self.roots: list[bytes] = []
        self.root = _unpublished(Root(consistent_snapshot=True))
        self.targets = _unpublished(Targets())
        self.delegated = {name: _unpublished(Targets()) for name in CHANNELS}
        self.snapshot = _unpublished(Snapshot())
        self.timestamp = _unpublished(Timestamp())
        self.new_root()
        self.publish()

    # --- what a publisher does ---

    def add(self, offer: Offer, payload: bytes, channel: str = "release") -> str:
        """Lists an update in a channel; returns its path. publish() makes it seen."""
        path = names.target_path(channel, offer.product, sha256(payload))
        self.list_as(path, payload, to_custom(offer), channel)
        return path

    def list_as(self, path: str, payload: bytes, custom: dict[str, Any], channel: str) -> None:
        """Lists any bytes under any path, sound or not."""
        target = TargetFile.from_data(path, payload, ["sha256"])
        target.unrecognized_fields["custom"] = custom
        self.delegated[channel].targets[path] = target
        folder, _, name = path.rpartition("/")
        self.files[f"targets/{folder}/{sha256(payload)}.{name}"] = payload

    def change(self, path: str, channel: str = "release", **changes: Any) -> Offer:
        """Changes fields of a listed offer."""
        target = self.delegated[channel].targets[path]
        offer = msgspec.convert(target.unrecognized_fields["custom"]["bsipatch"], Offer)
        changed = msgspec.structs.replace(offer, **changes)
        target.unrecognized_fields["custom"] = to_custom(changed)
        return changed

    def new_root(self) -> None:
        """Signs a new root, by the keys of the root before as well."""
        old = self.signers.get("root before", [])
        self.root = copy.deepcopy(self.root)
        self.root.version += 1
        self.root.expires = when(self.now + self.life.get("root", 365 * DAY))
        self.root.keys.clear()
        for role in ("root", "timestamp", "snapshot", "targets"):
            self.root.roles[role].keyids.clear()
            self.root.roles[role].threshold = self.thresholds.get(role, 1)
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        signed = sign(self.root, [*self.signers["root"], *old])
        self.signers["root before"] = list(self.signers["root"])
        self.roots.append(signed)
        self.files[f"metadata/{self.root.version}.root.json"] = signed

    def delegate(self) -> None:
        """Writes the delegations into targets, from `signers` and `thresholds`."""
        patterns = {**self.intruders, **{name: [f"{name}/*/*"] for name in CHANNELS}}
        roles = {
            name: DelegatedRole(name, [], self.thresholds.get(name, 1), False, paths=paths)
            for name, paths in patterns.items()
        }
        self.targets.delegations = Delegations({}, roles)
        for name in roles:
            for signer in self.signers[name]:
                self.targets.add_key(signer.public_key, name)

    def publish(self) -> None:
        """A new version of everything but the root, the timestamp last."""
        self.delegate()
        meta: dict[str, MetaFile] = {}
        for name, targets in {"targets": self.targets, **self.delegated}.items():
            data = self._next(name, targets, 30 * DAY)
            self.files[f"metadata/{targets.version}.{name}.json"] = data
            meta[f"{name}.json"] = metafile(targets.version, data)
        self.snapshot.meta = meta
        data = self._next("snapshot", self.snapshot, 10 * DAY)
        self.files[f"metadata/{self.snapshot.version}.snapshot.json"] = data
        self.renew(metafile(self.snapshot.version, data))

    def renew(self, meta: MetaFile | None = None) -> None:
        """A new timestamp alone."""
        if meta is not None:
            self.timestamp.snapshot_meta = meta
        self.files["metadata/timestamp.json"] = self._next("timestamp", self.timestamp, 2 * DAY)

    def _next(self, role: str, signed: Any, life: int) -> bytes:
        signed.version += 1
        signed.expires = when(self.now + self.life.get(role, life))
        return sign(signed, self.signers[role])

    # --- what an attacker or another mirror has ---

    def mirror(self) -> dict[str, bytes]:
        """A copy of everything that is served now."""
        return dict(self.files)

    def write(self, folder: Path) -> str:
        """Everything as files, for a feed in a folder; returns its address."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return f"file://{folder}/"


def sign(signed: Any, signers: list[CryptoSigner]) -> bytes:
    """A whole metadata file."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def metafile(version: int, data: bytes) -> MetaFile:
    """What vouches for a metadata file."""
    return MetaFile(version, len(data), {"sha256": sha256(data)})


def _unpublished(signed: Any) -> Any:
    signed.version = 0
    return signed


# --- updates ---


def offer_of(made: Manifest, data: bytes, **changes: Any) -> Offer:
    """What a publisher would say of an update file."""
    fields: dict[str, Any] = {
        "format": 1,
        "id": names.update_id(made.product, made.version, made.letter, sha256(data)),
        "product": made.product,
        "platform": made.platform,
        "architectures": made.architectures,
        "version": made.version,
        "letter": made.letter,
        "build": made.build,
        "baseline": made.baseline,
        "result_digest": made.result_digest,
        "size": len(data),
        "space": made.required_space,
        "memory": 1 << 20,
        "kind": "delta",
        "activation": made.activation,
        "published": CREATED,
        "sequence": 1,
        "stacks_on": made.stacks_on,
        "security": made.security,
    }
    return Offer(**{**fields, **changes})


def update(
    old: Any = None, new: Any = None, *, offer: dict[str, Any] | None = None, **manifest: Any
) -> tuple[Offer, bytes]:
    """An update and what a feed says of it: the offer and the file's bytes."""
    made, bodies = make_manifest(old, new, **manifest)
    data = pack(made, bodies)
    return offer_of(made, data, **(offer or {})), data


# --- the other side ---


class Device:
    """A store that follows mirrors, with a clock of its own. Use it as a context manager."""

    def __init__(
        self,
        store: Store,
        repository: Repository,
        *mirrors: str,
        name: str = "device-1",
        **more: Any,
    ) -> None:
        self.store, self.now = store, float(NOW)
        follow(
            store.root,
            FeedConfig(mirrors=mirrors, **{"channel": "release", "proxy": "", **more}),
            root=repository.roots[0],
            name=name,
            clock=lambda: self.now,
        )
        self.feed = FeedClient(store.root / "feed", clock=lambda: self.now)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.feed.store.close()

    def refresh(self) -> FeedView:
        """The feed now."""
        return self.feed.refresh("Demo")

    def refresh_keys(self) -> dict[str, str]:
        """Of each channel, the fingerprint of its keys now."""
        return self.refresh().keys

    def choose(self) -> Choice:
        """What the feed now means for this device."""
        return choose(self.store, self.feed, self.refresh())

    def codes(self, offer: Offer) -> set[str]:
        """What is against an offer, by code."""
        return {reason.code for reason in self.choose().reasons(offer)}

    def install(
        self, only: str | None = None, *, pace: Pace | None = None, **more: Any
    ) -> Installed:
        """Refreshes and installs."""
        with Transport(pace or Pace(), proxy="") as transport:
            installer = Installer(self.store, self.feed, transport, **more)
            return installer.install(self.refresh(), only)

    @property
    def live(self) -> str:
        """What is live, as people see it."""
        return self.store.live().display

    @property
    def downloads(self) -> Path:
        """The folder of payloads."""
        return self.feed.folder / "downloads"
