"""Several stores whose pointers move in one step: the links of a group.

::

    GROUP/
      lock                             held while `live` changes
      live -> sets/7                   the one pointer of all components
      sets/7/NAME -> ../../components/NAME/generations/3
      components/NAME/                 an ordinary store, but for its pointer
        current -> ../../live/NAME     which never changes

A set is made beside the live one, made to last, and becomes live by one rename:
either all components that it changes have moved, or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping

from . import durable, records
from .beneath import DIRECTORY
from .lock import locked
from .records import Member

COMPONENTS = "components"
SETS = "sets"
LIVE = "live"
_WAIT = 10.0  # seconds that another component's flip may take


def name_of(root_fd: int) -> str | None:
    """The component that a store is in its group; None for a store of its own. Raises OSError."""
    try:
        return records.group_name(os.readlink(records.CURRENT, dir_fd=root_fd))
    except FileNotFoundError:
        return None


def lies_in_one(root_fd: int) -> bool:
    """Whether the store's folder is where a group keeps its components. Raises OSError."""
    try:
        components = os.stat(f"../../{COMPONENTS}", dir_fd=root_fd, follow_symlinks=False)
        os.stat(f"../../{LIVE}", dir_fd=root_fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(components, os.stat("..", dir_fd=root_fd))


def flip(root_fd: int, name: str, number: int) -> None:
    """Makes one component's generation live. `root_fd` is its store. Raises OSError."""
    with _group_of(root_fd) as fd:
        _change(fd, {name: _target(name, number)}, {})


def flip_together(root_fd: int, members: Iterable[Member]) -> None:
    """Makes `new` live for every member that shows `old`, in one step that lasts.

    One that shows something else has been moved by itself since and stays.
    root_fd: any component's store.  Raises OSError, StoreBusyError.
    """
    moves = tuple(members)
    with _group_of(root_fd) as fd:
        _change(
            fd,
            {item.name: _target(item.name, item.new) for item in moves},
            {item.name: _target(item.name, item.old) for item in moves},
        )


@contextlib.contextmanager
def _group_of(root_fd: int) -> Iterator[int]:
    fd = os.open("../..", DIRECTORY, dir_fd=root_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _change(group_fd: int, new: Mapping[str, str], old: Mapping[str, str]) -> None:
    """Sets where components lead, those in `old` only if they lead there now."""
    with locked(group_fd, "flip", timeout=_WAIT, file="the group"):
        before = _live_set(group_fd)
        targets = _targets(group_fd, before)
        for name, target in new.items():
            if name not in old or targets.get(name) == old[name]:
                targets[name] = target
        sets = os.open(SETS, DIRECTORY, dir_fd=group_fd)
        try:
            number = str(1 + max((int(n) for n in os.listdir(sets) if n.isdigit()), default=0))
            stage = number + records.STAGE_SUFFIX
            _clear(sets, keep=before)
            os.mkdir(stage, 0o755, dir_fd=sets)
            made = os.open(stage, DIRECTORY, dir_fd=sets)
            try:
                for name, target in sorted(targets.items()):
                    os.symlink(target, name, dir_fd=made)
                durable.sync_fd(made)
            finally:
                os.close(made)
            durable.rename_new(stage, number, dir_fd=sets)
            durable.sync_fd(sets)
            durable.replace_link(LIVE, f"{SETS}/{number}", dir_fd=group_fd)
            with contextlib.suppress(OSError):  # the next flip tries again
                _clear(sets, keep=number)
        finally:
            os.close(sets)


def _target(name: str, number: int) -> str:
    return f"../../{COMPONENTS}/{name}/{records.generation_name(number)}"


def _live_set(group_fd: int) -> str | None:
    try:
        return os.readlink(LIVE, dir_fd=group_fd).removeprefix(f"{SETS}/")
    except FileNotFoundError:
        return None


def _targets(group_fd: int, number: str | None) -> dict[str, str]:
    """Where each component of a set leads."""
    if number is None:
        return {}
    fd = os.open(f"{SETS}/{number}", DIRECTORY, dir_fd=group_fd)
    try:
        return {name: os.readlink(name, dir_fd=fd) for name in os.listdir(fd)}
    finally:
        os.close(fd)


def _clear(sets_fd: int, *, keep: str | None) -> None:
    """Removes every other set: old ones, and those that never became live."""
    for name in os.listdir(sets_fd):
        if name != keep:
            durable.remove_tree(name, dir_fd=sets_fd)
