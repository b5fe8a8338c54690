"""Names in a feed: channels, update ids and target paths, checked before they touch any path.

A role's name becomes a file's name on every server and device, so only the three channels are ever
accepted, and a target path is taken apart by one strict pattern, never by joining and normalising.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from bsipatch.errors import FeedError, ManifestError, UnsafePathError, UsageError
from bsipatch.manifest import check_release_field

__all__ = [
    "CHANNELS",
    "TOP_ROLES",
    "TargetPath",
    "by_id",
    "check_channel",
    "check_device_id",
    "check_id",
    "check_role",
    "means",
    "parse_target",
    "path_pattern",
    "target_path",
    "update_id",
    "url_path",
]

T = TypeVar("T")

#: the channels, the most daring first; each is a delegated role of exactly that name
CHANNELS = ("developer", "beta", "release")
#: the roles that TUF itself has
TOP_ROLES = ("root", "targets", "snapshot", "timestamp")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+~:-]*-[a-z]{1,3}-[0-9a-f]{12}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*")
_MOST = 255
_MOST_ID = 600


@dataclass(frozen=True, slots=True)
class TargetPath:
    """The parts of "<channel>/<product>/<sha256>.bsi"."""

    channel: str
    product: str
    sha256: str


def check_channel(name: str) -> str:
    """The name itself when it is one of CHANNELS. Raises UnsafePathError for any other."""
    if name not in CHANNELS:
        raise UnsafePathError(
            "there is no such channel",
            expected=", ".join(CHANNELS),
            found=ascii(name[:80]),
            hint="Channels are never made from a name that someone gives.",
        )
    return name


def check_role(name: str) -> str:
    """The name itself when it is a role of a feed. Raises UnsafePathError for any other."""
    if name not in TOP_ROLES + CHANNELS:
        raise UnsafePathError(
            "there is no such role",
            expected=", ".join(TOP_ROLES + CHANNELS),
            found=ascii(name[:80]),
            hint="Roles are never made from a name that someone gives.",
        )
    return name


def check_id(name: str) -> str:
    """The id itself when it is spelled as update_id() spells them. Raises FeedError."""
    if len(name) > _MOST_ID or not _ID.fullmatch(name):
        raise FeedError("not an update's id", found=ascii(name[:80]))
    return name


def check_device_id(name: str) -> str:
    """The id itself: 1 to 255 letters, digits and . _ : @ -. Raises FeedError."""
    if len(name) > _MOST or not _DEVICE.fullmatch(name):
        raise FeedError("not a device's id", found=ascii(name[:80]))
    return name


def update_id(product: str, version: str, letter: str, sha256: str) -> str:
    """ "<product>-<version>-<letter>-<first 12 digits of the file's SHA-256>"."""
    return f"{product}-{version}-{letter}-{sha256[:12]}"


def means(name: str, update: str) -> bool:
    """Whether somebody who says `name` means this update: by its id, or by six or more of the last
    characters of it."""
    return name == update or (len(name) >= 6 and update.endswith(name))


def by_id(name: str, items: Iterable[T], id_of: Callable[[T], str]) -> list[T]:
    """All items of the one update that `name` means; an id in full goes before the end of another.

    Empty when there is none.  Raises UsageError when several updates fit.
    """
    them = list(items)
    exact = [item for item in them if id_of(item) == name]
    found = exact or [item for item in them if means(name, id_of(item))]
    ids = sorted({id_of(item) for item in found})
    if len(ids) > 1:
        raise UsageError("several updates fit", found=", ".join(ids), hint="Give the whole id.")
    return found


def target_path(channel: str, product: str, sha256: str) -> str:
    """Where an update stands in a channel. Raises UnsafePathError or FeedError for bad parts."""
    check_channel(channel)
    _check_product(product)
    if not _DIGEST.fullmatch(sha256):
        raise FeedError("a digest is not 64 lower-case hex digits", found=ascii(sha256[:80]))
    return f"{channel}/{product}/{sha256}.bsi"


def parse_target(path: str) -> TargetPath:
    """Takes a target path apart. Raises UnsafePathError unless it is spelled by target_path()."""
    parts = path.split("/")
    if len(parts) != 3 or not parts[2].endswith(".bsi"):
        raise UnsafePathError("not the path of an update in a feed", found=ascii(path[:160]))
    channel, product, name = parts
    try:
        spelled = target_path(channel, product, name.removesuffix(".bsi"))
    except FeedError as error:
        raise UnsafePathError(error.detail, found=ascii(path[:160])) from None
    if spelled != path:
        raise UnsafePathError("not the path of an update in a feed", found=ascii(path[:160]))
    return TargetPath(channel, product, name.removesuffix(".bsi"))


def path_pattern(channel: str) -> str:
    """The only paths that a channel's role may list."""
    return f"{check_channel(channel)}/*/*"


def url_path(path: str) -> str:
    """A target path as it stands in a URL: percent-encoded, the slashes kept."""
    return quote(path, safe="/")


def _check_product(product: str) -> None:
    # The manifest's own rule: begins with a letter or digit, ends without a dot, no separators.
    try:
        check_release_field("product", product)
    except ManifestError as error:
        raise UnsafePathError(error.detail, found=error.found) from None
