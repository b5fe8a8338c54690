"""A file system that keeps no more than it must: what no sync has covered may be there or not.

Real file systems keep more than they promise, and so hide a missing sync behind
another.  Here an operation is watched at its system calls, and states are made
in which each file and each directory stands, independently of all others, at
any version since its own last sync.  One thing is kept together: a rename from
one directory to another, or an exchange of two, is one step in both.  No mount,
no root: the states are laid out as plain trees.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from bsipatch.store import durable

#: a directory's names and inodes, its attributes among them; a file's mode and bytes; a link's
#: target
Node: TypeAlias = dict[str, int] | tuple[int, bytes] | str
Snapshot: TypeAlias = dict[int, Node]
#: how the key of an attribute begins among a directory's names; its value stands as a number
_ATTRIBUTE = "\0"
#: of a step that changed several directories at once: for each the version that it made
Couple: TypeAlias = dict[int, int]


@dataclass(frozen=True)
class Moment:
    """What may be there if the power goes now.

    versions  for each inode those that it may stand at, the one that is sure to last first
    first     the number of that one, where earlier versions are ruled out
    couples   steps of which all or nothing is there
    """

    versions: dict[int, list[Node]]
    first: dict[int, int] = field(default_factory=dict)
    couples: tuple[Couple, ...] = ()

    def fits(self, chosen: dict[int, int]) -> bool:
        """Whether no step is there in part; `chosen` are places in the lists of versions."""
        for couple in self.couples:
            done = {chosen[ino] + self.first.get(ino, 0) >= made for ino, made in couple.items()}
            if len(done) > 1:
                return False
        return True


_CHANGES = (
    *("write", "unlink", "rmdir", "mkdir", "symlink", "link", "ftruncate", "fchmod"),
    *("setxattr", "removexattr"),
)
_RANDOM = 4


class Tracer:
    """Watches this process change files below `place` until the with block ends."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.root = place.stat().st_ino
        self._undo: list[tuple[Any, str, Any]] = []
        self._versions = {ino: [node] for ino, node in self._look().items()}
        self._first: dict[int, int] = {}
        self._couples: list[Couple] = []
        #: one for every moment at which something changed
        self.moments: list[Moment] = []
        self._note()

    def __enter__(self) -> Tracer:
        for name in _CHANGES:
            self._hook(os, name, lambda *_: self._changed())
        self._hook(os, "rename", lambda *_: self._changed(together=True))
        self._hook(os, "open", self._opened)
        self._hook(os, "fsync", lambda result, fd: self._synced(os.fstat(fd).st_ino))
        self._hook_durable("_renameat2", lambda: self._changed(together=True))
        self._hook_durable("sync_file_system", self._all_synced)
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, plain in reversed(self._undo):
            setattr(owner, name, plain)

    def _hook(self, owner: Any, name: str, after: Callable[..., None]) -> None:
        self._set(owner, name, _wrapped(getattr(owner, name), after))

    def _hook_durable(self, name: str, after: Callable[[], None]) -> None:
        """A function of durable.py, wherever it was imported to."""
        plain = getattr(durable, name)
        wrapper = _wrapped(plain, lambda *_: after())
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("bsipatch.") and (
                getattr(module, name, None) is plain
            ):
                self._set(module, name, wrapper)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _opened(self, _: int, path: object, flags: int, *more: object) -> None:
        if flags & (os.O_CREAT | os.O_TRUNC):
            self._changed()

    def _changed(self, *, together: bool = False) -> None:
        """`together`: what changed now changed in one step."""
        made: Couple = {}
        for ino, node in self._look().items():
            known = self._versions.get(ino)
            if known is None:
                self._versions[ino] = [_empty(node), node] if _empty(node) != node else [node]
            elif known[-1] != node:
                self._versions[ino] = [*known, node]
                if isinstance(node, dict):
                    made[ino] = self._first.get(ino, 0) + len(known)
        if together and len(made) > 1:
            self._couples.append(made)
        self._note()

    def _note(self) -> None:
        self.moments.append(Moment(dict(self._versions), dict(self._first), tuple(self._couples)))

    def _synced(self, ino: int) -> None:
        self._changed()
        if ino in self._versions:
            self._lasts(ino, self._first.get(ino, 0) + len(self._versions[ino]) - 1)
            self._note()

    def _lasts(self, ino: int, number: int) -> None:
        """Whatever happens, this inode stands at that version or a later one."""
        gone = number - self._first.get(ino, 0)
        if gone <= 0:
            return
        self._versions[ino] = self._versions[ino][gone:]
        self._first[ino] = number
        for couple in [c for c in self._couples if ino in c and c[ino] <= number]:
            if couple in self._couples:
                self._couples.remove(couple)
                for other, made in couple.items():
                    self._lasts(other, made)

    def _all_synced(self) -> None:
        self._changed()
        for ino, known in self._versions.items():
            self._first[ino] = self._first.get(ino, 0) + len(known) - 1
        self._versions = {ino: known[-1:] for ino, known in self._versions.items()}
        self._couples.clear()
        self._note()

    def _look(self) -> Snapshot:
        """Everything below the place, by inode; inodes that nobody names any more stay as known."""
        found: Snapshot = {}
        waiting = [(str(self._place), self.root)]
        while waiting:
            folder, ino = waiting.pop()
            names = {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    names[entry.name] = status.st_ino
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((entry.path, status.st_ino))
                    elif stat.S_ISLNK(status.st_mode):
                        found[status.st_ino] = os.readlink(entry.path)
                    elif status.st_ino not in found:
                        with open(entry.path, "rb") as file:
                            found[status.st_ino] = (stat.S_IMODE(status.st_mode), file.read())
            with contextlib.suppress(OSError):  # a system without attributes
                for name in os.listxattr(folder):
                    if name.startswith("user."):
                        value = b"\1" + os.getxattr(folder, name)
                        names[_ATTRIBUTE + name] = int.from_bytes(value, "big")
            found[ino] = names
        return found


def _wrapped(plain: Callable[..., Any], after: Callable[..., None]) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **named: Any) -> Any:
        result = plain(*arguments, **named)
        after(result, *arguments)
        return result

    return wrapper


def _empty(node: Node) -> Node:
    """What is sure of something new that was never synced."""
    if isinstance(node, dict):
        return {}
    return (0o600, b"") if isinstance(node, tuple) else node


def pick(moments: list[Moment], seed: int) -> Iterator[tuple[int, Snapshot]]:
    """States to look at, with the moment of each: all old, all new, one apart, and by chance."""
    draw = random.Random(seed)
    for number, moment in enumerate(moments):
        for chosen in _choices(moment, draw):
            if moment.fits(chosen):
                yield number, {ino: moment.versions[ino][at] for ino, at in chosen.items()}
        for state in _apart(moment):
            yield number, state


def _choices(moment: Moment, draw: random.Random) -> Iterator[dict[int, int]]:
    """A place in the list of versions for each inode."""
    old = dict.fromkeys(moment.versions, 0)
    new = {ino: len(known) - 1 for ino, known in moment.versions.items()}
    yield old
    yield new
    open_ones = [ino for ino, last in new.items() if last]
    for ino in open_ones:
        yield {**new, ino: 0}
        yield {**old, ino: new[ino]}
    for couple in moment.couples:  # one step alone is there, or alone is not
        made = {ino: at - moment.first.get(ino, 0) for ino, at in couple.items()}
        yield {**old, **made}
        yield {**new, **{ino: at - 1 for ino, at in made.items()}}
    for _ in range(_RANDOM if open_ones else 0):
        yield {ino: draw.randrange(last + 1) for ino, last in new.items()}


def _apart(moment: Moment) -> Iterator[Snapshot]:
    """One name of a directory is there apart from its others."""
    coupled = {ino for couple in moment.couples for ino in couple}
    new = {ino: known[-1] for ino, known in moment.versions.items()}
    for ino, known in moment.versions.items():
        if len(known) > 1 and ino not in coupled:
            for apart in _names_apart(known[0], known[-1]):
                yield {**new, ino: apart}


def _names_apart(old: Node, new: Node) -> Iterator[Node]:
    """A directory in which one name is as it was, or one is as it will be, and all others not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {*old, *new}:
            if old.get(name) != new.get(name):
                for most, one in ((new, old), (old, new)):
                    mixed = {key: ino for key, ino in most.items() if key != name}
                    yield {**mixed, name: one[name]} if name in one else mixed


def lay_out(state: Snapshot, root: int, place: Path) -> None:
    """Makes `place`, an empty folder, this state."""
    made: dict[int, str] = {}
    waiting = [(root, str(place))]
    while waiting:
        ino, folder = waiting.pop()
        names = state[ino]
        assert isinstance(names, dict)
        for name, below in names.items():
            path = f"{folder}/{name}"
            if name.startswith(_ATTRIBUTE):
                value = below.to_bytes(-(-below.bit_length() // 8), "big")[1:]
                os.setxattr(folder, name.removeprefix(_ATTRIBUTE), value)
                continue
            node = state.get(below)
            if isinstance(node, dict):
                os.mkdir(path)
                waiting.append((below, path))
            elif below in made:
                os.link(made[below], path, follow_symlinks=False)
            elif isinstance(node, str):
                os.symlink(node, path)
                made[below] = path
            elif node is not None:
                mode, data = node
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                os.write(fd, data)
                os.fchmod(fd, mode)
                os.close(fd)
                made[below] = path


def reachable(state: Snapshot, root: int) -> int:
    """A number that is the same for states whose trees are."""
    found: list[tuple[str, object]] = []
    waiting: list[tuple[str, int]] = [("", root)]
    while waiting:
        prefix, ino = waiting.pop()
        node = state.get(ino)
        if isinstance(node, dict):
            found.append((prefix, "dir"))
            for name, below in node.items():
                if name.startswith(_ATTRIBUTE):
                    found.append((f"{prefix}/{name}", below))
                else:
                    waiting.append((f"{prefix}/{name}", below))
        else:
            found.append((prefix, node))
    return hash(tuple(sorted(found, key=lambda item: item[0])))


def clear(place: Path) -> None:
    """Empties a folder."""
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
