"""Holds a new tree against the signed entries, one by one, and reads only what nobody vouches for.

A walk builds every entry and digests them all together; where all is well that
comes to the same, and costs several times as much on a tree of many files.
Where something differs the walk says what.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from ..errors import BsipatchError, CancelledError
from ..parallel import each
from ..tree import State
from .beneath import DIRECTORY, Beneath
from .surveying import Looker
from .witness import Notes
from .work import Work

_BATCH = 256
_FORMATS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR}


class _DiffersError(Exception):
    """Some entry is not as it was signed."""


def confirm(tree: Beneath, expected: Mapping[str, State], *, work: Work, notes: Notes) -> bool:
    """Whether the tree consists of exactly these entries, past the cache.

    Extended attributes are not looked at.  A file that `notes` recalls is not
    read, and every other is noted there.  Raises OSError for the root itself,
    CancelledError.
    """
    work.begin("checking", sum(state.size for state in expected.values()))
    reading: list[tuple[str, State]] = []
    try:
        if _look(tree.fd, "", expected, work, notes, reading) != len(expected):
            return False
        batches = [reading[at : at + _BATCH] for at in range(0, len(reading), _BATCH)]
        each(
            len(batches),
            work.jobs,
            lambda index: _read(tree, batches[index], work, notes),
            tick=work.check,
        )
    except _DiffersError:
        return False
    return True


def _look(
    folder: int,
    prefix: str,
    expected: Mapping[str, State],
    work: Work,
    notes: Notes,
    reading: list[tuple[str, State]],
) -> int:
    """How many entries there are below `folder`, each looked at; raises _DiffersError."""
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened or rewound
    count = recalled = 0
    folders: list[tuple[str, os.stat_result]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            count += 1
            path = prefix + entry.name
            state = expected.get(path)
            if state is None:
                raise _DiffersError
            if state.kind == "symlink":
                if not entry.is_symlink() or os.readlink(entry.name, dir_fd=folder) != state.target:
                    raise _DiffersError
                continue
            status = entry.stat(follow_symlinks=False)
            if status.st_mode != _FORMATS[state.kind] | state.mode:
                raise _DiffersError
            if state.kind == "dir":
                folders.append((entry.name, status))
                continue
            known = notes.recall(path, status)
            if known is None:
                reading.append((path, state))
            elif (known.digest, status.st_size) != (state.digest, state.size):
                raise _DiffersError
            else:
                recalled += state.size
    work.advance(recalled)
    for name, listed in folders:
        below = os.open(name, DIRECTORY, dir_fd=folder)
        try:
            opened = os.fstat(below)
            if (opened.st_dev, opened.st_ino) != (listed.st_dev, listed.st_ino):
                raise _DiffersError
            count += _look(below, f"{prefix}{name}/", expected, work, notes, reading)
        finally:
            os.close(below)
    return count


def _read(tree: Beneath, batch: list[tuple[str, State]], work: Work, notes: Notes) -> None:
    """Digests some files, by one thread; raises _DiffersError."""
    with tree.in_order() as reached:
        looker = Looker(reached, False, work, notes)
        for path, state in batch:
            try:
                differs = any(True for _ in looker.look(state.at(path), True))
            except CancelledError:
                raise
            except (OSError, BsipatchError):
                differs = True
            if differs:
                raise _DiffersError
