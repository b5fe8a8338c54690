"""Stream 1: images and sections of the new file, and fills (docs/format.md, chapter 6)."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.reference.columns import Column
from tests.reference.container import MASK64, Broken, unzigzag
from tests.reference.images import Image, Section
from tests.reference.images.model import MACHO

HASH_LEN = {1: 20, 2: 32, 3: 20}
WHOLE = 17  # page_bits of a fill that is one hash
MOST_SECTIONS, MOST_FILLS = 1 << 20, 512


class LayoutSection(NamedTuple):
    """A section of the new file; `pair` is the index of the old one it continues, or None."""

    file_off: int
    file_size: int
    addr: int
    mem_size: int
    role: int
    mapped: bool
    pair: int | None

    @property
    def end(self) -> int:
        return self.file_off + self.file_size


@dataclass
class LayoutImage:
    """What continues an old image."""

    old: Image
    sections: list[LayoutSection]
    _starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [s.file_off for s in self.sections if s.file_size]

    def section_at(self, off: int) -> LayoutSection | None:
        at = bisect.bisect_right(self._starts, off) - 1
        return self.sections[at] if at >= 0 and off < self.sections[at].end else None

    def pair_of(self, section: LayoutSection) -> Section | None:
        return None if section.pair is None else self.old.sections[section.pair]

    @property
    def is_macho(self) -> bool:
        return self.old.format == MACHO


@dataclass
class Fill:
    """Hashes of pages of the new file, in the new file."""

    new_off: int
    hash: int
    page_bits: int
    data_off: int
    data_len: int

    @property
    def placed(self) -> bool:
        """Whether the data begins and ends where it may."""
        if self.page_bits == WHOLE:
            return self.data_off >> 16 == (self.data_off + self.data_len - 1) >> 16
        return self.data_off % (1 << self.page_bits) == 0

    @property
    def length(self) -> int:
        return -(-self.data_len >> self.page_bits) * HASH_LEN[self.hash]


def read_layout(
    column: Column, old_images: list[Image], new_size: int
) -> tuple[list[LayoutImage], list[Fill]]:
    """The images and fills of the new file."""
    same = column.u64(40)
    if same > 1:
        raise Broken("layout.same")
    if same:
        images = [
            LayoutImage(old, [LayoutSection(*s[:6], pair=i) for i, s in enumerate(old.sections)])
            for old in old_images
        ]
    else:
        count = column.count(2)
        if count > len(old_images):
            raise Broken("more images than before")
        images = [_read_image(column, old_images, new_size) for _ in range(count)]
    return images, _read_fills(column, new_size)


def _read_image(column: Column, old_images: list[Image], new_size: int) -> LayoutImage:
    number = column.u64(41)
    if number >= len(old_images):
        raise Broken("layout.old_image")
    old = old_images[number]
    count = column.count(3)
    if count > MOST_SECTIONS:
        raise Broken("layout.sections")
    sections: list[LayoutSection] = []
    end_off = off_shift = end_addr = addr_shift = expected = 0
    for _ in range(count):
        told, pair = column.u64(41), None
        if told:
            pair = expected + unzigzag(told - 1) & MASK64
            if pair >= len(old.sections):
                raise Broken("layout.pair")
            expected = pair + 1
            was = old.sections[pair]
        else:
            was = Section(end_off - off_shift, 0, end_addr - addr_shift, 0, 0, True, 0)
        form = column.u64(42) ^ (was.role + 4 * was.mapped)
        if form >= 8 or form & 3 == 3:
            raise Broken("layout.form")
        role, mapped = form & 3, form >> 2 == 1
        file_size = was.file_size + column.s64(44) & MASK64
        file_off = addr = mem_size = 0
        if file_size:
            file_off = was.file_off + off_shift + column.s64(43) & MASK64
        if mapped:
            addr = was.addr + addr_shift + column.s64(45) & MASK64
            mem_size = was.mem_size + file_size - was.file_size + column.s64(46) & MASK64
        sections.append(LayoutSection(file_off, file_size, addr, mem_size, role, mapped, pair))
        if file_size:
            end_off = file_off + file_size
            off_shift = end_off - was.file_off - was.file_size
        if mapped:
            end_addr = addr + mem_size
            addr_shift = end_addr - was.addr - was.mem_size
    _check(sections, new_size)
    return LayoutImage(old, sections)


def _check(sections: list[LayoutSection], new_size: int) -> None:
    end, backed = 0, True
    for s in sections:
        if s.file_size:
            if not backed or s.file_off < end or s.end > new_size:
                raise Broken("layout: sections")
            end = s.end
        else:
            backed = False
        if s.addr + s.mem_size > MASK64 or s.addr + s.file_size > MASK64:
            raise Broken("layout: addresses")


def _read_fills(column: Column, new_size: int) -> list[Fill]:
    fills: list[Fill] = []
    end = 0
    for _ in range(column.count(4)):
        form = column.u64(47)
        new_off = end + column.s64(43)
        fill = Fill(new_off, form & 3, (form >> 2) + 12, column.u64(43), column.u64(44))
        sound = fill.hash in HASH_LEN and fill.page_bits <= WHOLE and fill.data_len > 0
        if not sound or not fill.placed or fill.new_off < end:
            raise Broken("fill")
        end = fill.new_off + fill.length
        if end > new_size or fill.data_off + fill.data_len > new_size:
            raise Broken("fill beyond the file")
        fills.append(fill)
        if len(fills) > MOST_FILLS:
            raise Broken("fills")
    if sum(f.data_len for f in fills) > 8 * new_size:
        raise Broken("fills hash too much")
    for a in fills:
        for b in fills:
            if a.data_off < b.new_off + b.length and b.new_off < a.data_off + a.data_len:
                raise Broken("a fill hashes a fill")
    return fills
