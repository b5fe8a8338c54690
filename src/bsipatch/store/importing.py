"""Copies any tree into the store, as its baseline."""

from __future__ import annotations

import os
import stat

from ..errors import UnsafePathError
from . import snapshot
from .beneath import DIRECTORY
from .work import Work


def import_tree(old: int, new: int, *, strategy: str, work: Work, links: bool = False) -> None:
    """Copies everything below descriptor `old` into the empty directory `new`.

    Clones where the strategy can, copies otherwise.  Hard links only with `links`,
    for a tree that nobody changes: any other stays its owner's to change.  Raises OSError,
    UnsafePathError (devices and the like), CancelledError.
    """
    work.begin("copying", _size(old, work))
    way = "reflink" if strategy in snapshot.CLONING else "hardlink" if links else "copy"
    _copy(old, new, "", way, work)


def _size(folder: int, work: Work) -> int:
    """Sum of all file sizes in bytes."""
    total = 0
    work.check()
    with os.scandir(folder) as entries:
        found = list(entries)
        for entry in found:
            if entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            fd = os.open(entry.name, DIRECTORY, dir_fd=folder)
            try:
                total += _size(fd, work)
            finally:
                os.close(fd)
    return total


def _copy(old: int, new: int, prefix: str, strategy: str, work: Work) -> None:
    for name in sorted(os.listdir(old)):
        status = os.stat(name, dir_fd=old, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
        elif stat.S_ISREG(status.st_mode):
            snapshot.place(strategy, old, name, new, name, private=strategy != "hardlink")
            work.advance(status.st_size)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=new)
            below = os.open(name, DIRECTORY, dir_fd=old)
            try:
                made = os.open(name, DIRECTORY, dir_fd=new)
                try:
                    _copy(below, made, f"{prefix}{name}/", strategy, work)
                finally:
                    os.close(made)
            finally:
                os.close(below)
        else:
            raise UnsafePathError(
                "is a device, fifo or socket, which no tree may hold", file=prefix + name
            )
    snapshot.copy_metadata(old, new)
