"""Makes a stage last, reads it from the disk again, and says what is wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ..errors import BsipatchError, NewMismatchError, TreeDriftError
from ..limits import Limits
from ..manifest import Manifest
from ..tree import Tree, compare, walk
from .beneath import DIRECTORY, READ, Beneath
from .durable import sync_fd, sync_file_system
from .eligibility import without_xattrs
from .work import Work

_SHOWN = 3


def make_durable(tree: Beneath, *, per_file: bool) -> None:
    """Everything below `tree` survives a power cut from here on. Raises OSError.

    One syncfs by default; `per_file` syncs file by file, for hosts where one
    big sync would hold up other programs.
    """
    if per_file or not sync_file_system(tree.fd):
        _visit(tree.fd, sync_fd)


def read_back(tree: Beneath, size: int, *, xattrs: bool, work: Work, limits: Limits) -> Tree:
    """The tree as it really is on the disk: the cache is dropped first. `size` is in bytes."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:

        def forget(fd: int) -> None:
            advise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

        with contextlib.suppress(OSError):
            _visit(tree.fd, forget)
    work.begin("checking", size)
    return walk(tree.fd, xattrs=xattrs, jobs=work.jobs, progress=work.advance, limits=limits)


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
