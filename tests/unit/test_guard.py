"""Mapped files that end too early, or that the disk fails to give: an error, never a crash."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bsipatch import delta, errors
from bsipatch._core import Guard, Patch
from bsipatch.delta import _apply

PAGE = mmap.PAGESIZE
SIZE = 40 * PAGE
DATA = random.Random(11).randbytes(SIZE)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(DATA)
    return path


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def test_a_sound_file_reads_as_ever(old: Path) -> None:
    with mapped(old) as data, Guard(data) as guard:
        assert data[:] == DATA
        assert not guard.failed


def test_what_was_cut_off_reads_as_zeros(old: Path) -> None:
    with mapped(old) as data, Guard(data) as guard:
        os.truncate(old, 3 * PAGE + 5)
        assert data[: 3 * PAGE + 5] == DATA[: 3 * PAGE + 5]
        assert not guard.failed
        assert not any(data[3 * PAGE + 5 :])
        assert guard.failed
        assert hashlib.sha256(data).digest() != hashlib.sha256(DATA).digest()
        guard.close()
        assert guard.failed, "it still knows once closed"
        guard.close()


def test_guards_do_not_mix(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths:
        path.write_bytes(DATA)
    first, second, third = (mapped(path) for path in paths)
    with first, second, third, Guard(first) as a, Guard(second) as b, Guard(third) as c:
        os.truncate(paths[1], 0)
        assert not any(second[:])
        assert (a.failed, b.failed, c.failed) == (False, True, False)
        assert first[:] == third[:] == DATA


def test_other_buffers_need_no_guard() -> None:
    with Guard(b"bytes") as guard:
        assert not guard.failed


def test_guards_run_out_and_come_back(old: Path) -> None:
    with mapped(old) as data:
        held = [Guard(data) for _ in range(256)]
        with pytest.raises(errors.OutOfMemoryError):
            Guard(data)
        for guard in held:
            guard.close()
        with Guard(data):
            pass


def ended_by(body: str, old: Path) -> int:
    """How a process ends that runs `body` with `path` and `data`, the mapped file."""
    script = f"import mmap, os, signal\nfrom bsipatch._core import Guard\npath = {str(old)!r}\n"
    script += "file = open(path, 'rb')\n"
    script += "data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
    script += textwrap.dedent(body)
    env = {**os.environ, "PYTHONFAULTHANDLER": ""}
    return subprocess.run(
        [sys.executable, "-c", script], check=False, stderr=subprocess.DEVNULL, env=env
    ).returncode


SANITIZED = pytest.mark.skipif(
    "BSIPATCH_SANITIZED" in os.environ, reason="the sanitizer has a handler of its own"
)


@SANITIZED
@pytest.mark.parametrize(
    "body",
    [
        "Guard(b'')\nos.truncate(path, 0)\ndata[0]",
        "with Guard(data): pass\nos.truncate(path, 0)\ndata[0]",
        (
            "other = mmap.mmap(file.fileno(), 0, access=1)\n"
            "with Guard(data): os.truncate(path, 0); other[0]"
        ),
        "with Guard(data): os.kill(os.getpid(), signal.SIGBUS)",
    ],
    ids=["never guarded", "no longer", "another mapping", "sent by someone"],
)
def test_signals_about_something_else_end_the_process(body: str, old: Path) -> None:
    assert ended_by(body, old) == -signal.SIGBUS


def test_the_handler_before_gets_what_is_not_for_us(old: Path) -> None:
    body = """
    signal.signal(signal.SIGBUS, lambda number, frame: os._exit(42))
    with Guard(data):
        os.kill(os.getpid(), signal.SIGBUS)
        for _ in range(1000): pass
    """
    assert ended_by(body, old) == 42
    after = """
    signal.signal(signal.SIGBUS, lambda number, frame: os._exit(42))
    with Guard(data): os.truncate(path, 0); data[0]
    os.kill(os.getpid(), signal.SIGBUS)
    for _ in range(1000): pass
    """
    assert ended_by(after, old) == 42


# --- applying ---


@pytest.mark.parametrize(
    ("which", "moment", "profile"),
    [
        ("old file", "begin", "fast"),
        ("old file", "rebuild", "fast"),
        ("patch", "begin", "fast"),
        # literals that have a code of their own are read beside the windows
        ("patch", "rebuild", "max"),
    ],
)
def test_applying_while_a_file_shrinks(
    which: str,
    moment: str,
    profile: str,
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(5)
    literals = rng.randbytes(9 * PAGE)  # in `fast` they stand in the patch as they are
    if profile == "max":
        literals = b"".join(b"%d " % rng.randrange(1 << 30) for _ in range(2 * PAGE))
    made = bytes(DATA[SIZE // 2 :] + literals + DATA[: SIZE // 2])
    patch, new = tmp_path / "patch", tmp_path / "out" / "new"
    patch.write_bytes(delta.diff_bytes(DATA, made, profile=profile))
    new.parent.mkdir()
    real = Patch.begin if moment == "begin" else _apply.rebuild
    victim = old if which == "old file" else patch

    def cut(*args: object, **keywords: object) -> object:
        os.truncate(victim, PAGE)
        return real(*args, **keywords)

    monkeypatch.setattr(Patch if moment == "begin" else _apply, moment, cut)
    with pytest.raises(errors.SystemCallError) as caught:
        delta.patch(old, patch, new, jobs=2)
    assert caught.value.file == str(victim)
    assert which in str(caught.value)
    assert os.listdir(new.parent) == []


def test_a_descriptor_that_shrinks(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = delta.diff_bytes(DATA, DATA[::-1][:100] + DATA)
    real = _apply.rebuild

    def cut(*args: object, **keywords: object) -> bytes:
        os.truncate(old, PAGE)
        return real(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(_apply, "rebuild", cut)
    with (
        old.open("rb") as file,
        (tmp_path / "new").open("w+b") as new,
        pytest.raises(errors.SystemCallError, match="cut short"),
    ):
        delta.apply_to_fd(file.fileno(), patch, new.fileno())
