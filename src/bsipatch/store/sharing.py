"""Writes a patched file so that blocks which did not change are shared with the old one.

On file systems that clone ranges (btrfs, XFS, overlays over them) what is equal
to the old file at the same offset is not written: the new file refers to the
old one's blocks.  A fix of some bytes to a large file then costs some blocks.
Everything else is written as usual, and where nothing stays in its place (code
moved up by a few bytes) the comparing soon stops.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from collections.abc import Iterator, Sequence

from ..errors import OldMismatchError, from_os_error
from ..output import write_at

_FICLONERANGE = 0x4020940D
_RANGE = struct.Struct("=qQQQ")
#: windows in which nothing was equal, after which no more is compared
_PATIENCE = 16
#: shortest run that is shared, in bytes: a shorter one costs more to refer to than to write
LEAST_RUN = 16 << 10
_PIECE = 1 << 20
_CANNOT = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EPERM,
        errno.ETXTBSY,
    }
)


class SharingWriter:
    """A delta.Sink into `new`, an empty file, next to `old`; neither is closed here.

    Every method may be called from several threads at once, but for finish(), which
    must follow the last write or fill: what can be shared is gathered into few large
    requests, since each makes the file system write a record.
    """

    def __init__(self, old: int, new: int, *, block: int = 0) -> None:
        """`block`: bytes of the file system's blocks, 0 to ask it."""
        self._old, self._new = old, new
        self._block = block or max(4096, os.fstatvfs(new).f_bsize)
        self._old_size = os.fstat(old).st_size
        self._shareable = 0  # bytes from the start within which whole blocks can be shared
        self._fills: Sequence[tuple[int, int]] = ()
        self._lock = threading.Lock()
        self._fruitless = 0
        self._equal: list[tuple[int, int]] = []  # found, and not shared yet
        #: bytes that refer to the old file's blocks, and bytes that were written
        self.shared = self.written = 0

    def begin(self, size: int, fills: Sequence[tuple[int, int]]) -> None:
        """See delta.Sink. Raises NoSpaceError, SystemCallError."""
        self._fills = sorted(fills)
        if sys.platform == "linux":
            self._shareable = min(size, self._old_size) // self._block * self._block
        try:
            os.ftruncate(self._new, size)
        except OSError as error:
            raise from_os_error(error) from error

    def write(self, offset: int, view: memoryview) -> None:
        """See delta.Sink. Raises NoSpaceError, SystemCallError."""
        for start, end in self._outside_fills(offset, offset + len(view)):
            self._place(start, view[start - offset : end - offset])

    def fill(self, offset: int, view: memoryview) -> None:
        """See delta.Sink. Raises NoSpaceError, SystemCallError."""
        self.finish()  # who fills may read what is there
        self._place(offset, view)
        self.finish()

    def finish(self) -> None:
        """Refers to the old file's blocks wherever they were found equal.

        Raises NoSpaceError, SystemCallError.
        """
        with self._lock:
            waiting, self._equal = sorted(self._equal), []
        merged: list[tuple[int, int]] = []
        for start, end in waiting:
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        for start, end in merged:
            if not self._share(start, end - start):
                self._copy(start, end)

    def _outside_fills(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for at, length in self._fills:
            if at >= end:
                break
            if at + length > start:
                if at > start:
                    yield start, at
                start = at + length
        if start < end:
            yield start, end

    def _place(self, offset: int, view: memoryview) -> None:
        """Shares or writes the bytes at `offset`."""
        first = -(-offset // self._block) * self._block
        last = min(offset + len(view), self._shareable) // self._block * self._block
        if last - first < LEAST_RUN or self._fruitless >= _PATIENCE:
            self._write(offset, view)
            return
        at = offset
        for start, end in self._equal_runs(first, bytes(view[first - offset : last - offset])):
            with self._lock:
                self._equal.append((start, end))
            self._write(at, view[at - offset : start - offset])
            at = end
        self._write(at, view[at - offset :])
        with self._lock:
            self._fruitless = self._fruitless + 1 if at == offset else 0

    def _equal_runs(self, first: int, made: bytes) -> list[tuple[int, int]]:
        """(start, end) of the runs of blocks in which the old file has the same bytes."""
        try:
            had = os.pread(self._old, len(made), first)
        except OSError:
            return []  # not read here, so not shared; who needs these bytes meets the error
        if len(had) != len(made):
            return []
        if had == made:
            return [(first, first + len(made))]
        runs: list[tuple[int, int]] = []
        step = self._block
        for at in range(0, len(made), step):
            if had[at : at + step] == made[at : at + step]:
                if runs and runs[-1][1] == first + at:
                    runs[-1] = (runs[-1][0], first + at + step)
                else:
                    runs.append((first + at, first + at + step))
        return [(start, end) for start, end in runs if end - start >= LEAST_RUN]

    def _share(self, offset: int, length: int) -> bool:
        import fcntl

        try:
            fcntl.ioctl(self._new, _FICLONERANGE, _RANGE.pack(self._old, offset, length, offset))
        except OSError as error:
            if error.errno in _CANNOT:
                with self._lock:
                    self._fruitless = _PATIENCE
                return False
            raise from_os_error(error) from error
        with self._lock:
            self.shared += length
        return True

    def _copy(self, start: int, end: int) -> None:
        """Writes what could not be shared after all: it is in the old file, byte for byte."""
        while start < end:
            try:
                data = os.pread(self._old, min(_PIECE, end - start), start)
            except OSError as error:
                raise from_os_error(error) from error
            if not data:
                raise OldMismatchError("the old file shrank while it was read")
            self._write(start, memoryview(data))
            start += len(data)

    def _write(self, offset: int, view: memoryview) -> None:
        if view:
            write_at(self._new, view, offset)
            with self._lock:
                self.written += len(view)
