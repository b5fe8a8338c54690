"""Streams 2 to 5: cover, overrides and corrections (docs/format.md, chapters 7, 8 and 10)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.columns import Column, size_class
from tests.reference.container import MASK64, Broken


@dataclass
class Entry:
    """A run of the new file that resembles one of the old file; bytes."""

    new_off: int
    old_off: int
    length: int


def read_cover(column: Column, old_size: int, new_size: int) -> list[Entry]:
    count = column.count(4)
    if count > new_size:
        raise Broken("cover count")
    gaps: list[int] = []
    for i in range(count):
        gaps.append(column.u64(1 + min(size_class(gaps[i - 1]) if i else 0, 5)))
    lengths: list[int] = []
    for i in range(count):
        before = size_class(lengths[i - 1]) if i else 0
        context = (gaps[i] != 0) + (0 if before <= 5 else 2 if before <= 7 else 4)
        lengths.append(column.u64(7 + context) + 1)
    shifts: list[int] = []
    entries: list[Entry] = []
    end = last = 0
    for gap, length in zip(gaps, lengths, strict=True):
        new_off = end + gap
        if new_off + length > new_size:
            raise Broken("cover.len")
        which = column.u64(13 + (gap != 0) + (0 if last == 0 else 2 if last == 1 else 4))
        if which == 0:
            start = new_off - gap + (shifts[0] if shifts else 0)
        else:
            start = new_off + (shifts[which - 1] if which <= len(shifts) else 0)
        context = which + (2 if gap else 0) if which <= 1 else 4
        old_off = start + column.s64(19 + context) & MASK64
        if old_off + length > old_size:
            raise Broken("cover.old_off")
        entries.append(Entry(new_off, old_off, length))
        shift = old_off - new_off & MASK64
        if shift in shifts:
            shifts.remove(shift)
        shifts = [shift, *shifts][:14]
        last, end = which, new_off + length
    return entries


def read_positions(
    column: Column, context: int, classes: int, places: int, count: int, limit: int
) -> list[int]:
    found: list[int] = []
    start = previous = 0
    for _ in range(count):
        step = min(size_class(previous), classes - 1) * places + start % places
        previous = column.u64(context + step)
        if start + previous >= limit:
            raise Broken("position")
        found.append(start + previous)
        start = found[-1] + 1
    return found


def mix(value: int, other: int) -> int:
    value = (value ^ other) * 0x9E3779B1 & 0xFFFFFFFF
    return value ^ value >> 15


class OldBytes:
    """Which old bytes the cover puts at new offsets, asked in ascending order."""

    def __init__(self, old: bytes, cover: list[Entry]) -> None:
        self._old, self._cover, self._at = old, cover, 0

    def around(self, new_off: int) -> tuple[int, int]:
        """The old byte there and the aligned word around it, 0 where there is none."""
        cover = self._cover
        while self._at < len(cover) and cover[self._at].new_off + cover[self._at].length <= new_off:
            self._at += 1
        if self._at == len(cover) or cover[self._at].new_off > new_off:
            return 0, 0
        at = cover[self._at].old_off + new_off - cover[self._at].new_off
        start = at - (new_off & 3)
        inside = start >= 0 and start + 4 <= len(self._old)
        word = int.from_bytes(self._old[start : start + 4], "little") if inside else 0
        return self._old[at], word


def read_refs(column: Column, new_size: int) -> dict[int, int]:
    """Differences of references by their offset in the new file."""
    count = column.count(2)
    if count > new_size:
        raise Broken("refs count")
    positions = read_positions(column, 30, 4, 1, count, new_size)
    fixes: dict[int, int] = {}
    before = 0
    for position in positions:
        before = column.s64(35 if before else 34)
        fixes[position] = before
    return fixes


def read_bytes(
    column: Column, old: bytes, cover: list[Entry], new_size: int
) -> list[tuple[int, int]]:
    """Positions and differences."""
    count = column.count(2)
    if count > new_size:
        raise Broken("bytes count")
    positions = read_positions(column, 36, 6, 4, count, new_size)
    column.begin_bytes(6, 16, count)
    source = OldBytes(old, cover)
    diffs: list[int] = []
    last_off = recent = 0
    for position in positions:
        place = position & 3
        byte, word = source.around(position)
        near = min(position + 1 - last_off, 15)
        last = recent & 0xFF
        hashes = [
            mix(1, place),
            mix(mix(2, byte), place),
            mix(mix(3, last), near),
            mix(mix(4, word & 0xFFE00000), place),
            mix(mix(5, recent & 0xFFFF), near),
            mix(mix(mix(6, word), last), place),
        ]
        diff = column.byte(hashes, place | (4 if near == 1 else 0) | (8 if near <= 4 else 0)) + 1
        if diff == 256:
            raise Broken("bytes.diff")
        diffs.append(diff)
        recent, last_off = recent << 8 | diff, position + 1
    return list(zip(positions, diffs, strict=True))
