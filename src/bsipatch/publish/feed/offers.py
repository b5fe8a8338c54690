"""From an update file to the offer that describes it, and back: does an offer tell the truth?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bsipatch import trust
from bsipatch.errors import FeedError, ManifestError, from_os_error
from bsipatch.feed.model import FORMAT, Offer, check_offer
from bsipatch.feed.names import update_id
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest import Manifest
from bsipatch.package import Package, Verify
from bsipatch.trust import Policy

__all__ = ["Described", "compare", "describe", "offer_of"]

_CHUNK = 1 << 20
#: deeds whose result needs the bytes of an old file
_READING = frozenset({"patch", "clone", "keep", "chmod"})


@dataclass(frozen=True, slots=True)
class Described:
    """An update file that was read to its end: its offer (sequence 1, nothing else set), digest."""

    file: Path
    offer: Offer
    sha256: str
    expires: int | None


def describe(
    file: str | os.PathLike[str],
    policy: Policy,
    now: int,
    *,
    progress: Callable[[int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Described:
    """Verifies an update file as a device does, every payload too, and describes it.

    progress gets the number of bytes just read.  Raises what Package.open() and trust.verify() do,
    MismatchError for a payload, FeedError.
    """
    path = Path(file)
    with Package.open(path, _verifier(policy, limits), limits=limits) as package:
        package.verify_payloads(progress)
        manifest, size = package.manifest, package.size
    sha256, found = _digest(path)
    if found != size:
        raise FeedError("the file changed while it was read", file=path, expected=size, found=found)
    offer = offer_of(manifest, size=size, sha256=sha256, published=now)
    try:
        check_offer(offer, limits=limits)
    except FeedError as error:
        raise ManifestError(error.detail, file=path, found=error.found) from None
    return Described(path, offer, sha256, manifest.expires)


def offer_of(
    manifest: Manifest, *, size: int, sha256: str, published: int, sequence: int = 1
) -> Offer:
    """What a manifest says, as far as a device needs it before the download."""
    return Offer(
        format=FORMAT,
        id=update_id(manifest.product, manifest.version, manifest.letter, sha256),
        product=manifest.product,
        platform=manifest.platform,
        architectures=manifest.architectures,
        version=manifest.version,
        letter=manifest.letter,
        build=manifest.build,
        baseline=manifest.baseline,
        result_digest=manifest.result_digest,
        stacks_on=manifest.stacks_on,
        size=size,
        space=manifest.required_space,
        memory=max((payload.memory for payload in manifest.payloads), default=0),
        kind="delta" if _reads_old_files(manifest) else "full",
        activation=manifest.activation,
        security=manifest.security,
        release_notes=manifest.release_notes,
        published=published,
        sequence=sequence,
    )


def compare(offer: Offer, manifest: Manifest, sha256: str, size: int) -> list[str]:
    """The fields of an offer that say something else than the update's own manifest."""
    true = offer_of(
        manifest, size=size, sha256=sha256, published=offer.published, sequence=offer.sequence
    )
    true = msgspec.structs.replace(
        true,
        supersedes=offer.supersedes,
        rollout=offer.rollout,
        withdrawn=offer.withdrawn,
        ticket_required=offer.ticket_required,
    )
    return [f for f in Offer.__struct_fields__ if getattr(offer, f) != getattr(true, f)]


def _reads_old_files(manifest: Manifest) -> bool:
    return any(
        action.do in _READING and action.result is not None and action.result.kind == "file"
        for action in manifest.actions
    )


def _verifier(policy: Policy, limits: Limits) -> Verify:
    return lambda envelope: trust.verify(envelope, policy, limits=limits).payload


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise from_os_error(error, path) from error
    return digest.hexdigest(), size
