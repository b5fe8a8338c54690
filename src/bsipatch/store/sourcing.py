"""Finds the right bytes of a file that is rotten: in other generations, or where the user says.

Whatever is found is verified in the new file itself, so that a rotten or hostile
source costs time and nothing else.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import delta
from ..errors import BsipatchError, CancelledError, NotFoundError
from ..limits import Limits
from ..package import Package
from ..tree import Entry, Tree, block_digests, digest_of_blocks, verity_digest_fd
from . import records, snapshot
from .beneath import CREATE, READ, Beneath
from .durable import sync_fd, system_calls
from .store import Store
from .surveying import forget
from .work import Work

_BLOCK = 4096
#: ways to put a file together from several rotten copies that are tried
_MOST_COMBINATIONS = 4096


@dataclass(frozen=True, slots=True)
class Made:
    """A new file that has the right content: its name, and where its bytes came from.

    blocks  how many of the rotten file's 4 KiB blocks were wrong; None when there was none
    """

    name: str
    source: str
    blocks: int | None


@contextmanager
def temporary_name(folder: int) -> Iterator[str]:
    """A fresh name in `folder`; what still has it at the end is removed."""
    name = f"{records.REPAIR_PREFIX}{secrets.token_hex(6)}{records.STAGE_SUFFIX}"
    try:
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)


class Sources:
    """Everything that may hold a file's content. Use as a context manager; for one thread."""

    def __init__(
        self,
        store: Store,
        trees: Mapping[int, tuple[Beneath, Tree]],
        extra: Sequence[str | os.PathLike[str]],
        work: Work,
    ) -> None:
        """`trees`: the open generations; `extra`: update files and folders named by the user."""
        self._trees, self._extra, self._work = trees, tuple(map(Path, extra)), work
        self._store, self._strategy = store, store.identity.strategy
        self._limits: Limits = store.limits
        self._stack = ExitStack()
        self._folders: list[tuple[str, Beneath]] = []
        self._updates: list[tuple[str, Package]] = []
        self._copies: dict[tuple[int, str], list[tuple[int, str]]] = {}
        for number, (_, tree) in trees.items():
            for entry in tree.files:
                self._copies.setdefault((entry.size, entry.digest), []).append((number, entry.path))

    def __enter__(self) -> Sources:
        """Opens what the user named. Raises NotFoundError, TrustError, FormatError."""
        try:
            for path in self._extra:
                with system_calls("opening a source", path):
                    if path.is_dir():
                        self._folders.append((str(path), self._stack.enter_context(Beneath(path))))
                        continue
                    if not path.exists():
                        raise NotFoundError("no such update file or folder", file=path)
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                    self._stack.callback(os.close, fd)
                opened = Package.open(fd, self._store.verify, limits=self._limits)
                self._updates.append((str(path), self._stack.enter_context(opened)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def make(self, number: int, entry: Entry, folder: int, name: str) -> Made | None:
        """Makes `name` in `folder` with the entry's content and mode; None when nobody has it.

        `number` is the generation it is for, whose own rotten file is looked at,
        too.  The file is synced.  Raises OSError, CancelledError.
        """
        rotten = self._blocks_of(number, entry)
        for other, path in self._copies.get((entry.size, entry.digest), ()):
            if (other, path) == (number, entry.path):
                continue
            if self._from_generation(other, path, entry, folder, name):
                return self._made(entry, folder, name, f"generation {other}", rotten)
        for source, tree in self._folders:
            if self._from_folder(tree, entry, folder, name):
                return self._made(entry, folder, name, source, rotten)
        for source, package in self._updates:
            if self._from_update(package, entry, folder, name):
                return self._made(entry, folder, name, source, rotten)
        if self._from_pieces(number, entry, folder, name):
            return self._made(entry, folder, name, "the sound blocks of several copies", rotten)
        return None

    def _made(
        self, entry: Entry, folder: int, name: str, source: str, rotten: list[bytes | None] | None
    ) -> Made:
        fd = os.open(name, READ, dir_fd=folder)
        try:
            sync_fd(fd)
            if rotten is None:
                return Made(name, source, None)
            right = block_digests(fd, entry.size)
            wrong = sum(a != b for a, b in itertools.zip_longest(rotten, right))
            return Made(name, source, wrong)
        finally:
            os.close(fd)

    def _from_generation(
        self, number: int, path: str, entry: Entry, folder: int, name: str
    ) -> bool:
        tree = self._trees[number][0]
        try:
            with tree.parent(path) as (old_dir, old_name):
                status = os.stat(old_name, dir_fd=old_dir, follow_symlinks=False)
                if status.st_size != entry.size:
                    return False
                private = (status.st_mode & 0o7777) != entry.mode or bool(entry.xattrs)
                strategy = self._store.generation(number).strategy
                snapshot.place(strategy, old_dir, old_name, folder, name, private=private)
        except (OSError, BsipatchError):
            return self._drop(folder, name)
        return self._is_right(entry, folder, name)

    def _from_folder(self, tree: Beneath, entry: Entry, folder: int, name: str) -> bool:
        try:
            with tree.parent(entry.path) as (old_dir, old_name):
                status = os.stat(old_name, dir_fd=old_dir, follow_symlinks=False)
                if status.st_size != entry.size:
                    return False
                snapshot.place("reflink", old_dir, old_name, folder, name, private=True)
        except (OSError, BsipatchError):
            return self._drop(folder, name)
        return self._is_right(entry, folder, name)

    def _from_update(self, package: Package, entry: Entry, folder: int, name: str) -> bool:
        manifest = package.manifest
        old = {action.path: action.old for action in manifest.actions}
        for action in manifest.actions:
            result = action.result
            if result is None or action.payload is None:
                continue
            if (result.size, result.digest) != (entry.size, entry.digest):
                continue
            base = old.get(action.base)
            try:
                fd = os.open(name, CREATE, 0o600, dir_fd=folder)
                try:
                    if manifest.payloads[action.payload].kind != "patch":
                        package.expand(action.payload, fd)
                    elif base is None or not self._patch(
                        package, action.payload, base.at(action.base), folder, fd
                    ):
                        continue
                finally:
                    os.close(fd)
            except CancelledError:
                raise
            except (OSError, BsipatchError):
                self._drop(folder, name)
                continue
            if self._is_right(entry, folder, name):
                return True
        return self._drop(folder, name)

    def _patch(self, package: Package, index: int, base: Entry, folder: int, new: int) -> bool:
        """Applies a patch to whichever generation still holds its old file."""
        for number, path in self._copies.get((base.size, base.digest), ()):
            with temporary_name(folder) as old_name:
                if not self._from_generation(number, path, base, folder, old_name):
                    continue
                fd = os.open(old_name, READ, dir_fd=folder)
                try:
                    size = package.manifest.payloads[index].size
                    delta.apply_to_fd(
                        fd, package.payload(index), new, new_size=size, limits=self._limits
                    )
                finally:
                    os.close(fd)
                return True
        return False

    def _from_pieces(self, number: int, entry: Entry, folder: int, name: str) -> bool:
        """From copies that are all rotten, but not in the same blocks."""
        with ExitStack() as stack:
            copies: dict[tuple[int, int], tuple[int, list[bytes | None]]] = {}
            for other, path in self._copies.get((entry.size, entry.digest), ()):
                with suppress(OSError, BsipatchError):
                    fd = stack.enter_context(self._trees[other][0].opened(path))
                    status = os.fstat(fd)
                    key = (status.st_dev, status.st_ino)
                    if status.st_size == entry.size and key not in copies:
                        copies[key] = (fd, block_digests(fd, entry.size))
            chosen = _combine([blocks for _, blocks in copies.values()], entry)
            if chosen is None:
                return False
            fds = [fd for fd, _ in copies.values()]
            new = os.open(name, CREATE, 0o600, dir_fd=folder)
            try:
                for block, which in enumerate(chosen):
                    data = os.pread(fds[which], _BLOCK, block * _BLOCK)
                    os.pwrite(new, data, block * _BLOCK)
            finally:
                os.close(new)
        return self._is_right(entry, folder, name)

    def _blocks_of(self, number: int, entry: Entry) -> list[bytes | None] | None:
        """The blocks of the rotten file itself; None when there is no file."""
        with suppress(OSError, BsipatchError), self._trees[number][0].opened(entry.path) as fd:
            return block_digests(fd, min(os.fstat(fd).st_size, entry.size))
        return None

    def _is_right(self, entry: Entry, folder: int, name: str) -> bool:
        """Whether the new file has the entry's content; gives it its mode, or removes it."""
        self._work.check()
        try:
            fd = os.open(name, READ, dir_fd=folder)
            try:
                forget(fd)
                if verity_digest_fd(fd, most=entry.size) != (entry.digest, entry.size):
                    return self._drop(folder, name)
                if os.fstat(fd).st_mode & 0o7777 != entry.mode:
                    os.fchmod(fd, entry.mode)
            finally:
                os.close(fd)
        except (OSError, BsipatchError):
            return self._drop(folder, name)
        return True

    def _drop(self, folder: int, name: str) -> bool:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        return False


def _combine(copies: list[list[bytes | None]], entry: Entry) -> list[int] | None:
    """For each block the copy to take it from, so that the whole has the entry's digest."""
    choices: list[dict[bytes, int]] = []
    combinations = 1
    for values in zip(*copies, strict=True):
        found: dict[bytes, int] = {}
        for which, value in enumerate(values):
            if value is not None:
                found.setdefault(value, which)
        combinations *= len(found)
        if not 0 < combinations <= _MOST_COMBINATIONS:
            return None
        choices.append(found)
    if len(copies) < 2:
        return None
    open_blocks = [index for index, found in enumerate(choices) if len(found) > 1]
    blocks = [next(iter(found)) for found in choices]
    for pick in itertools.product(*(choices[index] for index in open_blocks)):
        for index, value in zip(open_blocks, pick, strict=True):
            blocks[index] = value
        if digest_of_blocks(blocks, entry.size) == entry.digest:
            return [choices[index][value] for index, value in enumerate(blocks)]
    return None
