"""Whether the tree that the baseline was copied from has been replaced by other means.

Only a store that names its `managed` tree is asked.  Every file is looked at (size, mode,
times); only when something is not as it was at the last look is the whole tree read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from ..errors import BsipatchError
from ..store import Store, durable
from ..store.eligibility import without_xattrs
from ..tree import walk
from .feed_client import FeedClient

LOOK = "managed.json"


class _Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the managed tree's files looked like when its digest was the baseline's."""

    baseline: str
    stamp: str


def moved(store: Store, feed: FeedClient) -> str:
    """Why the managed tree is not the baseline any more; "" when it is, or when there is none."""
    named = feed.config.managed
    if named is None:
        return ""
    tree = Path(named)
    real = Path(os.path.realpath(tree))
    if not real.is_dir() or real.is_relative_to(os.path.realpath(store.root)):
        return ""  # gone, or a link to the live tree: nothing else keeps it up to date
    stamp = _stamp(real)
    look = _Look(baseline=store.identity.baseline, stamp=stamp)
    if stamp and _read(feed) == look:
        return ""
    try:
        digest = without_xattrs(walk(real, limits=store.limits)).digest
    except BsipatchError as error:
        return f"{tree} cannot be read: {error.message}"
    if digest != store.identity.baseline:
        return (
            f"{tree} is another tree ({digest[:12]}) than the baseline "
            f"({store.identity.baseline[:12]})"
        )
    durable.replace_file(LOOK, msgspec.json.encode(look), dir_fd=feed.store.fd)
    return ""


def _read(feed: FeedClient) -> _Look | None:
    try:
        data = durable.read_file(LOOK, dir_fd=feed.store.fd, limit=4096)
        return msgspec.json.decode(data, type=_Look)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _stamp(root: Path) -> str:
    """A digest over what every file and folder looks like from outside; "" when that fails."""
    digest = hashlib.sha256()
    try:
        for folder, names, files in os.walk(root, followlinks=False):
            names.sort()
            for name in sorted([*names, *files]):
                status = os.lstat(os.path.join(folder, name))
                facts = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                digest.update(
                    f"{folder}/{name}\0{status.st_ino} {facts}\n".encode("utf-8", "replace")
                )
    except OSError:
        return ""
    return digest.hexdigest()
