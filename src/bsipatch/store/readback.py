"""Makes a stage last, reads it from the disk again, and says what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Set

from ..errors import BsipatchError, NewMismatchError, TreeDriftError
from ..limits import Limits
from ..manifest import Manifest
from ..tree import Tree, compare, walk
from .beneath import DIRECTORY, READ, Beneath
from .confirming import confirm
from .durable import sync_fd, sync_file_system
from .eligibility import check_drift, entries_read, without_xattrs
from .witness import Notes
from .work import Work

_SHOWN = 3


def make_durable(folder: int, *, per_file: bool, work: Work | None = None) -> bool:
    """The open `folder` and everything below it survive a power cut from here on.

    True when all else on its file system does, too.  Raises OSError.

    One syncfs by default; `per_file` syncs file by file, for hosts where one
    big sync would hold up other programs.
    """
    if work is not None:
        work.begin("syncing", 0)
    if not per_file and sync_file_system(folder):
        return True
    _visit(folder, sync_fd)
    return False


def read_back(
    tree: Beneath,
    size: int,
    *,
    xattrs: bool,
    work: Work,
    limits: Limits,
    notes: Notes | None = None,
) -> Tree:
    """The tree as it really is on the disk, past the cache. `size` is in bytes.

    With `notes`, files that are known to be right since they were last read are
    not read again, and the others are noted there.
    """
    work.begin("checking", size)
    return walk(
        tree.fd,
        xattrs=xattrs,
        jobs=work.jobs,
        progress=work.advance,
        limits=limits,
        memory=notes,
        uncached=True,
    )


def check_result(
    manifest: Manifest,
    new: Beneath,
    old: Beneath,
    shown: str,
    *,
    work: Work,
    limits: Limits,
    notes: Notes,
    folders: Set[str] | None = None,
) -> None:
    """The new tree is exactly what was signed, on the disk; `notes` gets its files.

    folders: all that lies outside these is known to be right.  `old` is the base and `shown`
    its path, for messages.  Raises NewMismatchError, TreeDriftError when the base is to
    blame, UnsafePathError, CancelledError, OSError.
    """
    if not manifest.xattrs:
        expected = {a.path: a.result for a in manifest.actions if a.result is not None}
        if confirm(new, expected, work=work, notes=notes, folders=folders):
            return
        check_drift(old, entries_read(manifest), shown)
    size = sum(action.result.size for action in manifest.actions if action.result is not None)
    found = read_back(new, size, xattrs=manifest.xattrs, work=work, limits=limits, notes=notes)
    if found.digest != manifest.result_digest:
        raise explain(manifest, found, shown)


def explain(manifest: Manifest, found: Tree, base: str) -> BsipatchError:
    """Why `found` is not the result: a wrong file that was only shared is the base's fault.

    `base` is the base tree's path, for the message.
    """
    expected = manifest.new_tree()
    seen = found if manifest.xattrs else without_xattrs(found)
    shared = {a.path: a for a in manifest.actions if a.do in ("keep", "clone", "chmod")}
    differences = compare(expected, seen)
    for difference in differences:
        action = shared.get(difference.path)
        if action is not None:
            what = difference.sentence.removeprefix(f"{difference.path}: ")
            return TreeDriftError(f"baseline drifted: {action.base}, {what}", file=base)
    return NewMismatchError(
        "; ".join(difference.sentence for difference in differences[:_SHOWN]),
        expected=manifest.result_digest,
        found=seen.digest,
    )


def _visit(folder: int, action: Callable[[int], None]) -> None:
    """Calls `action` with a descriptor of each file and directory, parents after children."""
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened or rewound
    with os.scandir(folder) as entries:
        found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.is_symlink()]
    for name, is_dir in found:
        fd = os.open(name, DIRECTORY if is_dir else READ, dir_fd=folder)
        try:
            if is_dir:
                _visit(fd, action)
            else:
                action(fd)
        finally:
            os.close(fd)
    action(folder)
