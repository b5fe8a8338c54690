"""Making patches within a memory budget: cheaper ways, the same files in the end."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bsipatch import delta
from bsipatch.delta import Profile, _budget, _make
from bsipatch.errors import MemoryLimitError, OutOfMemoryError
from bsipatch.limits import GIB, MIB

Way = _budget.Way


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# --- which ways there are -------------------------------------------------------------------------


def test_without_a_budget_there_is_one_way() -> None:
    assert list(_budget.ways(Profile.MAX, False, 4, 0)) == [Way(Profile.MAX, False, 4)]


def test_within_a_budget_ways_get_cheaper_and_each_is_tried_alone() -> None:
    found = list(_budget.ways(Profile.BALANCED, False, 2, GIB))
    assert found == [
        Way(Profile.BALANCED, False, 2),
        Way(Profile.BALANCED, False, 1),
        Way(Profile.FAST, False, 2),
        Way(Profile.FAST, False, 1),
        Way(Profile.FAST, True, 2),
        Way(Profile.FAST, True, 1),
    ]
    assert list(_budget.ways(Profile.FAST, True, 1, GIB)) == [Way(Profile.FAST, True, 1)]


class Stream:
    def __init__(self, plain_len: int, modelled_len: int = 0) -> None:
        self.plain_len, self.modelled_len = plain_len, modelled_len


@pytest.mark.parametrize(
    ("sizes", "jobs", "budget", "expected"),
    [
        ([64 * MIB], 4, 0, ("max", 4)),
        ([1000], 4, 64 * MIB, ("max", 4)),
        ([64 * MIB], 4, 2 * GIB, ("max", 2)),
        ([64 * MIB], 1, 512 * MIB, ("balanced", 1)),
        ([64 * MIB], 4, 240 * MIB, ("fast", 1)),
        ([64 * MIB], 4, 32 * MIB, ("fast", 1)),
        ([], 4, 32 * MIB, ("max", 4)),
    ],
)
def test_coders_are_chosen_by_what_they_take(
    sizes: list[int], jobs: int, budget: int, expected: tuple[str, int]
) -> None:
    streams: Any = [Stream(size) for size in sizes]
    assert _budget.coding(streams, Profile.MAX, jobs, budget) == expected


@pytest.mark.parametrize("budget", [32 * MIB, 100 * MIB, 300 * MIB, GIB])
def test_the_number_of_threads_never_chooses_the_coder(budget: int) -> None:
    streams: Any = [Stream(size) for size in (1, MIB, 20 * MIB)]
    efforts = {_budget.coding(streams, Profile.MAX, jobs, budget)[0] for jobs in (1, 2, 64)}
    assert len(efforts) == 1


# --- whole patches --------------------------------------------------------------------------------


def spoiled() -> tuple[bytes, bytes]:
    """24 MiB of noise with runs moved about and bytes changed."""
    old = noise(24 * MIB)
    new = bytearray(old[5 * MIB :] + old[: 5 * MIB - 12345])
    for at in range(0, len(new), 100_003):
        new[at] ^= 1
    return old, bytes(new)


def test_a_small_budget_is_kept_and_the_file_is_right(tmp_path: Path) -> None:
    old, new = spoiled()
    paths = (tmp_path / "old", tmp_path / "new", tmp_path / "p")
    paths[0].write_bytes(old)
    paths[1].write_bytes(new)
    free = delta.diff(*paths, profile="max", jobs=2)
    tight = delta.diff(*paths, profile="max", jobs=2, memory_budget=32 * MIB)
    assert delta.patch_bytes(old, paths[2].read_bytes()) == new
    # The thorough index of 24 MiB alone takes twice the budget: a coarser one, made with all
    # other effort, finds everything too.
    assert tight.profile == "max"
    assert tight.patch_size < 2 * free.patch_size


def test_the_result_within_a_budget_does_not_depend_on_jobs() -> None:
    old, new = spoiled()
    made = {
        delta.diff_bytes(old, new, profile="fast", jobs=j, memory_budget=32 * MIB) for j in (1, 3)
    }
    assert len(made) == 1


def test_cheaper_ways_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Way] = []
    real = _make._make

    def make(old: Any, new: Any, way: Way, *rest: Any) -> bytes:
        tried.append(way)
        if len(tried) < 5:
            raise MemoryLimitError("x") if len(tried) % 2 else OutOfMemoryError
        return real(old, new, way, *rest)

    monkeypatch.setattr(_make, "_make", make)
    old, new = noise(5000), noise(5000) + b"more"
    patch = delta.diff_bytes(old, new, profile="balanced", jobs=2, memory_budget=32 * MIB)
    assert tried == list(_budget.ways(Profile.BALANCED, False, 2, GIB))[:5]
    assert delta.patch_bytes(old, patch) == new


def test_the_result_says_which_way_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(noise(3000))
    (tmp_path / "new").write_bytes(noise(3000)[5:])
    paths = (tmp_path / "old", tmp_path / "new", tmp_path / "p")
    made = delta.diff(*paths, profile="balanced")
    assert (made.profile, made.raw) == ("balanced", False)
    real = _make._make

    def make(old: Any, new: Any, way: Way, *rest: Any) -> bytes:
        if not way.raw:
            raise MemoryLimitError("x")
        return real(old, new, way, *rest)

    monkeypatch.setattr(_make, "_make", make)
    made = delta.diff(*paths, profile="max", memory_budget=64 * MIB)
    assert (made.profile, made.raw) == ("fast", True)


def test_what_is_new_must_fit() -> None:
    with pytest.raises(MemoryLimitError, match="what the patch must say") as caught:
        delta.diff_bytes(b"", noise(40 * MIB), profile="fast", memory_budget=32 * MIB)
    assert caught.value.expected == 32 * MIB
    assert "whole" in str(caught.value)


def test_without_a_budget_refused_memory_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def make(old: Any, new: Any, way: Way, *rest: Any) -> bytes:
        tried.append(way)
        raise OutOfMemoryError

    monkeypatch.setattr(_make, "_make", make)
    with pytest.raises(OutOfMemoryError):
        delta.diff_bytes(b"1", b"2", profile="max")
    assert len(tried) == 1


def test_any_budget_ends_in_a_patch_or_a_refusal() -> None:
    old, new = noise(5000), noise(5000)[:4000] + noise(1500, 3)
    ended = set()
    for budget in (1, 1000, 30_000, 100_000, MIB, 32 * MIB):
        try:
            patch = delta.diff_bytes(old, new, profile="balanced", jobs=1, memory_budget=budget)
        except MemoryLimitError:
            ended.add("refused")
        else:
            assert delta.patch_bytes(old, patch) == new
            ended.add("made")
    assert ended == {"refused", "made"}


@pytest.mark.no_reference
def test_agreements_longer_than_the_matcher_follows_them_are_one(tmp_path: Path) -> None:
    old = bytearray(noise(40 * MIB))
    (tmp_path / "old").write_bytes(old)
    old[30 * MIB] ^= 1
    (tmp_path / "new").write_bytes(noise(999, 3) + old)
    made = delta.diff(tmp_path / "old", tmp_path / "new", tmp_path / "p", profile="fast")
    assert made.patch_size < 999 + 150


@pytest.mark.no_reference
def test_long_runs_of_one_byte_are_not_told_again(tmp_path: Path) -> None:
    hole = bytes(6 * MIB)
    (tmp_path / "old").write_bytes(noise(5000) + hole + noise(5000, 2))
    (tmp_path / "new").write_bytes(noise(5000) + hole[4096:] + noise(5000, 2) + hole)
    made = delta.diff(tmp_path / "old", tmp_path / "new", tmp_path / "p", profile="fast")
    assert made.plain_bytes < MIB
    assert made.patch_size < 1000


# --- several GB -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_reference
def test_files_beyond_four_gib(tmp_path: Path) -> None:
    """Sparse files: changes, and a run that moved, on both sides of 4 GiB."""
    size, block = 4 * GIB + 64 * MIB, noise(64 * 1024)
    old, new = tmp_path / "old", tmp_path / "new"
    places = [MIB, 3 * GIB, 4 * GIB - 1000, 4 * GIB + 3 * MIB, size - len(block)]
    for path in (old, new):
        with path.open("wb") as file:
            file.truncate(size)
            for number, place in enumerate(places):
                own = noise(len(block), number)
                file.seek(place + (4096 if path == new and number == 3 else 0))
                file.write(own[:500] + b"changed" + own[507:] if path == new else own)
    made = delta.diff(old, new, tmp_path / "p", profile="fast", memory_budget=256 * MIB)
    assert made.patch_size < 1000
    applied = delta.patch(old, tmp_path / "p", tmp_path / "made")
    assert applied.new_sha256 == made.new_sha256
    with (tmp_path / "made").open("rb") as file:
        file.seek(places[3] + 4096 + 500)
        assert file.read(7) == b"changed"
