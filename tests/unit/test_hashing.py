"""SHA-256 of two files at once: the core's running digests, and applying with them."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import delta, errors
from bsipatch._core import Sha256, pays_in_pairs
from bsipatch.delta import _hashing
from tests.unit.test_windows import FILLS, NEW, STEP, Handle, Kept, run

pieces = st.lists(st.binary(max_size=300), max_size=8)


def of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@given(pieces)
def test_pieces_make_the_whole(parts: list[bytes]) -> None:
    running = Sha256()
    for number, part in enumerate(parts):
        running.update(part)
        # Asking changes nothing.
        assert running.digest() == of(b"".join(parts[: number + 1]))
    assert running.digest() == of(b"".join(parts))


@given(st.binary(max_size=130), st.binary(max_size=130), st.lists(st.integers(0, 400)))
def test_two_side_by_side_are_two_messages(first: bytes, second: bytes, steps: list[int]) -> None:
    """Whether both are between blocks or not, and whatever comes before and after."""
    draw = random.Random(len(first) * 131 + len(second)).randbytes
    a, b = Sha256(), Sha256()
    a.update(first)
    b.update(second)
    for step in steps:
        one, other = draw(step), draw(step)
        a.update_beside(one, b, other)
        first, second = first + one, second + other
    assert (a.digest(), b.digest()) == (of(first), of(second))


def test_pieces_of_different_length_are_refused() -> None:
    a, b = Sha256(), Sha256()
    with pytest.raises(ValueError, match="different length"):
        a.update_beside(b"12", b, b"1")
    assert a.digest() == b.digest() == of(b"")


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("old_size", [0, 1000, len(NEW), len(NEW) + 3 * STEP + 1])
def test_windows_hash_the_old_file_along(name: str, old_size: int) -> None:
    old = random.Random(old_size).randbytes(old_size)
    handle, kept = Handle(NEW, list(FILLS[name])), Kept(len(NEW))
    with _hashing.BothFiles(old) as both:
        assert run(handle, 2, kept, both=both) == of(NEW)
        assert both.result() == of(old)
        assert both.result() == of(old)
    assert kept.data == NEW


def test_which_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hashing, "_LEAST", 1000)
    pairs = _hashing.BothFiles if pays_in_pairs() else _hashing.Hashing
    for old_size, new_size, jobs, way in [
        (1000, 1000, 1, pairs),
        (1000, 1250, 2, pairs),
        (1250, 1000, 2, pairs),
        (999, 1000, 2, _hashing.Hashing),
        (1000, 1251, 2, _hashing.Hashing),
        (1251, 1000, 2, _hashing.Hashing),
        (1000, 1000, 3, _hashing.Hashing),
    ]:
        assert type(_hashing.hashing_for_apply(bytes(old_size), new_size, jobs)) is way


@pytest.fixture
def in_pairs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small files are hashed in pairs too, where that pays or not; counts how often."""
    made: list[int] = []

    class Counted(_hashing.BothFiles):
        def __init__(self, old: Any) -> None:
            made.append(len(old))
            super().__init__(old)

    monkeypatch.setattr(_hashing, "BothFiles", Counted)
    monkeypatch.setattr(_hashing, "_LEAST", 1)
    monkeypatch.setattr("bsipatch._core.pays_in_pairs", lambda: True)
    return made


OLD_DATA = random.Random(5).randbytes(200_000)
NEW_DATA = OLD_DATA[:90_000] + b"something else" + OLD_DATA[91_000:]


def test_a_patch_is_applied_and_both_digests_told(in_pairs: list[int], tmp_path: Path) -> None:
    for name, data in (("old", OLD_DATA), ("new", NEW_DATA)):
        (tmp_path / name).write_bytes(data)
    delta.diff(tmp_path / "old", tmp_path / "new", tmp_path / "p")
    made = delta.patch(tmp_path / "old", tmp_path / "p", tmp_path / "made", jobs=2)
    assert (tmp_path / "made").read_bytes() == NEW_DATA
    assert made.old_sha256 == hashlib.sha256(OLD_DATA).hexdigest()
    assert made.new_sha256 == hashlib.sha256(NEW_DATA).hexdigest()
    assert in_pairs == [len(OLD_DATA)]
    assert "new_size=199014" in repr(made)


@pytest.mark.parametrize("place", [0, 90_500, len(OLD_DATA) - 1])
def test_every_byte_of_the_old_file_counts(in_pairs: list[int], place: int) -> None:
    """Those that the new file does not take from it as well."""
    patch = delta.diff_bytes(OLD_DATA, NEW_DATA)
    wrong = bytearray(OLD_DATA)
    wrong[place] ^= 1
    with pytest.raises(errors.OldMismatchError):
        delta.patch_bytes(wrong, patch, jobs=1)
    assert in_pairs


def test_a_wrong_result_is_refused(in_pairs: list[int]) -> None:
    patch = bytearray(delta.diff_bytes(OLD_DATA, NEW_DATA, profile="fast"))
    check = hashlib.sha256(NEW_DATA).digest()[:8]
    at = patch.index(check)
    patch[at + 7] ^= 1
    with pytest.raises(errors.BsipatchError):
        delta.patch_bytes(OLD_DATA, patch, jobs=1)
    assert in_pairs


def test_without_an_old_file_the_core_hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("not hashlib's")

    for name in ("update", "update_beside", "digest"):
        monkeypatch.setattr(Sha256, name, unwanted)
    assert run(Handle(NEW, []), 1, Kept(len(NEW))) == of(NEW)
