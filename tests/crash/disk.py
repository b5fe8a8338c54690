"""What a disk holds: images without their zeros, logs of writes and flushes, and crash states.

A disk promises no more than this: what was written before a completed flush is
there; of what was written since, any part may be, sector by sector.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

SECTOR = 512
_CHUNK = 64 << 10
_ZERO = bytes(_CHUNK)
_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Bytes at a place."""

    offset: int
    data: bytes


class Image(msgspec.Struct, frozen=True):
    """A whole disk; what no run covers is zero."""

    size: int
    runs: list[Run]


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One request that the disk received, in order."""

    kind: Literal["write", "flush"]
    offset: int = 0
    data: bytes = b""


class Log(msgspec.Struct, frozen=True):
    """A disk, what was done to it, and how many steps it had seen when success was reported.

    midway  the same for the first success of several
    """

    base: Image
    steps: list[Step]
    success: int | None = None
    midway: int | None = None


class State(msgspec.Struct, frozen=True, order=True):
    """One way in which the power may have gone.

    at    steps that the disk had received
    kept  of the writes since the last flush, the ones that are there in full
    torn  others of them, of which only some sectors are: write and bits, sector 0 the lowest
    """

    at: int
    kept: tuple[int, ...] = ()
    torn: tuple[tuple[int, str], ...] = ()

    @property
    def is_torn(self) -> bool:
        """Whether a write is there in part."""
        return bool(self.torn)


def scan(data: bytes | mmap.mmap | memoryview, size: int) -> Image:
    """An image from its bytes."""
    runs: list[Run] = []
    start: int | None = None
    view = memoryview(data)
    for at in range(0, size, _CHUNK):
        piece = view[at : min(at + _CHUNK, size)]
        empty = piece == _ZERO[: len(piece)]
        if empty and start is not None:
            runs.append(Run(start, bytes(view[start:at])))
            start = None
        elif not empty and start is None:
            start = at
    if start is not None:
        runs.append(Run(start, bytes(view[start:size])))
    view.release()
    return Image(size, runs)


def read_image(path: Path) -> Image:
    """An image from its file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return scan(data, len(data))


def lay_out(fd: int, image: Image, writes: Iterable[Run]) -> None:
    """Makes the file `fd` this image with these writes on top."""
    if os.fstat(fd).st_size != image.size:
        os.ftruncate(fd, image.size)
    _punch(fd, image.size)
    for run in image.runs:
        os.pwrite(fd, run.data, run.offset)
    for run in writes:
        os.pwrite(fd, run.data, run.offset)


def last_flush(log: Log, at: int) -> int:
    """The first step that no flush has covered when `at` steps are done."""
    for index in range(at - 1, -1, -1):
        if log.steps[index].kind == "flush":
            return index + 1
    return 0


def writes_of(log: Log, state: State) -> Iterator[Run]:
    """What is on the disk in this state beyond the base, in the order of the log."""
    torn = dict(state.torn)
    kept = set(state.kept)
    safe = last_flush(log, state.at)
    for index, step in enumerate(log.steps[: state.at]):
        if step.kind != "write":
            continue
        if index < safe or index in kept:
            yield Run(step.offset, step.data)
        elif index in torn:
            mask = int(torn[index], 16)
            for sector in range(0, len(step.data), SECTOR):
                if mask >> (sector // SECTOR) & 1:
                    yield Run(step.offset + sector, step.data[sector : sector + SECTOR])


def _punch(fd: int, size: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(
        ctypes.c_int(fd), ctypes.c_int(_PUNCH), ctypes.c_long(0), ctypes.c_long(size)
    )
    if done != 0:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
