"""Patches that arrive through a pipe: the same result, early refusals, no waiting for ever."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bsipatch import delta, errors
from bsipatch.limits import DEFAULT

OLD = random.Random(1).randbytes(300_000)
NEW = OLD[1000:200_000] + random.Random(2).randbytes(90_000) + OLD[150_000:]
PATCH = delta.diff_bytes(OLD, NEW, profile="fast")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "old"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "new"


def piped(data: bytes, piece: int) -> io.BufferedReader:
    """The reading end of a pipe into which `data` comes in pieces."""
    reader, writer = os.pipe()

    def feed() -> None:
        with open(writer, "wb", buffering=0) as out:
            try:
                for at in range(0, len(data), piece):
                    out.write(data[at : at + piece])
            except BrokenPipeError:
                pass

    threading.Thread(target=feed, daemon=True).start()
    return open(reader, "rb")


@pytest.mark.parametrize("piece", [100, 5000, 1 << 20])
def test_from_a_pipe(piece: int, old: Path, new: Path) -> None:
    with piped(PATCH, piece) as stream:
        made = delta.patch_stream(old, stream, new)
    assert new.read_bytes() == NEW
    assert made.patch_size == len(PATCH)


def test_from_memory_a_file_and_a_socket(old: Path, new: Path, tmp_path: Path) -> None:
    delta.patch_stream(old, io.BytesIO(PATCH), new)
    assert new.read_bytes() == NEW
    (tmp_path / "patch").write_bytes(PATCH)
    with (tmp_path / "patch").open("rb") as file:
        delta.patch_stream(old, file, new)
    left, right = socket.socketpair()
    with left, right:
        sender = threading.Thread(target=lambda: (left.sendall(PATCH), left.close()))
        sender.start()
        with right.makefile("rb") as stream:
            delta.patch_stream(old, stream, new)
        sender.join()
    assert new.read_bytes() == NEW


def endless(start: bytes) -> io.BufferedReader:
    """A pipe that gives `start` and then nothing, and never ends."""
    reader, writer = os.pipe()
    os.write(writer, start)
    return open(reader, "rb")


@pytest.mark.parametrize(
    ("start", "error"),
    [
        (b"this is no patch at all" * 9, errors.MagicError),
        (PATCH[:4] + b"\xff" + PATCH[5:400], errors.VersionError),
    ],
)
def test_refused_before_the_end_has_come(
    start: bytes, error: type[Exception], old: Path, new: Path
) -> None:
    with endless(start) as stream, pytest.raises(error):
        delta.patch_stream(old, stream, new)
    assert os.listdir(new.parent) == []


def test_another_old_file_is_refused(old: Path, new: Path) -> None:
    old.write_bytes(OLD[:-1])
    with piped(PATCH, 1 << 20) as stream, pytest.raises(errors.OldMismatchError, match="size"):
        delta.patch_stream(old, stream, new)
    assert os.listdir(new.parent) == []


@pytest.mark.parametrize("length", [17, 50, len(PATCH) // 2, len(PATCH) - 1])
def test_a_stream_that_ends_early(length: int, old: Path, new: Path) -> None:
    with piped(PATCH[:length], 4096) as stream, pytest.raises(errors.TruncatedError):
        delta.patch_stream(old, stream, new)
    assert os.listdir(new.parent) == []


def test_more_than_is_allowed(old: Path, new: Path) -> None:
    small = DEFAULT.but(max_patch_size=len(PATCH) - 1)
    with piped(PATCH, 4096) as stream, pytest.raises(errors.LimitError):
        delta.patch_stream(old, stream, new, limits=small)
    tight = DEFAULT.but(memory_budget=50_000)
    with piped(PATCH, 4096) as stream, pytest.raises(errors.LimitError):
        delta.patch_stream(old, stream, new, limits=tight)
    assert os.listdir(new.parent) == []


def test_waiting_can_be_stopped(old: Path, new: Path) -> None:
    told: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        told.append(phase)
        if len(told) > 3:
            raise errors.CancelledError

    with endless(PATCH[:200]) as stream, pytest.raises(errors.CancelledError):
        delta.patch_stream(old, stream, new, progress=progress)
    assert set(told) == {"receive"}
    assert os.listdir(new.parent) == []


def test_the_command_reads_stdin(old: Path, new: Path) -> None:
    command = [sys.executable, "-m", "bsipatch", "patch", str(old), "-", "-o", str(new), "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(PATCH[:1000])
        child.stdin.flush()
        time.sleep(0.05)
        child.stdin.write(PATCH[1000:])
        child.stdin.close()
        assert child.wait() == 0
    assert new.read_bytes() == NEW
