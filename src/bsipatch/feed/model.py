"""What a feed says about one update: everything a device needs to decide before it downloads.

An Offer stands in the custom metadata of a target, under the key "bsipatch", and is thus signed
by the channel's role.  read_offer() is the one gate for both sides: it checks the offer on its own
and against the target (path, length, digest) it came with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from bsipatch.errors import FeedError, ManifestError
from bsipatch.feed import names, rollout
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest import Activation, Baseline, SecurityItem, StacksOn, check_release_field

__all__ = [
    "FORMAT",
    "KEY",
    "Offer",
    "Rollout",
    "Withdrawal",
    "check_offer",
    "read_offer",
    "to_custom",
]

#: version of the offer's format
FORMAT = 1
#: the key in a target's custom metadata
KEY = "bsipatch"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_INT = (1 << 53) - 1


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    pass


class Rollout(_Struct, frozen=True, kw_only=True):
    """Who is offered an update, and from when on. Times in seconds since 1970 (UTC).

    steps   (percent, since): each holds from its time on
    paused  nobody else comes in; steps hold only what had begun when it was paused
    salt    the id of the update whose order of devices this is: variants of an update share it
    held    steps set aside by the pause: (percent, seconds after resuming)
    """

    start: int
    steps: tuple[tuple[int, int], ...]
    salt: str
    paused: bool = False
    held: tuple[tuple[int, int], ...] = ()

    def percent(self, now: int) -> int:
        """Of a hundred devices, how many are in at `now`."""
        return rollout.percent_at(self.steps, now)

    def includes(self, device_id: str, now: int) -> bool:
        """Whether the device is in at `now`."""
        return rollout.is_member(self.salt, device_id, self.percent(now))

    def begins_for(self, device_id: str) -> int | None:
        """The time from which the device is in, as planned; None when no step reaches it."""
        for percent, since in self.steps:
            if rollout.is_member(self.salt, device_id, percent):
                return since
        return None


class Withdrawal(_Struct, frozen=True, kw_only=True):
    """A notice that an update is taken back. Times in seconds since 1970 (UTC).

    revert_installed  whether devices that have it go back, and `to` where
    expires           the notice stands, and the update stays listed, until then
    """

    reason: str
    at: int
    expires: int
    revert_installed: bool = False
    to: Literal["baseline", "previous"] = "previous"


class Offer(_Struct, frozen=True, kw_only=True):
    """One update in one channel. Sizes in bytes, times in seconds since 1970 (UTC).

    size      on the wire            space     free disk that applying needs
    memory    peak while applying    kind      "full" reads nothing of the baseline's files
    sequence  order of a product's improvements on one baseline, over all channels; variants that
              lead to the same result share it; a device never goes to a lower one
    supersedes       ids of the updates that this one replaces
    ticket_required  only for devices with a signed ticket that names it
    """

    format: int
    id: str
    product: str
    platform: str
    architectures: tuple[str, ...]
    version: str
    letter: str
    build: str
    baseline: Baseline
    result_digest: str
    size: int
    space: int
    memory: int
    kind: Literal["delta", "full"]
    activation: Activation
    published: int
    sequence: int
    stacks_on: StacksOn | None = None
    security: tuple[SecurityItem, ...] = ()
    release_notes: str | None = None
    supersedes: tuple[str, ...] = ()
    rollout: Rollout | None = None
    withdrawn: Withdrawal | None = None
    ticket_required: bool = False

    @property
    def display_version(self) -> str:
        """For people: "26.3.1 (a)"."""
        return f"{self.version} ({self.letter})"

    @property
    def old_digest(self) -> str:
        """Digest of the tree that it starts from."""
        return self.stacks_on.digest if self.stacks_on else self.baseline.digest

    @property
    def series(self) -> tuple[str, str]:
        """What sequences are counted in: the product and the baseline's digest."""
        return (self.product, self.baseline.digest)


def to_custom(offer: Offer) -> dict[str, Any]:
    """The custom metadata of the offer's target: plain JSON types."""
    return {KEY: msgspec.to_builtins(offer)}


def read_offer(
    path: str,
    *,
    length: int,
    sha256: str | None,
    custom: Mapping[str, Any] | None,
    limits: Limits = DEFAULT,
) -> Offer:
    """The offer of one target, checked completely, also against the target it describes.

    Raises UnsafePathError for the path, FeedError for anything else.
    """
    parts = names.parse_target(path)
    if custom is None or KEY not in custom:
        raise FeedError("a target has no description of its update", file=path)
    try:
        offer = msgspec.convert(custom[KEY], Offer, strict=True)
        check_offer(offer, limits=limits)
    except (msgspec.ValidationError, RecursionError) as error:
        raise FeedError(ascii(str(error))[1:-1], file=path) from None
    except FeedError as error:
        raise FeedError(
            error.detail, file=path, expected=error.expected, found=error.found
        ) from None
    for what, expected, found in (
        ("product", parts.product, offer.product),
        ("digest", sha256, parts.sha256),
        ("size", length, offer.size),
        ("id", _id_of(offer, parts.sha256), offer.id),
    ):
        if expected != found:
            raise FeedError(
                f"an offer's {what} is not that of its target",
                file=path,
                expected=expected,
                found=found,
            )
    return offer


def _id_of(offer: Offer, sha256: str) -> str:
    return names.update_id(offer.product, offer.version, offer.letter, sha256)


def check_offer(offer: Offer, *, limits: Limits = DEFAULT) -> None:
    """Everything about an offer that can be checked without its target. Raises FeedError."""
    if offer.format != FORMAT:
        raise FeedError(
            "an offer's format is not known here",
            expected=FORMAT,
            found=offer.format,
            hint="Update bsipatch.",
        )
    try:
        for field in ("product", "platform", "version", "letter", "build"):
            check_release_field(field, getattr(offer, field), limits=limits)
        for name in offer.architectures:
            check_release_field("architecture", name, limits=limits)
        check_release_field("version", offer.baseline.version, limits=limits)
        if offer.baseline.build is not None:
            check_release_field("build", offer.baseline.build, limits=limits)
        if offer.stacks_on is not None:
            check_release_field("letter", offer.stacks_on.letter, limits=limits)
        if offer.release_notes is not None:
            check_release_field("release_notes", offer.release_notes, limits=limits)
        for item in offer.security:
            for cve in item.cves:
                check_release_field("cve", cve, limits=limits)
    except ManifestError as error:
        raise FeedError(error.detail, found=error.found) from None
    _check_counts(offer, limits)
    _check_numbers(offer)
    for digest in (offer.baseline.digest, offer.result_digest, offer.old_digest):
        if not _DIGEST.fullmatch(digest):
            raise FeedError("a digest is not 64 lower-case hex digits", found=ascii(digest[:80]))
    for name in (offer.id, *offer.supersedes):
        names.check_id(name)
    if offer.id in offer.supersedes:
        raise FeedError("an offer supersedes itself", found=offer.id)
    if offer.rollout is not None:
        names.check_id(offer.rollout.salt)
        rollout.check_steps(offer.rollout.steps)
        rollout.check_steps(offer.rollout.held)
    _check_prose(offer, limits)


def _check_counts(offer: Offer, limits: Limits) -> None:
    if not offer.architectures or list(offer.architectures) != sorted(set(offer.architectures)):
        raise FeedError("architectures must be named, sorted, each once")
    for what, count, most in (
        ("architectures", len(offer.architectures), limits.max_list),
        ("processes", len(offer.activation.processes), limits.max_list),
        ("superseded ids", len(offer.supersedes), limits.max_list),
        ("security items", len(offer.security), limits.max_security_items),
    ):
        if count > most:
            raise FeedError(f"too many {what}", expected=most, found=count)


def _check_numbers(offer: Offer) -> None:
    numbers = {
        "size": offer.size,
        "space": offer.space,
        "memory": offer.memory,
        "published": offer.published,
        "sequence": offer.sequence,
    }
    if offer.withdrawn is not None:
        numbers["withdrawn.at"] = offer.withdrawn.at
        numbers["withdrawn.expires"] = offer.withdrawn.expires
    if offer.rollout is not None:
        numbers["rollout.start"] = offer.rollout.start
    for what, value in numbers.items():
        if not 0 <= value <= _MAX_INT:
            raise FeedError(f"{what} is out of range", found=value)
    if offer.sequence < 1:
        raise FeedError("sequence is out of range", expected=1, found=offer.sequence)
    if offer.withdrawn is not None and offer.withdrawn.expires <= offer.withdrawn.at:
        raise FeedError("a withdrawal expires before it was made", found=offer.withdrawn.expires)


def _check_prose(offer: Offer, limits: Limits) -> None:
    texts = [("process", text, limits.max_text) for text in offer.activation.processes]
    for item in offer.security:
        texts.append(("component", item.component, limits.max_text))
        texts.append(("impact", item.impact, limits.max_long_text))
        texts.append(("credit", item.credit or "-", limits.max_long_text))
    if offer.withdrawn is not None:
        texts.append(("withdrawn.reason", offer.withdrawn.reason, limits.max_text))
    for what, text, most in texts:
        if not text or len(text) > most:
            raise FeedError(f"{what} is empty or too long", found=len(text))
        # What reaches a terminal must not be able to steer it.
        if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text):
            raise FeedError(f"{what} contains a control character", found=ascii(text[:64]))
