"""Files that resemble each other are found by their content, quickly and always the same."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bsipatch.errors import CancelledError, NotFoundError
from bsipatch.publish import similarity
from bsipatch.publish.similarity import Finder, resemblance, sketch
from bsipatch.tree import Tree, walk
from tests.support.trees import Content, write_tree


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def text(lines: int, seed: int = 1) -> bytes:
    draw = random.Random(seed)
    return b"".join(b"line %d says %d\n" % (i, draw.randrange(10**9)) for i in range(lines))


def edited(data: bytes, every: int, seed: int = 2) -> bytes:
    """Bytes put in and taken out all over the file."""
    draw = random.Random(seed)
    made = bytearray()
    for at in range(0, len(data), every):
        made += data[at : at + every - 3] + draw.randbytes(draw.randrange(9))
    return bytes(made)


@pytest.mark.parametrize("old", [noise(200_000), text(5000), noise(90_000) + text(2000)])
def test_edits_and_shifts_leave_a_resemblance(old: bytes) -> None:
    for new in (edited(old, 4000), b"put in front" * 100 + old, old[len(old) // 3 :], old[::1]):
        assert resemblance(sketch([new]), sketch([old])) > 0.5
    assert resemblance(sketch([old]), sketch([old])) == 1.0


def test_strangers_do_not_resemble_each_other() -> None:
    for make in (noise, text):
        mine, theirs = sketch([make(9000, 1)]), sketch([make(9000, 7)])
        assert resemblance(mine, theirs) < similarity.LEAST_SHARE
    assert resemblance(sketch([b""]), sketch([b""])) == 0.0


def test_a_part_resembles_the_whole_more_than_the_whole_the_part() -> None:
    whole = noise(400_000)
    part = whole[100_000:200_000]
    assert resemblance(sketch([part]), sketch([whole])) > 0.9
    assert resemblance(sketch([whole]), sketch([part])) < 0.5


def test_the_order_of_pieces_does_not_matter() -> None:
    pieces = [text(900, seed) for seed in range(5)]
    assert sketch(pieces) == sketch(reversed(pieces))
    assert len(sketch(pieces).hashes) == 256


# --- trees ----------------------------------------------------------------------------------------


def trees(
    tmp_path: Path, old: dict[str, Content], new: dict[str, Content]
) -> tuple[Finder, Tree, Tree]:
    roots = write_tree(tmp_path / "old", old), write_tree(tmp_path / "new", new)
    return Finder(*roots), walk(roots[0]), walk(roots[1])


def found(finder: Finder, old: Tree, new: Tree, path: str) -> list[str]:
    finder.consider(old.files)
    entry = new.get(path)
    assert entry is not None
    return [candidate.path for _, candidate in finder.likely(entry)]


def test_the_likeliest_comes_first(tmp_path: Path) -> None:
    base = noise(60_000)
    made = trees(
        tmp_path,
        {
            "far": noise(60_000, 9),
            "half": base[:30_000] + noise(30_000, 8),
            "near": edited(base, 20_000),
        },
        {"x": edited(base, 9000, 5)},
    )
    assert found(*made, "x") == ["near", "half"]


def test_among_equals_the_first_considered_is_taken(tmp_path: Path) -> None:
    base = noise(30_000)
    old = {"a": base + b"1", "b": base + b"2", "c": base + b"3"}
    finder, old_tree, new_tree = trees(tmp_path, old, {"x": base})
    finder.consider(sorted(old_tree.files, key=lambda entry: entry.path, reverse=True))
    entry = new_tree.get("x")
    assert entry is not None
    assert [candidate.path for _, candidate in finder.likely(entry)] == ["c", "b", "a"]


def test_the_same_content_is_read_once(tmp_path: Path) -> None:
    base = noise(30_000)
    made = trees(tmp_path, {"a": base, "b": base}, {"x": edited(base, 9000)})
    assert found(*made, "x") == ["a"]


@pytest.mark.parametrize(("size", "expected"), [(3_000, ["old"]), (1_000, [])])
def test_sizes_must_be_of_one_kind(size: int, expected: list[str], tmp_path: Path) -> None:
    base = text(1600)[: size * 16 - 100 if expected else size * 16 + 100]
    assert found(*trees(tmp_path, {"old": base}, {"x": base[:size]}), "x") == expected


def test_tiny_and_empty_files_are_passed_over(tmp_path: Path) -> None:
    small = text(100)[: similarity.LEAST_SIZE - 1]
    made = trees(tmp_path, {"old": small, "e": b""}, {"x": small, "y": b""})
    assert found(*made, "x") == found(*made, "y") == []
    entries = made[2].get("x"), made[1].get("old")
    assert entries[0] is not None
    assert entries[1] is not None
    assert made[0].share(*entries) is None


def test_reading_is_bounded(tmp_path: Path) -> None:
    base = noise(50_000)
    roots = (
        write_tree(tmp_path / "old", {"a": noise(50_000, 4), "b": base + b"1"}),
        write_tree(tmp_path / "new", {"x": base}),
    )
    read: list[int] = []
    finder = Finder(*roots, tick=lambda: read.append(1), most_read=60_000)
    assert found(finder, walk(roots[0]), walk(roots[1]), "x") == []  # b came too late
    assert len(read) == 2
    finder = Finder(*roots, most_read=101_000)
    assert found(finder, walk(roots[0]), walk(roots[1]), "x") == ["b"]


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_PIECE", 10_000)
    base = noise(900_000)
    made = trees(tmp_path, {"old": base}, {"x": noise(700, 3) + edited(base, 300_000)})
    assert found(*made, "x") == ["old"]
    pieces = list(similarity._pieces(tmp_path / "old/old", len(base)))
    assert [len(piece) for piece in pieces] == [10_000] * 8
    assert pieces[0] == base[:10_000]
    assert pieces[-1] == base[-10_000:]


def test_features_of_every_file_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_COMMON", 3)
    licence = text(200)
    old: dict[str, Content] = {f"{n}": licence + noise(300_000, n) for n in range(5)}
    made = trees(tmp_path, old, {"x": licence + noise(300_000, 3)[1000:]})
    assert found(*made, "x")[0] == "3"


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    made = trees(tmp_path, {"old": noise(5000)}, {"x": noise(5000)})
    os.unlink(tmp_path / "old/old")
    with pytest.raises(NotFoundError) as caught:
        found(*made, "x")
    assert caught.value.file == str(tmp_path / "old/old")


def test_the_search_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise CancelledError

    root = write_tree(tmp_path / "old", {"a": noise(5000)})
    with pytest.raises(CancelledError):
        Finder(root, root, tick=stop).consider(walk(root).files)
