"""Windows made in any order: hashed in order, written directly or not, stopped without a trace."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bsipatch import delta, errors
from bsipatch.delta import _windows, _writer
from bsipatch.limits import DEFAULT

STEP = 1 << 16
LIMITS = DEFAULT.but(window_size=STEP)
DIRECT = getattr(os, "O_DIRECT", 0)


class Handle:
    """Stands in for a prepared patch: windows are pieces of `new`, fills are cut out of it."""

    def __init__(
        self, new: bytes, fills: list[tuple[int, int, int]], fail_at: int | None = None
    ) -> None:
        """fills: (offset, length, end of what it needs)."""
        self.new = new
        self.places = fills
        self.fail_at = fail_at
        self.info = SimpleNamespace(new_size=len(new))
        self.made: set[int] = set()
        self.lock = threading.Lock()
        self.random = random.Random(len(new))

    def fills(self) -> list[tuple[int, int]]:
        return [(offset, length) for offset, length, _ in self.places]

    def fill_needs(self) -> list[int]:
        return [needs for _, _, needs in self.places]

    def finish(self, control: object) -> None:
        """Nothing is left to decode."""

    def window(self, offset: int, out: memoryview) -> None:
        with self.lock:
            pause = self.random.random() / 1000
        time.sleep(pause)  # so that they come out of order
        if self.fail_at is not None and offset // STEP == self.fail_at:
            raise errors.CorruptError("a window")
        out[:] = self.new[offset : offset + len(out)]
        for at, length, _ in self.places:
            begin, end = max(at, offset), min(at + length, offset + len(out))
            if begin < end:
                out[begin - offset : end - offset] = bytes(end - begin)
        with self.lock:
            self.made.add(offset // STEP)

    def fill(self, index: int, out: bytearray) -> None:
        offset, length, needs = self.places[index]
        assert set(range(-(-needs // STEP))) <= self.made, "asked for too early"
        out[:] = self.new[offset : offset + length]


class Kept:
    """Where what is made goes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.read: list[int] = []
        self.fills: list[int] = []

    def emit(self, offset: int, view: memoryview) -> None:
        assert not self.fills, "a window over a fill that is in place"
        self._put(offset, view)

    def _put(self, offset: int, view: memoryview) -> None:
        self.data[offset : offset + len(view)] = view

    def emit_fill(self, offset: int, view: memoryview) -> None:
        self.fills.append(offset)
        self._put(offset, view)

    def read_back(self, offset: int, length: int) -> bytes:
        self.read.append(offset)
        return bytes(self.data[offset : offset + length])


def run(handle: Handle, jobs: int, kept: Kept, **more: Any) -> bytes:
    typed: Any = handle
    return _windows.rebuild(
        typed, jobs, LIMITS, kept.emit, kept.emit_fill, None, "write", kept.read_back, **more
    )


NEW = random.Random(3).randbytes(40 * STEP + 1234)
FILLS = {
    "none": [],
    "behind its data": [(30 * STEP + 100, 3000, 30 * STEP)],
    "over three windows": [(20 * STEP - 5, STEP + 10, 20 * STEP - 5)],
    "two, one needs the next window": [(10 * STEP, 32, 11 * STEP + 7), (10 * STEP + 32, 9, STEP)],
    "at the very end": [(len(NEW) - 20, 20, len(NEW) - 20)],
    "of the whole file": [(STEP, 20, len(NEW))],
    "of itself": [(STEP, 20, STEP + 20)],
}


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("name", FILLS)
def test_hashes_what_it_makes(name: str, jobs: int) -> None:
    handle, kept = Handle(NEW, list(FILLS[name])), Kept(len(NEW))
    assert run(handle, jobs, kept) == hashlib.sha256(NEW).digest()
    assert kept.data == NEW
    assert sorted(kept.fills) == sorted(offset for offset, _, _ in FILLS[name])
    # Only what waits for bytes far behind it has to be read again.
    assert bool(kept.read) == (name == "of the whole file")


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1])
def test_small_files(size: int) -> None:
    kept = Kept(size)
    assert run(Handle(NEW[:size], []), 2, kept) == hashlib.sha256(NEW[:size]).digest()
    assert kept.data == NEW[:size]


@pytest.mark.parametrize("jobs", [1, 2, 8])
@pytest.mark.parametrize("fail_at", [0, 1, 17, 40])
def test_a_window_that_fails_stops_all(fail_at: int, jobs: int) -> None:
    before = threading.active_count()
    with pytest.raises(errors.CorruptError, match="a window"):
        run(Handle(NEW, [], fail_at), jobs, Kept(len(NEW)))
    assert threading.active_count() == before


def test_an_output_that_fails_stops_all() -> None:
    kept = Kept(len(NEW))
    handle: Any = Handle(NEW, list(FILLS["behind its data"]))

    def full(offset: int, view: memoryview) -> None:
        raise errors.NoSpaceError("full")

    for emit, emit_fill in ((full, kept.emit), (kept.emit, full)):
        with pytest.raises(errors.NoSpaceError):
            _windows.rebuild(handle, 2, LIMITS, emit, emit_fill, None, "write", kept.read_back)


@pytest.mark.parametrize("error", [KeyboardInterrupt, errors.CancelledError])
def test_a_callback_that_raises_stops_all(error: type[BaseException]) -> None:
    before = threading.active_count()
    handle: Any = Handle(NEW, [])
    kept = Kept(len(NEW))

    def progress(phase: str, done: int, total: int) -> None:
        if done > 5 * STEP:
            raise error

    with pytest.raises(error):
        _windows.rebuild(
            handle, 3, LIMITS, kept.emit, kept.emit_fill, progress, "write", kept.read_back
        )
    assert threading.active_count() == before


def test_fills_outside_of_the_file_are_refused() -> None:
    with pytest.raises(errors.CorruptError, match="fill range"):
        run(Handle(NEW, [(len(NEW) - 5, 6, 0)]), 2, Kept(len(NEW)))


def test_a_file_that_shrinks_before_it_is_read_back() -> None:
    kept = Kept(len(NEW))
    handle: Any = Handle(NEW, list(FILLS["of the whole file"]))
    with pytest.raises(errors.NewMismatchError, match="shrank"):
        _windows.rebuild(
            handle, 2, LIMITS, kept.emit, kept.emit_fill, None, "write", lambda at, n: b""
        )


# --- writing ---


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    made = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT, 0o600)
    yield made
    os.close(made)


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "LEAST_DIRECT", 1)


def write(fd: int, data: bytes, fills: list[tuple[int, int]]) -> None:
    handle: Any = Handle(data, [(offset, length, offset) for offset, length in fills])
    with _writer.FileWriter(fd) as writer:
        writer.begin(len(data), fills)

        def read_back(offset: int, length: int) -> bytes:
            writer.finish()
            return os.pread(fd, length, offset)

        digest = _windows.rebuild(
            handle, 3, LIMITS, writer.write, writer.fill, None, "write", read_back
        )
        writer.finish()
    assert digest == hashlib.sha256(data).digest()
    assert os.pread(fd, len(data) + 1, 0) == data
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("length", [1, 4095, 4096, STEP + 4097, len(NEW)])
def test_written_directly(fd: int, length: int) -> None:
    fills = [(STEP + 3, 40), (5 * STEP - 1, 2)] if length == len(NEW) else []
    write(fd, NEW[:length], fills)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("calls", [0, 1, 7])
def test_a_file_system_that_refuses_direct_output(
    fd: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lock, left = os.pwrite, threading.Lock(), [calls]

    def pwrite(number: int, data: Any, offset: int) -> int:
        if fcntl.fcntl(number, fcntl.F_GETFL) & DIRECT:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.EINVAL, "no direct output here")
        return real(number, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    write(fd, NEW, [(3 * STEP + 5, 100)])


@pytest.mark.usefixtures("everything_is_large")
def test_where_the_flag_itself_is_refused(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def refuse(number: int, command: int, *rest: int) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "never heard of it")
        return real(number, command, *rest)

    monkeypatch.setattr(_writer.fcntl, "fcntl", refuse)
    write(fd, NEW[: 3 * STEP + 7], [(5, 10)])


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk(fd: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(number: int, data: Any, offset: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", pwrite)
    wanted = errors.NoSpaceError if code == errno.ENOSPC else errors.SystemCallError
    with pytest.raises(wanted):
        write(fd, NEW[: 5 * STEP], [])
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT


@pytest.mark.usefixtures("everything_is_large")
def test_real_patches_written_directly(tmp_path: Path) -> None:
    old, patch, new = (tmp_path / name for name in ("old", "patch", "new"))
    old.write_bytes(NEW)
    wanted = NEW[7:] + NEW[:100_000]
    patch.write_bytes(delta.diff_bytes(NEW, wanted, profile="fast"))
    delta.patch(old, patch, new, jobs=2, limits=LIMITS)
    assert new.read_bytes() == wanted
    with old.open("rb") as source, (tmp_path / "other").open("w+b") as target:
        delta.apply_to_fd(source.fileno(), patch.read_bytes(), target.fileno(), jobs=1)
        assert target.read() == wanted
