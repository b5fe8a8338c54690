"""One file's delta through the public verbs: round trips, atomic output, refusals, cancellation."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bsipatch
from bsipatch import delta, errors, limits
from bsipatch.delta import Profile, _make

RANDOM = random.Random(20260301)
OLD = RANDOM.randbytes(200_000)
NEW = b"".join(
    [OLD[:50_000], b"inserted", OLD[50_000:120_000], RANDOM.randbytes(3000), OLD[125_000:]]
)
PROFILES = list(Profile)


def scattered(data: bytes, count: int) -> bytes:
    made = bytearray(data)
    for _ in range(count):
        made[RANDOM.randrange(len(made))] ^= 1 << RANDOM.randrange(8)
    return bytes(made)


CASES: dict[str, tuple[bytes, bytes]] = {
    "both empty": (b"", b""),
    "old empty": (b"", b"some bytes" * 50),
    "new empty": (OLD, b""),
    "one byte": (b"a", b"b"),
    "identical": (OLD, OLD),
    "unlike": (OLD[:90_000], RANDOM.randbytes(80_000)),
    "moved": (OLD, OLD[100_000:] + OLD[:100_000]),
    "edited": (OLD, NEW),
    "scattered": (OLD, scattered(OLD, 500)),
    "a window and a byte": (OLD[:65_536], OLD[:65_536] + b"x"),
    "several windows": (OLD * 12, scattered(OLD * 12, 50)),
    "zeros": (bytes(100_000), bytes(200_001)),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_round_trip(case: str, profile: Profile) -> None:
    old, new = CASES[case]
    patch = delta.diff_bytes(old, new, profile=profile, jobs=2)
    assert delta.patch_bytes(old, patch, jobs=2) == new


@pytest.mark.parametrize("profile", PROFILES)
def test_same_patch_at_any_job_count(profile: Profile) -> None:
    patches = {delta.diff_bytes(OLD, NEW, profile=profile, jobs=jobs) for jobs in (1, 2, 5)}
    assert len(patches) == 1


@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 2999), st.binary(max_size=40))))
def test_any_edits(old: bytes, edits: list[tuple[int, bytes]]) -> None:
    new = bytearray(old)
    for at, data in edits:
        new[min(at, len(new)) : min(at, len(new)) + len(data) // 2] = data
    patch = delta.diff_bytes(old, new, jobs=1)
    assert delta.patch_bytes(old, patch, jobs=1) == bytes(new)


def test_max_is_never_larger_and_small_changes_are_small() -> None:
    sizes = {p: len(delta.diff_bytes(OLD, scattered(OLD, 20), profile=p)) for p in PROFILES}
    assert sizes[Profile.MAX] <= sizes[Profile.FAST]
    assert sizes[Profile.MAX] < 300
    assert len(delta.diff_bytes(OLD, OLD)) < 60


# --- files ---


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(OLD)
    new.write_bytes(NEW)
    old.chmod(0o750)
    return old, new, tmp_path / "fix.bsp"


def test_files(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    old, new, patch = pair
    result = delta.diff(old, new, patch)
    assert result.patch_size == patch.stat().st_size
    assert (result.old_size, result.new_size) == (len(OLD), len(NEW))
    assert result.old_sha256 == hashlib.sha256(OLD).hexdigest()
    assert 0 < result.ratio < 0.1
    made = tmp_path / "made"
    applied = delta.patch(old, patch, made)
    assert made.read_bytes() == NEW
    assert applied.new_sha256 == result.new_sha256 == hashlib.sha256(NEW).hexdigest()
    assert stat.S_IMODE(made.stat().st_mode) == 0o750
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fix.bsp", "made", "new", "old"]


def test_in_place(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    delta.patch(old, patch, old)
    assert old.read_bytes() == NEW


def test_through_a_symlink_the_target_is_replaced(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    link = old.parent / "link"
    link.symlink_to("old")
    delta.patch(link, patch, link)
    assert link.is_symlink()
    assert old.read_bytes() == NEW


def test_exact_plain_bytes_is_enough_and_one_less_is_not(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    result = delta.diff(old, new, patch, profile="fast")
    exact = limits.DEFAULT.but(max_plain=result.plain_bytes)
    delta.patch(old, patch, old.parent / "made", limits=exact)
    short = limits.DEFAULT.but(max_plain=result.plain_bytes - 1)
    with pytest.raises(errors.LimitError):
        delta.patch(old, patch, old.parent / "made2", limits=short)
    assert not (old.parent / "made2").exists()


def test_inspect(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    report = delta.inspect(patch)
    assert report == delta.inspect(patch.read_bytes())
    assert (report.old_size, report.new_size) == (len(OLD), len(NEW))
    assert report.new_check == hashlib.sha256(NEW).hexdigest()[:16]
    assert report.plain_bytes == sum(stream.plain for stream in report.streams)
    assert report.patch_size == patch.stat().st_size


def test_apply_to_fd(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    old, _, _ = pair
    patch = delta.diff_bytes(OLD, NEW)
    made = tmp_path / "made"
    with old.open("rb") as old_file, made.open("w+b") as new_file:
        delta.apply_to_fd(
            old_file.fileno(),
            patch,
            new_file.fileno(),
            old_sha256=hashlib.sha256(OLD).digest(),
            new_sha256=hashlib.sha256(NEW).digest(),
            new_size=len(NEW),
        )
        assert made.read_bytes() == NEW
        for wrong, cls in [
            ({"old_sha256": bytes(32)}, errors.OldMismatchError),
            ({"new_sha256": bytes(32)}, errors.NewMismatchError),
            ({"new_size": 1}, errors.NewMismatchError),
        ]:
            with pytest.raises(cls):
                delta.apply_to_fd(old_file.fileno(), patch, new_file.fileno(), **wrong)  # type: ignore[arg-type]


# --- refusals ---


def test_wrong_old_file_is_named_as_the_cause(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    for wrong in (scattered(OLD, 1), OLD[:-1], OLD[::-1]):
        old.write_bytes(wrong)
        with pytest.raises(errors.OldMismatchError) as caught:
            delta.patch(old, patch, old.parent / "made")
        assert caught.value.file == str(old)
    assert not (old.parent / "made").exists()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_truncation_and_trailing_byte_is_refused(profile: Profile) -> None:
    patch = delta.diff_bytes(OLD[:5000], NEW[:2000] + OLD[2500:5000] + b"end", profile=profile)
    for length in range(len(patch)):
        with pytest.raises(errors.BsipatchError):
            delta.patch_bytes(OLD[:5000], patch[:length], jobs=1)
    with pytest.raises(errors.BsipatchError):
        delta.patch_bytes(OLD[:5000], patch + b"trailing", jobs=1)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_bit_flip_is_refused_or_harmless(profile: Profile) -> None:
    old, new = OLD[:4000], NEW[:1500] + b"fresh text" + OLD[1800:4000]
    patch = delta.diff_bytes(old, new, profile=profile)
    for bit in range(8 * len(patch)):
        damaged = bytearray(patch)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        try:
            made = delta.patch_bytes(old, damaged, jobs=1)
        except errors.BsipatchError:
            continue
        assert made == new


def test_missing_and_special_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(errors.NotFoundError):
        delta.diff(tmp_path / "none", file, tmp_path / "p")
    with pytest.raises(errors.UsageError):
        delta.diff(tmp_path, file, tmp_path / "p")
    with pytest.raises(errors.ExistsError):
        delta.diff(file, file, tmp_path)
    with pytest.raises(errors.NotFoundError):
        delta.diff(file, file, tmp_path / "no" / "p")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(errors.UsageError):
        delta.diff(fifo, file, tmp_path / "p")
    with pytest.raises(errors.ExistsError):
        delta.diff(file, file, fifo)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "file"]


def test_unknown_profile() -> None:
    with pytest.raises(errors.UsageError):
        delta.diff_bytes(b"", b"", profile="huge")


def test_file_size_limits(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    small = limits.DEFAULT.but(max_file_size=1000)
    with pytest.raises(errors.LimitError):
        delta.diff(old, new, patch, limits=small)
    delta.diff(old, new, patch)
    with pytest.raises(errors.LimitError):
        delta.patch_bytes(OLD, patch.read_bytes(), limits=small)


def test_memory_budgets() -> None:
    with pytest.raises(errors.MemoryLimitError):
        delta.diff_bytes(OLD, NEW, memory_budget=5000)
    patch = delta.diff_bytes(OLD, NEW)
    with pytest.raises(errors.MemoryLimitError):
        delta.patch_bytes(OLD, patch, limits=limits.DEFAULT.but(memory_budget=100))


def test_a_patch_that_does_not_verify_never_appears(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, patch = pair

    def other(*args: object, **kwargs: object) -> bytes:
        return delta.diff_bytes(OLD, NEW[:-1] + b"!", profile="fast")

    whole = _make._verify
    monkeypatch.setattr(_make, "_verify", lambda made, *rest: whole(other_patch, *rest))
    other_patch = bytes(0)
    with pytest.raises(errors.InternalError):
        delta.diff(old, new, patch)
    monkeypatch.setattr(_make, "_verify", whole)
    other_patch = other()
    monkeypatch.setattr(_make, "_verify", lambda made, *rest: whole(other_patch, *rest))
    with pytest.raises(errors.InternalError) as caught:
        delta.diff(old, new, patch)
    assert "another file" in str(caught.value)
    assert sorted(p.name for p in old.parent.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("call", ["posix_fallocate", "ftruncate", "pwrite", "fsync", "fchmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failing_system_calls_leave_nothing(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    before = sorted(old.parent.iterdir())

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    expected = errors.NoSpaceError if number == errno.ENOSPC else errors.SystemCallError
    with pytest.raises(expected):
        delta.patch(old, patch, old.parent / "made")
    assert sorted(old.parent.iterdir()) == before


# --- progress and cancellation ---


def test_progress_names_phases_and_true_sizes(pair: tuple[Path, Path, Path]) -> None:
    old, new, patch = pair
    seen: list[tuple[str, int, int]] = []
    delta.diff(old, new, patch, progress=lambda *step: seen.append(step))
    delta.patch(old, patch, old.parent / "made", progress=lambda *step: seen.append(step))
    assert ("write", len(NEW), len(NEW)) in seen
    assert ("verify", len(NEW), len(NEW)) in seen
    assert all(0 <= done <= total for phase, done, total in seen if phase in ("write", "verify"))


class StopError(Exception):
    pass


@pytest.mark.parametrize("moment", range(6))
def test_an_exception_in_progress_stops_and_leaves_nothing(
    pair: tuple[Path, Path, Path], moment: int
) -> None:
    old, new, patch = pair
    delta.diff(old, new, patch)
    before = sorted(old.parent.iterdir())
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise StopError

    works: list[Callable[[], object]] = [
        lambda: delta.diff(old, new, old.parent / "other", progress=stop),
        lambda: delta.patch(old, patch, old.parent / "other", progress=stop),
    ]
    for work in works:
        calls = 0
        try:
            work()
        except StopError:
            assert sorted(old.parent.iterdir()) == before
        (old.parent / "other").unlink(missing_ok=True)
    assert not [t for t in threading.enumerate() if t.name.startswith("bsipatch")]


@pytest.mark.slow
def test_ctrl_c_stops_and_leaves_nothing(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(24 << 20)
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(data)
    new.write_bytes(data[1 << 20 :] + data[: 1 << 20][::-1])
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()

    def again_and_again() -> None:
        while True:
            delta.diff(old, new, tmp_path / "fix.bsp")

    with pytest.raises(KeyboardInterrupt):
        again_and_again()
    timer.join()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "fix.bsp") == ["new", "old"]


def test_public_names() -> None:
    assert bsipatch.diff is delta.diff
    assert set(dir(bsipatch)) == set(bsipatch.__all__)
    with pytest.raises(AttributeError):
        _ = bsipatch.nothing  # type: ignore[attr-defined]
