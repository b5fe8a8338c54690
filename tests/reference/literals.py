"""Stream 6: the bytes that resemble nothing (docs/format.md, "Stream 6, LITERALS")."""

from __future__ import annotations

from tests.reference.columns import Column
from tests.reference.container import MASK64, Broken
from tests.reference.images.model import ARM64, CODE, NO_ARCH, X86_64
from tests.reference.layout import Fill, LayoutImage
from tests.reference.streams import Entry, mix

MASK32 = 0xFFFFFFFF
DISPLACED = {0x8B, 0x8D, 0x89, 0x3B, 0x83, 0x10, 0x6F}  # x86-64 opcodes with [rip + disp32]
PAGE_BITS = 0x7FFFF << 5 | 3 << 29  # of an ADRP


def literal_runs(cover: list[Entry], fills: list[Fill], new_size: int) -> list[tuple[int, int]]:
    """Offset and length of each stretch that neither cover nor fills give."""
    known = sorted([(e.new_off, e.length) for e in cover] + [(f.new_off, f.length) for f in fills])
    runs: list[tuple[int, int]] = []
    end = 0
    for start, length in [*known, (new_size, 0)]:
        if start < end:
            raise Broken("fills overlap the cover")
        if start > end:
            runs.append((end, start - end))
        end = start + length
    return runs


def read_literals(
    column: Column,
    old: bytes,
    cover: list[Entry],
    images: list[LayoutImage],
    runs: list[tuple[int, int]],
) -> bytes:
    """The bytes of all runs, one behind the other."""
    column.begin_bytes(8, 16, sum(length for _, length in runs))
    made = bytearray()
    before: Entry | None = None
    at = 0
    for start, length in runs:
        while at < len(cover) and cover[at].new_off < start:
            before = cover[at]
            at += 1
        recent, like = 0, len(old)
        if before is not None:
            like = before.old_off + before.length
            if before.new_off + before.length == start:
                recent = int.from_bytes(old[like - min(8, before.length) : like], "big")
        made += _Run(column, old, _arch_at(images, start), recent, like).read(start, length)
    return bytes(made)


def _arch_at(images: list[LayoutImage], off: int) -> int:
    for image in images:
        section = image.section_at(off)
        if section is not None:
            return image.old.arch if section.role == CODE else NO_ARCH
    return NO_ARCH


class _Run:
    """One stretch, byte by byte or in groups of four where code has an address."""

    def __init__(self, column: Column, old: bytes, arch: int, recent: int, like: int) -> None:
        self.column, self.old, self.arch = column, old, arch
        self.recent, self.like, self.last_place = recent, like, 0

    def read(self, at: int, left: int) -> bytes:
        made = bytearray()
        if not self.column.modelled:
            return bytes(self.column.byte((), 0) for _ in range(left))
        while left:
            four = left >= 4 and self._begins_group(at)
            length = 4 if four else 1
            coded = 0
            if four:
                for done in range(4):
                    hashes, selector = (
                        self._arm64(done, coded)
                        if self.arch == ARM64
                        else self._x86_64(done, coded)
                    )
                    coded = coded << 8 | self.column.byte(hashes, selector)
                self.last_place = coded
                made += self._uncoded(coded, at).to_bytes(4, "little")
            else:
                coded = self.column.byte(*self._alone(at))
                made.append(coded)
            for byte in coded.to_bytes(length, "little"):
                self.recent = (self.recent << 8 | byte) & MASK64
            at += length
            left -= length
            self.like = min(self.like + length, len(self.old))
        return bytes(made)

    def _begins_group(self, at: int) -> bool:
        if self.arch == ARM64:
            return at % 4 == 0
        if self.arch != X86_64:
            return False
        last, before = self.recent & 0xFF, self.recent >> 8 & 0xFF
        return last in (0xE8, 0xE9) or (last & 0xC7 == 5 and before in DISPLACED)

    def _uncoded(self, coded: int, at: int) -> int:
        """The word in the file."""
        at &= MASK32
        if self.arch == X86_64:
            return coded - at & MASK32
        if coded & 0xFC000000 == 0x94000000:
            return coded & 0xFC000000 | coded - (at >> 2) & 0x3FFFFFF
        if coded & 0x9F000000 == 0x90000000:
            page = (coded >> 5 & 0x7FFFF) << 2 | coded >> 29 & 3
            page = page - (at >> 12) & 0x1FFFFF
            return coded & ~PAGE_BITS | page >> 2 << 5 | (page & 3) << 29
        return coded

    def _alone(self, at: int) -> tuple[list[int], int]:
        recent = self.recent
        alike = self.old[self.like] + 1 if self.like < len(self.old) else 0
        kind = (at & 3) + (4 if self.arch != NO_ARCH else 0)
        low = recent & MASK32
        hashes = [
            mix(1, kind),
            mix(mix(2, low & 0xFF), kind),
            mix(mix(3, low & 0xFFFF), kind),
            mix(mix(4, low & 0xFFFFFF), kind),
            mix(mix(5, low), kind),
            mix(mix(mix(6, low), recent >> 32 & 0xFFFF), kind),
            mix(mix(mix(7, alike), low & 0xFF), kind),
            mix(mix(8, recent >> 24 & 0xFF), recent >> 56),
        ]
        return hashes, kind

    def _arm64(self, done: int, prefix: int) -> tuple[list[int], int]:
        kind = 8 + done
        start = mix(mix(1, kind), prefix)
        last, before = self.recent & MASK32, self.recent >> 32
        alike = 0
        if self.like + 4 <= len(self.old):
            word = int.from_bytes(self.old[self.like : self.like + 4], "little")
            agrees = done == 0 or word >> (32 - 8 * done) == prefix
            alike = 1 + (word >> (24 - 8 * done) & 0xFF) + (256 if agrees else 0)
        columns = (last >> 8 * done & 0xFF) + 256 * (before >> 8 * done & 0xFF)
        hashes = [
            mix(2, kind),
            start,
            mix(mix(start, 3), last & 0xFF),
            mix(mix(start, 4), (last & 0xFF) + 256 * (before & 0xFF)),
            mix(mix(start, 5), last),
            mix(mix(mix(start, 6), last), before),
            mix(mix(start, 7), alike),
            mix(mix(mix(8, kind), prefix & 0xFF), columns),
        ]
        return hashes, kind

    def _x86_64(self, done: int, prefix: int) -> tuple[list[int], int]:
        kind, recent = 12 + done, self.recent
        start = mix(mix(1, kind), prefix)
        hashes = [
            mix(2, kind),
            start,
            mix(mix(start, 3), recent & 0xFF),
            mix(mix(start, 4), recent & 0xFFFF),
            mix(mix(start, 5), recent & MASK32),
            mix(mix(start, 6), recent >> 16 & MASK32),
            mix(mix(start, 7), self.last_place >> 8),
            mix(mix(8, kind), prefix & 0xFF),
        ]
        return hashes, kind
