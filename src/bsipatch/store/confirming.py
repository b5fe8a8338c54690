"""Holds a new tree against the signed entries, one by one, and reads only what nobody vouches for.

A walk builds every entry and digests them all together; where all is well that
comes to the same, and costs several times as much on a tree of many files.
Where something differs the walk says what.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Set

from ..errors import BsipatchError, CancelledError, UnsafePathError
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


def confirm(
    tree: Beneath,
    expected: Mapping[str, State],
    *,
    work: Work,
    notes: Notes,
    folders: Set[str] | None = None,
) -> bool:
    """Whether the tree consists of exactly these entries, past the cache.

    folders: only those entries are looked at that lie in one of these, "" being the root, and
    nothing else may lie there.  Extended attributes are not looked at.  A file that `notes`
    recalls is not read, and every other is noted there.  Raises OSError for the root itself,
    CancelledError.
    """
    reading: list[tuple[str, State]] = []
    try:
        if folders is None:
            work.begin("checking", sum(state.size for state in expected.values()))
            if _look(tree.fd, "", expected, work, notes, reading) != len(expected):
                return False
        else:
            some = _within(expected, folders)
            sizes = (expected[path].size for paths in some.values() for path in paths)
            work.begin("checking", sum(sizes))
            for folder, paths in some.items():
                with tree.opened(folder, DIRECTORY) as fd:
                    mode = os.fstat(fd).st_mode & 0o7777
                    if folder and mode != expected[folder].mode:
                        return False
                    prefix = f"{folder}/" if folder else ""
                    count = _look(fd, prefix, expected, work, notes, reading, below=False)
                if count != len(paths):
                    return False
        batches = [reading[at : at + _BATCH] for at in range(0, len(reading), _BATCH)]
        each(
            len(batches),
            work.jobs,
            lambda index: _read(tree, batches[index], work, notes),
            tick=work.check,
        )
    except (_DiffersError, UnsafePathError, FileNotFoundError, NotADirectoryError):
        return False
    return True


def _within(expected: Mapping[str, State], folders: Set[str]) -> dict[str, list[str]]:
    """The paths that lie directly in each of these folders of the result."""
    some: dict[str, list[str]] = {
        folder: []
        for folder in folders
        if not folder or (folder in expected and expected[folder].kind == "dir")
    }
    for path in expected:
        found = some.get(path.rpartition("/")[0])
        if found is not None:
            found.append(path)
    return some


def _look(
    folder: int,
    prefix: str,
    expected: Mapping[str, State],
    work: Work,
    notes: Notes,
    reading: list[tuple[str, State]],
    *,
    below: bool = True,
) -> int:
    """How many entries there are below `folder`, each looked at; raises _DiffersError.

    Without `below` only those that lie in it.
    """
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
    for name, listed in folders if below else ():
        inner = os.open(name, DIRECTORY, dir_fd=folder)
        try:
            opened = os.fstat(inner)
            if (opened.st_dev, opened.st_ino) != (listed.st_dev, listed.st_ino):
                raise _DiffersError
            count += _look(inner, f"{prefix}{name}/", expected, work, notes, reading)
        finally:
            os.close(inner)
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
