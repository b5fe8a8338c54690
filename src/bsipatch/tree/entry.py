"""What a tree consists of, and the one digest that stands for all of it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Literal

import msgspec

__all__ = ["TREE_DIGEST_DOMAIN", "Entry", "Kind", "State", "Tree", "path_order"]

Kind = Literal["file", "dir", "symlink"]

TREE_DIGEST_DOMAIN = b"bsipatch tree 1\0"

_KIND_BYTES: Mapping[str, bytes] = {"file": b"f", "dir": b"d", "symlink": b"l"}


def path_order(path: str) -> bytes:
    """The sort key of the one order of paths: their UTF-8 bytes. Parents precede children."""
    return path.encode("utf-8")


class State(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is at a path: everything about an entry but its name.

    kind    "file", "dir" or "symlink"
    mode    permission bits (0o755 ...) of files and directories; 0 for links, which have none
    size    bytes of a file; 0 for others
    digest  of a file: fs-verity's SHA-256 digest (4 KiB blocks, no salt) as hex; "" for others
    target  of a link; "" for others
    xattrs  (name, value) sorted by the name's bytes; empty unless the tree was walked with them
    """

    kind: Kind
    mode: int = 0
    size: int = 0
    digest: str = ""
    target: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def same_content(self, other: State) -> bool:
        """Whether both are of one kind with the same bytes or target, whatever their modes."""
        return (self.kind, self.size, self.digest, self.target) == (
            other.kind,
            other.size,
            other.digest,
            other.target,
        )

    def at(self, path: str) -> Entry:
        """This state as the entry at `path`."""
        return Entry(
            path=path,
            kind=self.kind,
            mode=self.mode,
            size=self.size,
            digest=self.digest,
            target=self.target,
            xattrs=self.xattrs,
        )


class Entry(State, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file, directory or symlink; `path` is relative, POSIX, UTF-8, NFC."""

    path: str

    @property
    def state(self) -> State:
        """The entry without its name."""
        return State(
            kind=self.kind,
            mode=self.mode,
            size=self.size,
            digest=self.digest,
            target=self.target,
            xattrs=self.xattrs,
        )


_HEAD = struct.Struct("<cIQIIII")


def _canonical(entry: Entry) -> bytes:
    """One entry's bytes in the tree digest: each variable part goes with its length."""
    xattrs = b""
    for name, value in entry.xattrs:
        xattrs += struct.pack("<II", len(name.encode()), len(value)) + name.encode() + value
    path, target = path_order(entry.path), entry.target.encode()
    head = _HEAD.pack(
        _KIND_BYTES[entry.kind],
        entry.mode,
        entry.size,
        len(path),
        len(target),
        len(entry.digest) // 2,
        len(entry.xattrs),
    )
    return head + path + target + bytes.fromhex(entry.digest) + xattrs


class Tree:
    """Immutable entries in the order of their paths' bytes, found by path, with one digest.

    The tree's root directory itself is not an entry: its name and mode belong to whoever holds it.
    Built by walk(), or from entries that check_tree() has passed.
    """

    __slots__ = ("__dict__", "entries")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries: tuple[Entry, ...] = tuple(sorted(entries, key=lambda e: path_order(e.path)))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Tree of {len(self)} entries, {self.size} bytes, {self.digest[:16]}>"

    def __contains__(self, path: object) -> bool:
        return path in self._by_path

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries}

    def get(self, path: str) -> Entry | None:
        """The entry at `path`, or None."""
        return self._by_path.get(path)

    @cached_property
    def size(self) -> int:
        """Sum of all file sizes in bytes."""
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> tuple[Entry, ...]:
        """The regular files, in order."""
        return tuple(entry for entry in self.entries if entry.kind == "file")

    @cached_property
    def digest(self) -> str:
        """SHA-256 as hex over every entry: content, type, mode, link target, name, xattrs.

        Domain-separated, so that it can never be taken for the digest of a file.
        """
        digest = hashlib.sha256(TREE_DIGEST_DOMAIN)
        digest.update(struct.pack("<Q", len(self.entries)))
        for entry in self.entries:
            digest.update(_canonical(entry))
        return digest.hexdigest()
