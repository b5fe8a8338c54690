"""How much disk each generation takes, and how much of that it shares.

Three kinds of sharing are seen: hard links (one inode under several names),
cloned blocks (the file system's map of a file's extents says which are shared)
and, for the whole store, blocks that several generations refer to, which are
counted once by where they lie on the disk.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import durable, records
from .beneath import DIRECTORY, READ
from .work import Work

_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQI12x")
_BATCH = 128
_LAST, _UNKNOWN, _ENCODED, _INLINE, _SHARED = 0x1, 0x2, 0x8, 0x200, 0x2000
_NOWHERE = _UNKNOWN | _ENCODED | _INLINE


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of one generation's tree.

    apparent   sum of its files' sizes
    exclusive  what its removal would free
    shared     on disk, but held by another generation or by somebody outside as well
    """

    generation: int
    apparent: int
    exclusive: int
    shared: int


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Every generation, and what all take together with each block counted once, in bytes."""

    generations: tuple[Usage, ...]
    total: int

    @property
    def apparent(self) -> int:
        """What the generations would take if nothing were shared."""
        return sum(usage.apparent for usage in self.generations)


@dataclass(slots=True)
class _File:
    """One inode: who names it, and where its bytes lie."""

    links: int
    size: int
    plain: int
    extents: list[tuple[int, int]]
    names: dict[int, int] = field(default_factory=dict)


def measure(root_fd: int, file: str, *, work: Work | None = None) -> DiskUsage:
    """Looks at every file of every generation, reading none. Takes no lock.

    A generation that is removed meanwhile is left out.  Raises SystemCallError,
    CancelledError.
    """
    work = work or Work()
    files: dict[tuple[int, int], _File] = {}
    numbers: list[int] = []
    with durable.system_calls("measuring the store", file):
        for number in records.generation_numbers(root_fd):
            place = f"{records.generation_name(number)}/{records.TREE}"
            try:
                fd = os.open(place, DIRECTORY, dir_fd=root_fd)
            except FileNotFoundError:
                continue
            try:
                for found in _visit(fd, work):
                    _note(files, number, *found)
            finally:
                os.close(fd)
            numbers.append(number)
    usages = tuple(_usage(number, files) for number in numbers)
    shared = _union(extent for entry in files.values() for extent in entry.extents)
    return DiskUsage(usages, shared + sum(entry.plain for entry in files.values()))


def _visit(folder: int, work: Work) -> Iterator[tuple[int, str, os.stat_result]]:
    """Every regular file as (folder, name, status); no link is followed."""
    work.check()
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            below = os.open(entry.name, DIRECTORY, dir_fd=folder)
            try:
                yield from _visit(below, work)
            finally:
                os.close(below)
        elif entry.is_file(follow_symlinks=False):
            yield folder, entry.name, entry.stat(follow_symlinks=False)


def _note(
    files: dict[tuple[int, int], _File],
    number: int,
    folder: int,
    name: str,
    status: os.stat_result,
) -> None:
    key = (status.st_dev, status.st_ino)
    known = files.get(key)
    if known is None:
        extents = _shared_extents(folder, name) if status.st_blocks else []
        on_disk = status.st_blocks * 512
        plain = max(0, on_disk - sum(length for _, length in extents))
        known = files[key] = _File(status.st_nlink, status.st_size, plain, extents)
    known.names[number] = known.names.get(number, 0) + 1


def _usage(number: int, files: dict[tuple[int, int], _File]) -> Usage:
    apparent = exclusive = shared = 0
    for entry in files.values():
        names = entry.names.get(number, 0)
        if not names:
            continue
        apparent += entry.size * names
        shared += sum(length for _, length in entry.extents)
        if names == entry.links:
            exclusive += entry.plain
        else:
            shared += entry.plain
    return Usage(number, apparent, exclusive, shared)


def _union(extents: Iterator[tuple[int, int]]) -> int:
    """Bytes that the extents cover, overlaps counted once."""
    total = end = 0
    for start, length in sorted(extents):
        total += max(0, start + length - max(start, end))
        end = max(end, start + length)
    return total


def _shared_extents(folder: int, name: str) -> list[tuple[int, int]]:
    """(place on the disk, bytes) of the blocks of a file that something else refers to, too."""
    if sys.platform != "linux":
        return []
    fd = os.open(name, READ, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        return [
            (physical, length)
            for physical, length, flags in extents_of(fd)
            if flags & _SHARED and not flags & _NOWHERE
        ]
    finally:
        os.close(fd)


def extents_of(fd: int) -> Iterator[tuple[int, int, int]]:
    """(place on the disk, bytes, flags) of each extent; nothing where there is no such map."""
    import fcntl

    start = 0
    while True:
        request = bytearray(_HEAD.size + _BATCH * _EXTENT.size)
        _HEAD.pack_into(request, 0, start, (1 << 64) - 1 - start, 0, 0, _BATCH, 0)
        try:
            fcntl.ioctl(fd, _FIEMAP, request)
        except OSError:
            return
        mapped = _HEAD.unpack_from(request)[3]
        for index in range(mapped):
            logical, physical, length, _, _, flags = _EXTENT.unpack_from(
                request, _HEAD.size + index * _EXTENT.size
            )
            yield physical, length, flags
            start = logical + length
            if flags & _LAST:
                return
        if not mapped:
            return
