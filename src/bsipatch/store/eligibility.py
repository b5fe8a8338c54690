"""May this update go onto this store? Asked of the signed manifest, before anything is built.

Every refusal is an error of its own kind whose message says what was expected
and what was found; apply writes it into the history as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from ..errors import (
    ExpiredError,
    NoSpaceError,
    TreeDriftError,
    WrongBaselineError,
    WrongPlatformError,
    WrongProductError,
)
from ..limits import Limits
from ..manifest import Manifest
from ..tree import Entry, Tree
from . import records, snapshot
from .beneath import Beneath, InOrder
from .records import Generation, Identity

#: what a store or an update says that is for every platform or architecture
ANY = "any"
_SHOWN = 3


def check_device(manifest: Manifest, identity: Identity, *, now: float) -> None:
    """Product, platform and expiry (`now` in seconds since 1970).

    Raises WrongProductError, WrongPlatformError, ExpiredError.
    """
    if manifest.product != identity.product:
        raise WrongProductError(expected=identity.product, found=manifest.product)
    if ANY not in (manifest.platform, identity.platform) and (
        manifest.platform != identity.platform
    ):
        raise WrongPlatformError(expected=identity.platform, found=manifest.platform)
    ours, theirs = set(identity.architectures), set(manifest.architectures)
    if ours and ANY not in ours | theirs and not ours & theirs:
        raise WrongPlatformError(
            "no architecture in common",
            expected=", ".join(identity.architectures),
            found=", ".join(manifest.architectures),
        )
    if manifest.expires is not None and now >= manifest.expires:
        ended = datetime.fromtimestamp(manifest.expires, UTC).isoformat(timespec="seconds")
        raise ExpiredError(f"the update expired at {ended}")


def check_baseline(
    manifest: Manifest, identity: Identity, digest: str, live: Generation, live_digest: str
) -> int:
    """The generation that the update's actions start from: the baseline or, stacked, the live one.

    Digests are those of the baseline's tree and of the live one, with extended attributes
    where the manifest speaks of them.  Raises WrongBaselineError.
    """
    wanted = manifest.baseline
    if wanted.build is not None and wanted.build != identity.build:
        raise WrongBaselineError("another build", expected=identity.build, found=wanted.build)
    if wanted.version != identity.version:
        raise WrongBaselineError("another version", expected=identity.version, found=wanted.version)
    if wanted.digest != digest:
        raise WrongBaselineError("another baseline tree", expected=digest, found=wanted.digest)
    parent = manifest.stacks_on
    if parent is None:
        return records.BASELINE
    if parent.digest != live_digest or parent.letter != live.letter:
        raise WrongBaselineError(
            f"it stacks on {manifest.version} ({parent.letter}), which is not live",
            expected=f"{live.display} {live_digest}",
            found=f"({parent.letter}) {parent.digest}",
            hint="Apply that improvement first.",
        )
    return live.number


def digest_of(tree: Tree, *, xattrs: bool) -> str:
    """The tree's digest with its extended attributes, or without them."""
    return tree.digest if xattrs else without_xattrs(tree).digest


def without_xattrs(tree: Tree) -> Tree:
    """The same entries, their extended attributes left out."""
    return Tree(
        Entry(
            path=entry.path,
            kind=entry.kind,
            mode=entry.mode,
            size=entry.size,
            digest=entry.digest,
            target=entry.target,
        )
        for entry in tree
    )


def room(manifest: Manifest, strategy: str) -> tuple[int, int]:
    """Bytes and inodes that a new tree takes, its unchanged files brought in by `strategy`.

    What is copied although it does not change comes on top of what the manifest
    declares; a hard link has the inode of the file that it leads to.
    """
    size, inodes = manifest.required_space, 0
    for action in manifest.actions:
        state = action.result
        if state is None:
            continue
        is_linked = strategy == "hardlink" and action.do == "keep" and state.kind == "file"
        inodes += not is_linked
        if strategy not in snapshot.CLONING:
            copied = ("keep", "clone", "chmod") if strategy == "copy" else ("chmod",)
            size += state.size if action.do in copied else 0
    return size, inodes


def check_space(root_fd: int, needed: int, entries: int, limits: Limits, file: str) -> None:
    """`needed` bytes and room for `entries` new inodes, with the reserve left over.

    Raises NoSpaceError that says how much is missing.
    """
    status = os.fstatvfs(root_fd)
    free = status.f_bavail * status.f_frsize
    if free < needed + limits.reserve_space:
        raise NoSpaceError(
            f"the update needs {needed} bytes and {limits.reserve_space} must stay free",
            file=file,
            expected=needed + limits.reserve_space,
            found=free,
        )
    if status.f_files and status.f_favail < entries:
        raise NoSpaceError(
            "too few inodes are free", file=file, expected=entries, found=status.f_favail
        )


def entries_read(manifest: Manifest, *, untouched: bool = True) -> Iterator[Entry]:
    """The base's entries that the update takes over or reads; what it replaces may be anything.

    An update that brings every file whole so mends a base that drifted.  Without
    `untouched` files and links that stay as they are are left out.
    """
    bases = {a.base for a in manifest.actions if a.do in ("patch", "clone")}
    for action in manifest.actions:
        if action.old is None:
            continue
        kept = action.do == "keep" and (untouched or action.old.kind == "dir")
        if kept or action.do == "chmod" or action.path in bases:
            yield action.old.at(action.path)


def check_drift(base: Beneath, entries: Iterable[Entry], shown: str) -> None:
    """Each of these entries is in the base with its kind, mode, size and target.

    Cheap: reads no file; content is compared when it is used, by digest.  `shown` is the path
    of the base for messages.  Raises TreeDriftError that names the first entries that differ.
    """
    with base.in_order() as reached:
        found = [why for entry in entries if (why := _drift(reached, entry)) is not None]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise TreeDriftError("baseline drifted: " + "; ".join(found[:_SHOWN]) + more, file=shown)


def _drift(base: InOrder, entry: Entry) -> str | None:
    try:
        status = base.stat(entry.path)
    except (FileNotFoundError, NotADirectoryError):
        return f"{entry.path}, missing"
    kind = {0o100000: "file", 0o040000: "dir", 0o120000: "symlink"}.get(
        status.st_mode & 0o170000, "special file"
    )
    if kind != entry.kind:
        return f"{entry.path}, a {kind} for a {entry.kind}"
    mode = status.st_mode & 0o7777
    if kind != "symlink" and mode != entry.mode:
        return f"{entry.path}, mode {mode:04o} for {entry.mode:04o}"
    if kind == "file" and status.st_size != entry.size:
        return f"{entry.path}, {status.st_size} bytes for {entry.size}"
    if kind == "symlink":
        with base.parent(entry.path) as (fd, name):
            target = os.readlink(name, dir_fd=fd)
        if target != entry.target:
            return f"{entry.path}, leads to {target!r} for {entry.target!r}"
    return None
