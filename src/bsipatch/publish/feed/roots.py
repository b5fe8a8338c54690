"""Other keys for a role, and the root file that travels between the holders of offline keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from tuf.api.metadata import Key, Metadata, Root, Targets

from bsipatch.errors import CorruptError, SignatureError, ThresholdError, UsageError
from bsipatch.feed.names import TOP_ROLES
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.edits import Change
from bsipatch.publish.feed.keys import KeySigner, check_key, from_tuf, to_tuf
from bsipatch.publish.feed.state import State
from bsipatch.trust import PrivateKey, PublicKey

__all__ = [
    "add_signature",
    "check_complete",
    "check_next",
    "describe",
    "describe_channels",
    "missing",
    "propose",
    "read",
    "with_channel_keys",
]


def propose(
    old: Metadata[Root],
    role: str,
    add: Sequence[PublicKey],
    drop: Sequence[str],
    threshold: int | None,
    now: int,
) -> Metadata[Root]:
    """The next root with other keys for one of its roles, unsigned.

    Nothing to add or drop renews the root's time of validity.  Raises UsageError.
    """
    if role not in TOP_ROLES:
        raise UsageError("the root names no such role", found=role)
    new = copy.deepcopy(old)
    new.signatures.clear()
    root = new.signed
    root.version += 1
    root.expires = md.when(now + md.periods_of(root)["root"])
    kept = _kept(md.role_keys(root, role), add, drop, role)
    shared = {
        key_id for name, other in root.roles.items() if name != role for key_id in other.keyids
    }
    for key in add:
        if key.key_id in shared:
            raise UsageError(f"another role has the key for {role}", found=key.key_id)
    root.roles[role].keyids = sorted(key.key_id for key in kept)
    root.roles[role].threshold = _threshold(role, kept, threshold, root.roles[role].threshold)
    used = {key_id for named in root.roles.values() for key_id in named.keyids}
    root.keys.update({key.key_id: to_tuf(key) for key in add})
    root.keys = {key_id: key for key_id, key in root.keys.items() if key_id in used}
    return new


def with_channel_keys(
    state: State,
    channel: str,
    add: Sequence[PublicKey],
    drop: Sequence[str],
    threshold: int | None,
) -> Metadata[Targets]:
    """The top targets with other keys for a channel, unsigned. Raises UsageError."""
    new = copy.deepcopy(state.targets)
    kept = _kept(md.role_keys(new.signed, channel), add, drop, channel)
    old = new.signed.get_delegated_role(channel).threshold
    md.set_delegation(new.signed, channel, kept, _threshold(channel, kept, threshold, old))
    return new


def _kept(
    keys: Iterable[Key], add: Sequence[PublicKey], drop: Sequence[str], role: str
) -> list[PublicKey]:
    kept = {key.keyid: from_tuf(key) for key in keys}
    for name in drop:
        fitting = [key_id for key_id in kept if len(name) >= 8 and key_id.startswith(name)]
        if len(fitting) != 1:
            raise UsageError(
                f"{role} has no such key, or several",
                expected=", ".join(key_id[:16] for key_id in kept),
                found=name,
            )
        del kept[fitting[0]]
    for key in add:
        if key.key_id in kept:
            raise UsageError(f"{role} has this key already", found=key.key_id)
        kept[key.key_id] = key
    return list(kept.values())


def _threshold(role: str, keys: Sequence[PublicKey], wanted: int | None, old: int) -> int:
    threshold = old if wanted is None else wanted
    if not 1 <= threshold <= len(keys):
        raise UsageError(
            f"{role}: the threshold must be between 1 and the number of its keys",
            expected=len(keys),
            found=threshold,
            hint="Add keys with --add, or say --threshold.",
        )
    return threshold


# --- the file that travels ---


def read(data: bytes, file: str) -> Metadata[Root]:
    """A root on its way to be signed. Raises CorruptError, KeyFileError (a key counts twice)."""
    root = md.parse(data, Root, file)
    for key in root.signed.keys.values():
        check_key(key)
    return root


def add_signature(
    root: Metadata[Root], old: Metadata[Root] | None, key: PrivateKey, file: str
) -> None:
    """Signs it, when the key is one of the new root's or the old one's. Raises SignatureError."""
    known = {k.keyid for r in (root, old) if r is not None for k in md.role_keys(r.signed, "root")}
    if key.key_id not in known:
        raise SignatureError(
            "this key signs no root of that feed",
            file=file,
            expected=", ".join(key_id[:16] for key_id in sorted(known)),
            found=key.key_id[:16],
            hint="Sign with a root key; give --trusted the current root for a key that leaves.",
        )
    md.sign(root, [KeySigner(key)])


def missing(old: Metadata[Root] | None, new: Metadata[Root]) -> int:
    """How many signatures are still missing, by keys of the old root or of the new one."""
    lacking = 0
    for root in [new] if old is None else [old, new]:
        result = root.signed.get_verification_result("root", new.signed_bytes, new.signatures)
        lacking = max(lacking, result.threshold - len(result.signed))
    return lacking


def check_next(old: Metadata[Root], new: Metadata[Root], file: str) -> None:
    """It follows the current one. Raises CorruptError."""
    if new.signed.version != old.signed.version + 1:
        raise CorruptError(
            "not the next root",
            file=file,
            expected=old.signed.version + 1,
            found=new.signed.version,
            hint="Propose it again with `bsipatch feed rotate`.",
        )
    if set(new.signed.roles) != set(TOP_ROLES):
        raise CorruptError("a root must name exactly TUF's roles", file=file)
    if not new.signed.consistent_snapshot:
        raise CorruptError("a root must ask for consistent snapshots", file=file)


def check_complete(old: Metadata[Root] | None, new: Metadata[Root], file: str) -> None:
    """Enough keys of the old root and of the new one have signed. Raises ThresholdError."""
    for name, root in (("new", new), ("current", old)):
        if root is None:
            continue
        result = root.signed.get_verification_result("root", new.signed_bytes, new.signatures)
        if not result:
            raise ThresholdError(
                f"too few of the {name} root's keys have signed",
                file=file,
                expected=result.threshold,
                found=len(result.signed),
                hint="Have `bsipatch feed sign` run by the holders of: "
                + ", ".join(key_id[:16] for key_id in sorted(result.unsigned)),
            )


# --- what is different ---


def describe(old: Metadata[Root] | None, new: Metadata[Root]) -> list[Change]:
    """What a root changes, for whoever is to sign it."""
    changes = []
    for role in TOP_ROLES:
        before = _keys_of(old.signed, role) if old is not None else None
        after = _keys_of(new.signed, role)
        if before != after:
            changes.append(Change("root", role, "keys", before, after))
    expires = None if old is None else old.signed.expires.isoformat()
    changes.append(Change("root", "root", "expires", expires, new.signed.expires.isoformat()))
    return changes


def describe_channels(state: State, targets: Metadata[Targets]) -> list[Change]:
    """Which channels get other keys."""
    changes = []
    for channel in state.channels:
        before = _keys_of(state.targets.signed, channel)
        after = _keys_of(targets.signed, channel)
        if before != after:
            changes.append(Change(channel, channel, "keys", before, after))
    return changes


def _keys_of(delegator: Root | Targets, role: str) -> str:
    named = delegator.get_delegated_role(role)
    ids = ", ".join(key_id[:16] for key_id in sorted(named.keyids))
    return f"{named.threshold} of {ids}"
