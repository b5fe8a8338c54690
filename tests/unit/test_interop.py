"""BSDIFF40 patches: both ways, converted, and hostile ones refused before bsdiff4 sees them."""

from __future__ import annotations

import bz2
import random
import struct
import sys
from pathlib import Path

import pytest

from bsipatch import delta, errors, interop, limits

bsdiff4 = pytest.importorskip("bsdiff4")

OLD = random.Random(7).randbytes(20_000)
NEW = OLD[:9000] + b"new words" + OLD[9500:] + b"tail"


def number(value: int) -> bytes:
    return struct.pack("<Q", abs(value) | (value < 0) << 63)


def craft(
    control: list[tuple[int, int, int]],
    diff: bytes,
    extra: bytes,
    new_size: int,
    *,
    lengths: tuple[int, int] | None = None,
    tail: bytes = b"",
) -> bytes:
    """A patch with the given blocks; `lengths` replaces the header's block lengths."""
    blocks = [
        bz2.compress(b"".join(number(v) for triple in control for v in triple)),
        bz2.compress(diff),
        bz2.compress(extra),
    ]
    sizes = lengths or (len(blocks[0]), len(blocks[1]))
    return b"BSDIFF40" + b"".join(map(number, (*sizes, new_size))) + b"".join(blocks) + tail


def test_both_ways_and_detection(tmp_path: Path) -> None:
    patch = interop.make_bsdiff(OLD, NEW)
    assert patch[:8] == b"BSDIFF40"
    assert interop.is_bsdiff(patch)
    assert not interop.is_bsdiff(delta.diff_bytes(OLD, NEW))
    assert not interop.is_bsdiff(b"")
    assert interop.apply_bsdiff(OLD, patch) == bsdiff4.patch(OLD, patch) == NEW
    for name, data in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_bytes(data)
    size = interop.make_bsdiff_file(tmp_path / "old", tmp_path / "new", tmp_path / "p")
    assert size == (tmp_path / "p").stat().st_size
    assert interop.is_bsdiff(tmp_path / "p")
    result = interop.apply_bsdiff_file(tmp_path / "old", tmp_path / "p", tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == NEW
    assert result.new_size == len(NEW)


@pytest.mark.parametrize(("old", "new"), [(b"", b""), (b"", b"x"), (b"x", b""), (b"ab", b"ab")])
def test_small_files(old: bytes, new: bytes) -> None:
    assert interop.apply_bsdiff(old, interop.make_bsdiff(old, new)) == new


def test_convert() -> None:
    ours = interop.convert(OLD, interop.make_bsdiff(OLD, NEW))
    assert delta.patch_bytes(OLD, ours) == NEW


def test_crafted_patch_applies() -> None:
    assert interop.apply_bsdiff(b"abcd", craft([(3, 2, 0)], b"\1\0\0", b"XY", 5)) == b"bbcXY"


HOSTILE = {
    "empty": (b"", errors.MagicError),
    "magic alone": (b"BSDIFF40", errors.TruncatedError),
    "other magic": (b"BSDIFF41" + bytes(40), errors.MagicError),
    "negative size": (craft([], b"", b"", -1), errors.CorruptError),
    "negative block": (craft([], b"", b"", 0, lengths=(-5, 3)), errors.CorruptError),
    "block outside": (craft([], b"", b"", 0, lengths=(1 << 40, 3)), errors.CorruptError),
    "sum overflows": (craft([], b"", b"", 0, lengths=((1 << 63) - 1,) * 2), errors.CorruptError),
    "huge size": (craft([], b"", b"", 1 << 50), errors.LimitError),
    "negative add": (craft([(-1, 2, 0)], b"", b"X", 1), errors.CorruptError),
    "negative insert": (craft([(2, -1, 0)], b"\0\0", b"", 1), errors.CorruptError),
    "too much": (craft([(4, 9, 0)], bytes(4), bytes(9), 5), errors.CorruptError),
    "too little": (craft([(1, 0, 0)], b"\0", b"", 5), errors.CorruptError),
    "seek before": (craft([(0, 0, -3), (2, 0, 0)], bytes(2), b"", 2), errors.CorruptError),
    "seek behind": (craft([(0, 0, 3), (2, 0, 0)], bytes(2), b"", 2), errors.CorruptError),
    "seek far": (craft([(0, 0, (1 << 63) - 1)] * 3, b"", b"", 0), errors.BsipatchError),
    "add past the end": (craft([(5, 0, 0)], bytes(5), b"", 5), errors.CorruptError),
    "short diff": (craft([(3, 0, 0)], bytes(2), b"", 3), errors.CorruptError),
    "long diff": (craft([(3, 0, 0)], bytes(4), b"", 3), errors.BsipatchError),
    "short extra": (craft([(0, 3, 0)], b"", b"ab", 3), errors.CorruptError),
    "diff bomb": (craft([(1, 0, 0)], bytes(50 << 20), b"", 1), errors.LimitError),
    "control bomb": (craft([(0, 0, 0)] * 100_000, b"", b"", 0), errors.LimitError),
    "trailing bytes": (craft([(1, 0, 0)], b"\0", b"", 1, tail=b"x"), errors.CorruptError),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    patch, cls = HOSTILE[name]
    with pytest.raises(cls):
        interop.apply_bsdiff(b"abcd", patch)


def test_truncations() -> None:
    patch = craft([(3, 2, 0)], b"\1\0\0", b"XY", 5)
    for length in range(len(patch)):
        with pytest.raises(errors.FormatError):
            interop.apply_bsdiff(b"abcd", patch[:length])


def test_limits() -> None:
    patch = interop.make_bsdiff(OLD, NEW)
    small = limits.DEFAULT.but(max_bsdiff_size=1000)
    with pytest.raises(errors.LimitError):
        interop.apply_bsdiff(OLD, patch, limits=small)
    with pytest.raises(errors.LimitError):
        interop.make_bsdiff(OLD, NEW, limits=small)


def test_without_bsdiff4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bsdiff4", None)
    with pytest.raises(errors.MissingDependencyError) as caught:
        interop.make_bsdiff(OLD, NEW)
    assert "bsipatch[interop]" in str(caught.value)
