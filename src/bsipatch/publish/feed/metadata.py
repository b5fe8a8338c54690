"""TUF metadata made, signed and verified: what every other module here shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from bsipatch.errors import CorruptError, ThresholdError, UsageError
from bsipatch.feed.model import KEY, Offer, read_offer, to_custom
from bsipatch.feed.names import CHANNELS, check_role, parse_target, path_pattern, target_path
from bsipatch.limits import Limits
from bsipatch.publish.feed.keys import KeySigner, check_key, to_tuf
from bsipatch.trust import PublicKey

__all__ = [
    "DEFAULT_PERIODS",
    "Listing",
    "MetaFile",
    "Numbers",
    "check_signed",
    "metafile",
    "new_root",
    "new_snapshot",
    "new_targets",
    "new_timestamp",
    "offers_of",
    "parse",
    "periods_of",
    "role_keys",
    "sequences_of",
    "set_delegation",
    "set_offers",
    "sign",
    "to_bytes",
    "when",
]

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

#: what one channel lists: target path -> offer
Listing = dict[str, Offer]
#: highest sequence ever given: (product, baseline digest) -> number
Numbers = dict[tuple[str, str], int]

DAY = 86400
#: seconds that each role's metadata stays valid
DEFAULT_PERIODS: dict[str, int] = {
    "root": 365 * DAY,
    "targets": 365 * DAY,
    **dict.fromkeys(CHANNELS, 90 * DAY),
    "snapshot": 14 * DAY,
    "timestamp": 3 * DAY,
}
_MOST_PERIOD = 10 * 365 * DAY
_HASH = "sha256"
_serializer = JSONSerializer(compact=True)


def when(seconds: int) -> datetime:
    """Seconds since 1970 as TUF writes times."""
    return datetime.fromtimestamp(seconds, UTC)


# --- bytes ---


def to_bytes(metadata: Metadata[Any]) -> bytes:
    """The file."""
    return metadata.to_bytes(_serializer)


def parse(data: bytes, kind: type[T], name: str) -> Metadata[T]:
    """Reads metadata of one kind; nothing is verified yet. Raises CorruptError."""
    try:
        read: Metadata[Any] = Metadata.from_bytes(data)
    except (DeserializationError, RecursionError) as error:
        raise CorruptError(f"not TUF metadata: {_clean(error)}", file=name) from None
    if read.signed.type != kind.type:
        raise CorruptError(
            "metadata of another role", file=name, expected=kind.type, found=read.signed.type
        )
    return read


def check_signed(delegator: Root | Targets, role: str, metadata: Metadata[Any], name: str) -> None:
    """Enough distinct keys of the role have signed. Raises ThresholdError, KeyFileError."""
    for key in role_keys(delegator, role):
        check_key(key)
    try:
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (ValueError, RepositoryError) as error:
        raise CorruptError(_clean(error), file=name) from None
    if not result:
        raise ThresholdError(
            f"{role} is not signed by enough of its keys",
            file=name,
            expected=result.threshold,
            found=len(result.signed),
        )


def sign(metadata: Metadata[Any], signers: Iterable[KeySigner]) -> bool:
    """Adds signatures; whether there was any signer."""
    signed = False
    for signer in signers:
        metadata.sign(signer, append=True)
        signed = True
    return signed


# --- roles ---


def new_root(
    keys: Mapping[str, Sequence[PublicKey]],
    thresholds: Mapping[str, int],
    periods: Mapping[str, int],
    now: int,
) -> Metadata[Root]:
    """The first root: `keys` of root, targets, snapshot and timestamp; unsigned.

    Raises UsageError for a key that two roles share or a threshold that cannot be met.
    """
    used: dict[str, str] = {}
    known: dict[str, Key] = {}
    roles: dict[str, Role] = {}
    for role in ("root", "targets", "snapshot", "timestamp"):
        ids = []
        for key in keys[role]:
            if key.key_id in used:
                raise UsageError(
                    f"{role} and {used[key.key_id]} share a key",
                    found=key.key_id,
                    hint="Each role needs keys of its own.",
                )
            used[key.key_id] = role
            known[key.key_id] = to_tuf(key)
            ids.append(key.key_id)
        threshold = thresholds.get(role, 1)
        if not 1 <= threshold <= len(ids):
            raise UsageError(
                f"{role}: the threshold must be between 1 and the number of its keys",
                expected=len(ids),
                found=threshold,
            )
        roles[role] = Role(ids, threshold)
    check_periods(periods)
    root = Root(
        version=1,
        expires=when(now + periods["root"]),
        keys=known,
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields={KEY: {"periods": dict(periods)}},
    )
    return Metadata(root)


def check_periods(periods: Mapping[str, int]) -> None:
    """A period for each role, of an hour to ten years. Raises UsageError, UnsafePathError."""
    for role, seconds in periods.items():
        check_role(role)
        if not 3600 <= seconds <= _MOST_PERIOD:
            raise UsageError(
                f"{role} must stay valid for an hour to ten years", found=f"{seconds} seconds"
            )


def periods_of(root: Root) -> dict[str, int]:
    """How long each role's metadata stays valid, in seconds, as the root says."""
    own = root.unrecognized_fields.get(KEY, {})
    told = own.get("periods", {}) if isinstance(own, dict) else {}
    found = dict(DEFAULT_PERIODS)
    if isinstance(told, dict):
        found.update({r: s for r, s in told.items() if r in found and isinstance(s, int)})
    check_periods(found)
    return found


def new_targets(expires: int, delegations: bool = False) -> Metadata[Targets]:
    """Targets that list nothing; the top one has delegations, none yet."""
    made = Targets(
        version=1, expires=when(expires), delegations=Delegations({}, {}) if delegations else None
    )
    return Metadata(made)


def new_snapshot(expires: int, meta: Mapping[str, MetaFile]) -> Metadata[Snapshot]:
    """Which version of each targets role belongs together."""
    return Metadata(Snapshot(version=1, expires=when(expires), meta=dict(meta)))


def new_timestamp(expires: int, snapshot: MetaFile) -> Metadata[Timestamp]:
    """Which snapshot is current."""
    return Metadata(Timestamp(version=1, expires=when(expires), snapshot_meta=snapshot))


def metafile(version: int, data: bytes) -> MetaFile:
    """How one file is named in another: version, length and digest."""
    return MetaFile.from_data(version, data, [_HASH])


def set_delegation(
    targets: Targets, channel: str, keys: Sequence[PublicKey], threshold: int
) -> None:
    """Gives a channel to exactly these keys, and no path beside its own."""
    assert targets.delegations is not None
    if not 1 <= threshold <= len({key.key_id for key in keys}):
        raise UsageError(
            f"{channel}: the threshold must be between 1 and the number of its keys",
            expected=len(keys),
            found=threshold,
        )
    roles = dict(targets.delegations.roles or {})
    others = {key_id for name, role in roles.items() if name != channel for key_id in role.keyids}
    kept = {i: key for i, key in targets.delegations.keys.items() if i in others}
    for key in keys:
        if key.key_id in others:
            raise UsageError(f"another channel has {channel}'s key", found=key.key_id)
        kept[key.key_id] = to_tuf(key)
    roles[channel] = DelegatedRole(
        name=channel,
        keyids=sorted(key.key_id for key in keys),
        threshold=threshold,
        terminating=False,
        paths=[path_pattern(channel)],
    )
    order = [name for name in CHANNELS if name in roles]
    targets.delegations = Delegations(kept, {name: roles[name] for name in order})


def role_keys(delegator: Root | Targets, role: str) -> list[Key]:
    """The keys that a role is given."""
    try:
        ids = delegator.get_delegated_role(role).keyids
        return [delegator.get_key(key_id) for key_id in sorted(ids)]
    except (ValueError, RepositoryError) as error:
        raise CorruptError(_clean(error)) from None


# --- offers ---


def offers_of(targets: Targets, channel: str, limits: Limits) -> Listing:
    """Every offer of a channel, each through the gate. Raises FeedError, UnsafePathError."""
    found: Listing = {}
    for path, target in targets.targets.items():
        if parse_target(path).channel != channel:
            raise CorruptError(f"{channel} lists a path that is not its own", file=path)
        found[path] = read_offer(
            path,
            length=target.length,
            sha256=target.hashes.get(_HASH),
            custom=target.custom,
            limits=limits,
        )
    return found


def set_offers(targets: Targets, channel: str, listing: Listing, numbers: Numbers) -> None:
    """Lists exactly these offers, and writes down the highest sequences ever given."""
    targets.targets = {}
    for path, offer in sorted(listing.items()):
        sha256 = parse_target(path).sha256
        assert path == target_path(channel, offer.product, sha256)
        targets.targets[path] = TargetFile(
            offer.size, {_HASH: sha256}, path, {"custom": to_custom(offer)}
        )
    targets.unrecognized_fields[KEY] = {
        "sequences": [[*series, number] for series, number in sorted(numbers.items())]
    }


def sequences_of(targets: Targets) -> Numbers:
    """The highest sequences ever given in a channel, as it remembers them. Raises CorruptError."""
    try:
        told = msgspec.convert(targets.unrecognized_fields.get(KEY, {}), _Memory, strict=True)
    except msgspec.ValidationError as error:
        raise CorruptError(f"a channel's memory of sequences: {_clean(error)}") from None
    return {(product, digest): number for product, digest, number in told.sequences}


class _Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sequences: list[tuple[str, str, int]] = []


def _clean(error: BaseException) -> str:
    return ascii(str(error))[1:-1][:300]
