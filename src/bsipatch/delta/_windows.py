"""Makes the new file window by window on several threads, and hashes it on the way.

What takes longest to decode, the literals, is decoded by a thread of its own meanwhile;
a window waits in the core for those that it needs.
Windows are made in any order into a few buffers, written by whoever made them, and
hashed in order from these buffers by a thread of its own: each byte is made, written
and hashed while it is still in the processor's cache.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable

from bsipatch.delta._hashing import BothFiles
from bsipatch.delta._results import Progress
from bsipatch.errors import CorruptError, NewMismatchError
from bsipatch.limits import Limits
from bsipatch.parallel import Worker, each

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    import hashlib

    from typing_extensions import Buffer

    from bsipatch._core import Patch

Emit = Callable[[int, memoryview], None]
ReadBack = Callable[[int, int], "Buffer"]

#: bytes that are read back at a time
_STEP = 1 << 20


def rebuild(
    handle: Patch,
    jobs: int,
    limits: Limits,
    emit: Emit,
    emit_fill: Emit,
    progress: Progress | None,
    phase: str,
    read_back: ReadBack | None = None,
    both: BothFiles | None = None,
) -> bytes:
    """Makes every window on `jobs` threads, then the ranges that depend on them.

    `handle` has begun at least; this finishes it.
    `emit` gets each window, from several threads at once and in any order; its view
    starts at a page of memory and is good until it returns.  `emit_fill` gets each
    range that is a function of other bytes, once these are made; windows have zeros
    in its place.  With `read_back`, which reads what was emitted, gives the new
    file's SHA-256, else b""; with `both` it is made along with the old file's.
    """
    size = handle.info.new_size
    step = limits.window_size
    fills = _fills(handle, size)
    count = -(-size // step)
    with _Rest(handle) as rest, _Ring(2 * jobs + 3, min(step, size), count) as ring:
        digest = None if read_back is None else _Digest(handle, ring, fills, step, both)
        # One thread more than asked for: of so many, one mostly waits for the disk.

        def stop() -> None:
            ring.stop()
            rest.stop()

        def make(index: int) -> None:
            offset = index * step
            view = ring.take(index, min(step, size - offset))
            if view is None:  # another window has failed
                return
            try:
                handle.window(offset, view)
                emit(offset, view)
            except BaseException:
                stop()
                raise
            ring.made(index) if digest is not None else ring.release(index)

        def done(index: int) -> None:
            if digest is not None:
                digest.check()
            if progress is not None:
                progress(phase, min((index + 1) * step, size), size)

        if digest is not None:
            digest.start()
        try:
            each(count, jobs + 1, make, done=done, cancel=stop)
            rest.wait()
            if digest is not None:
                digest.wait()
        finally:
            ring.stop()
            if digest is not None:
                digest.finish()
    # Not before: a window that is written late would put zeros over them.
    for fill in fills:
        with memoryview(fill.bytes(handle)) as view:
            emit_fill(fill.offset, view)
    return b"" if digest is None or read_back is None else digest.result(size, read_back)


class _Rest:
    """Decodes in a thread of its own what windows wait for."""

    def __init__(self, handle: Patch) -> None:
        from bsipatch._core import Control

        self._handle = handle
        self._control = Control()
        self._error: BaseException | None = None
        self._worker = Worker(self._work, "decode")

    def _work(self) -> None:
        try:
            self._handle.finish(self._control)
        except BaseException as error:
            self._error = error

    def __enter__(self) -> _Rest:
        self._worker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._worker.finish()

    def stop(self) -> None:
        """Windows that wait fail then, unless all is decoded."""
        self._control.cancel()

    def wait(self) -> None:
        """Waits until all is decoded; raises what went wrong."""
        while not self._worker.wait(1.0):
            pass
        if self._error is not None:
            raise self._error


class _Fill:
    """A range of the new file that holds hashes of new[.., needs)."""

    __slots__ = ("index", "length", "made", "needs", "offset")  # a dataclass loads slowly

    def __init__(self, index: int, offset: int, length: int, needs: int) -> None:
        self.index = index
        self.offset = offset
        self.length = length
        self.needs = needs
        self.made: bytearray | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length

    def bytes(self, handle: Patch) -> bytearray:
        """What belongs there, once everything it needs is made."""
        if self.made is None:
            self.made = bytearray(self.length)
            handle.fill(self.index, self.made)
        return self.made


def _fills(handle: Patch, size: int) -> list[_Fill]:
    """All of them, by offset."""
    found = []
    needs = handle.fill_needs()
    for index, (offset, length) in enumerate(handle.fills()):
        if offset > size or length > size - offset:
            raise CorruptError("fill range", expected=size, found=offset)
        found.append(_Fill(index, offset, length, needs[index]))
    return sorted(found, key=lambda fill: fill.offset)


class _Ring:
    """Buffers that windows use in turn: window i waits until window i - count is released.

    As windows begin in order, the lowest one under way never waits.
    """

    def __init__(self, count: int, size: int, windows: int) -> None:
        self.count = max(1, min(count, windows))
        self._free = 0  # windows below this one have been released
        self._out: set[int] = set()  # released beyond it
        self._made: set[int] = set()
        lock = threading.Lock()
        # Who waits for one thing is not woken by the other.
        self._freed = threading.Condition(lock)
        self._ready = threading.Condition(lock)
        self._wanted = -1  # the window that is waited for, to be made
        self._views: dict[int, memoryview] = {}
        self.stopped = False
        # Anonymous pages: aligned as direct output wants them, and given back at once.
        self._room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._block = mmap.mmap(-1, max(self._room * self.count, 1))
        self._whole = memoryview(self._block)

    def __enter__(self) -> _Ring:
        return self

    def __exit__(self, *exc: object) -> None:
        # What an exception on its way still looks at goes when it is done with.
        with contextlib.suppress(BufferError):
            for view in self._views.values():
                view.release()
            self._whole.release()
            self._block.close()

    def take(self, index: int, length: int) -> memoryview | None:
        """The buffer of window `index`; None when everything was stopped."""
        with self._freed:
            while index - self.count >= self._free and not self.stopped:
                self._freed.wait()
            if self.stopped:
                return None
            start = index % self.count * self._room
            view = self._views[index] = self._whole[start : start + length]
            return view

    def made(self, index: int) -> None:
        with self._ready:
            self._made.add(index)
            if index == self._wanted:
                self._ready.notify()

    def next(self, index: int, last: int) -> memoryview | None:
        """Window `index` once those up to `last` are made too; None when all was stopped."""
        with self._ready:
            for self._wanted in range(index, last + 1):
                while self._wanted not in self._made:
                    if self.stopped:
                        return None
                    self._ready.wait()
            self._made.discard(index)
            return self._views[index]

    def release(self, index: int) -> None:
        with self._freed:
            self._views.pop(index).release()
            self._out.add(index)
            while self._free in self._out:
                self._out.discard(self._free)
                self._free += 1
                self._freed.notify_all()  # which of them it is for, only they know

    def stop(self) -> None:
        with self._freed:
            self.stopped = True
            self._freed.notify_all()
            self._ready.notify_all()


def _sha256() -> hashlib._Hash:
    import hashlib  # loads slowly, and is not always needed

    return hashlib.sha256()


class _Digest:
    """SHA-256 of the windows, in order.

    A range that depends on other bytes is put into its windows when all of these
    are made while the buffers last.  From the first one on of which that is not so,
    the new file is read back in the end.
    """

    def __init__(
        self, handle: Patch, ring: _Ring, fills: list[_Fill], step: int, both: BothFiles | None
    ) -> None:
        self._handle = handle
        self._ring = ring
        self._fills = fills
        self._step = step
        self._sha256 = _sha256() if both is None else both
        self._at = 0  # hashed so far
        self._late = False  # the rest is to be read back
        self._error: BaseException | None = None
        self._windows = -(-handle.info.new_size // step)
        self._worker = Worker(self._work, "sha256-new")

    def start(self) -> None:
        self._worker.start()

    def _work(self) -> None:
        try:
            for index in range(self._windows):
                last = index if self._late else self._last_needed(index)
                view = self._ring.next(index, last)
                if view is None:
                    return
                if not self._late:
                    self._take(index * self._step, view, last)
                self._ring.release(index)
        except BaseException as error:
            self._error = error
            self._ring.stop()

    def _within(self, start: int, end: int) -> list[_Fill]:
        return [fill for fill in self._fills if fill.offset < end and fill.end > start]

    def _last_needed(self, index: int) -> int:
        """The last window to be made before window `index` can be hashed, as far as can be."""
        start = index * self._step
        needed = [
            -(-fill.needs // self._step) - 1 for fill in self._within(start, start + self._step)
        ]
        most = min(index + self._ring.count, self._windows) - 1
        return max([index, *(window for window in needed if window <= most)])

    def _take(self, start: int, view: memoryview, last: int) -> None:
        """Hashes one window, once those up to `last` are made."""
        end = stop = start + len(view)
        for fill in self._within(start, end):
            if fill.needs > (last + 1) * self._step:
                self._late = True
                stop = max(start, fill.offset)
                break
            begin, until = max(fill.offset, start), min(fill.end, end)
            with memoryview(fill.bytes(self._handle)) as known:
                view[begin - start : until - start] = known[
                    begin - fill.offset : until - fill.offset
                ]
        with view[: stop - start] as piece:
            self._sha256.update(piece)
        self._at = stop

    def check(self) -> None:
        """Raises what went wrong."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Waits until every window is hashed; raises what went wrong."""
        while not self._worker.wait(1.0):
            pass
        self.check()

    def finish(self) -> None:
        """Waits for the thread, which the ring has been told to stop."""
        self._worker.finish()

    def result(self, size: int, read_back: ReadBack) -> bytes:
        """The digest, once everything is in place."""
        while self._at < size:
            with memoryview(read_back(self._at, min(_STEP, size - self._at))) as view:
                if not view:
                    raise NewMismatchError("the new file shrank while it was written")
                self._sha256.update(view)
                self._at += len(view)
        return self._sha256.digest()
