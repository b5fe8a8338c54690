"""Makes room in a stage that began as a snapshot of its base: out with what does not stay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable, Iterator

from ..manifest import Action
from ..tree import State
from . import durable
from .beneath import DIRECTORY, Beneath
from .work import Work


def drop_strangers(tree: Beneath, known: Container[str], work: Work) -> int:
    """Removes what the base holds beside its `known` entries, by name: nobody signed that.

    Gives how many went, each folder counted once.
    Raises OSError, CancelledError.
    """
    return _drop_strangers(tree.fd, "", known, work)


def _drop_strangers(folder: int, prefix: str, known: Container[str], work: Work) -> int:
    work.check()
    gone = 0
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in found:
        if prefix + name not in known:
            with writable(folder):
                durable.remove_tree(name, dir_fd=folder)
            gone += 1
        elif is_dir:
            below = os.open(name, DIRECTORY, dir_fd=folder)
            try:
                gone += _drop_strangers(below, f"{prefix}{name}/", known, work)
            finally:
                os.close(below)
    return gone


@contextlib.contextmanager
def writable(folder: int) -> Iterator[None]:
    """Lets its owner change a folder for the time of the with block. Raises OSError."""
    mode = os.fstat(folder).st_mode & 0o7777
    if mode & 0o700 != 0o700:
        os.fchmod(folder, mode | 0o700)
    try:
        yield
    finally:
        if mode & 0o700 != 0o700:
            os.fchmod(folder, mode)


def clear_for(tree: Beneath, actions: Iterable[Action]) -> list[tuple[str, State]]:
    """Removes every entry that goes or is made anew.

    Gives the folders that stay but were opened up for it, with the state that
    they must have at the end.  Raises OSError.
    """
    ordered = list(actions)
    staying = {
        a.path: a.result
        for a in ordered
        if a.result is not None and a.old is not None and a.old.kind == a.result.kind == "dir"
    }
    opened: dict[str, State] = {}
    changing = [action for action in ordered if action.do != "keep"]
    for action in changing:
        head = action.path.rpartition("/")[0]
        state = staying.get(head)
        if head in opened or state is None:
            continue
        with tree.opened(head, DIRECTORY) as fd:
            mode = os.fstat(fd).st_mode & 0o7777
            if mode & 0o700 != 0o700:
                os.fchmod(fd, mode | 0o700)
                opened[head] = state
    going: set[str] = set()
    for action in changing:
        if action.old is None or action.do == "chmod":
            continue
        if action.path.rpartition("/")[0] not in going:  # else it goes with its folder
            with tree.parent(action.path) as (fd, name):
                durable.remove_tree(name, dir_fd=fd)
        if action.old.kind == "dir":
            going.add(action.path)
    return list(opened.items())
