"""The old bytes at their new places, with addresses rewritten (docs/format.md, chapter 12)."""

from __future__ import annotations

import bisect

from tests.reference.address_map import AddressMap
from tests.reference.container import MASK64
from tests.reference.images import Ref, References, Section, kinds
from tests.reference.images.model import name_hash
from tests.reference.layout import LayoutImage, LayoutSection
from tests.reference.streams import Entry

UNWIND = name_hash(b"__TEXT,__unwind_info")
MOST_PAGES = 65536
CODE_KINDS = {*range(1, 6), 16, 17, 18}
LOCAL_KINDS = CODE_KINDS - {18}
NO_BASE = {*range(1, 7), 34, 40, 7, 8, 32, 33, 48, 50, 52}
UNIT_BITS = {**dict.fromkeys([1, 2, 3, 4, 36, 37], 2), 6: 12}

Page = tuple[int, int, int]  # begin, end, base


class Predictor:
    """Predicts the new file's bytes out of the old file's."""

    def __init__(
        self,
        old: bytes,
        images: list[LayoutImage],
        maps: list[AddressMap],
        cover: list[Entry],
        fixes: dict[int, int],
    ) -> None:
        self._old, self._images, self._maps = old, images, maps
        self._cover, self._fixes = cover, fixes
        self._pages: list[Page] = []
        self._references: dict[int, References] = {}  # by image offset

    def predict(self, new_size: int) -> bytearray:
        """The new file, as far as the cover goes; zeros elsewhere."""
        new = bytearray(new_size)
        for entry in self._cover:
            source = self._old[entry.old_off : entry.old_off + entry.length]
            new[entry.new_off : entry.new_off + entry.length] = source
        done: set[int] = set()
        for number, image in enumerate(self._images):
            if image.old.file_off in done:
                continue  # continued by an image before this one
            done.add(image.old.file_off)
            if image.old.file_off not in self._references:
                self._references[image.old.file_off] = References(image.old)
            references = self._references[image.old.file_off]
            for entry in self._cover:
                for ref in references.within(entry.old_off, entry.old_off + entry.length):
                    self._rewrite(new, entry, ref, image, self._maps[number])
        return new

    def _rewrite(
        self, new: bytearray, entry: Entry, ref: Ref, image: LayoutImage, map_: AddressMap
    ) -> None:
        into = ref.off - entry.old_off
        at = entry.new_off + into
        section = image.section_at(at)
        home = image.old.section_at(ref.off)
        if section is None or (ref.kind in CODE_KINDS and home is None):
            return
        site, new_site = _address(home, ref.off), _address(section, at)
        moved = new_site - site
        if ref.kind in LOCAL_KINDS and (ref.target - (site - into)) & MASK64 < entry.length:
            predicted = ref.target + moved
        else:
            predicted = map_.target(ref.target)
        predicted += self._fixes.get(at, 0) << UNIT_BITS.get(ref.kind, 0)
        field = int.from_bytes(new[at : at + ref.size], "little")
        base = self._base(ref, at, moved, map_)
        field = kinds.write(ref.kind, field, new_site, base, predicted & MASK64)
        new[at : at + ref.size] = field.to_bytes(ref.size, "little")

    def _base(self, ref: Ref, at: int, moved: int, map_: AddressMap) -> int:
        if ref.kind in NO_BASE:
            return 0
        if ref.kind in CODE_KINDS:
            return ref.base + moved & MASK64
        if ref.kind == kinds.FILE32:
            return ref.base
        if ref.kind == kinds.BASE24:
            page = bisect.bisect_right(self._pages, at, key=lambda page: page[0]) - 1
            if page >= 0 and at < self._pages[page][1]:
                return self._pages[page][2]
            return map_.target(ref.base)
        return map_.target(ref.base) if ref.base else 0

    def find_pages(self, new: bytearray) -> bool:
        """Learns where the new file's unwind pages are; whether there are any."""
        for image, map_ in zip(self._images, self._maps, strict=True):
            if not image.is_macho:
                continue
            for section in image.sections:
                pair = image.pair_of(section)
                if pair is None or pair.name != UNWIND or not section.file_size:
                    continue
                if section.end > len(new):
                    continue
                data = bytes(new[section.file_off : section.end])
                for begin, end, base in _pages(data, map_.by_spans(image.old.base_addr)):
                    begin, end = begin + section.file_off, end + section.file_off
                    if not self._pages or begin >= self._pages[-1][1]:
                        self._pages.append((begin, end, base))
        return bool(self._pages)


def _address(section: Section | LayoutSection | None, off: int) -> int:
    return 0 if section is None else section.addr + off - section.file_off & MASK64


def _pages(data: bytes, base_addr: int) -> list[Page]:
    """The pages of an unwind index, by offsets in it."""

    def u32(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little")

    if len(data) < 28 or u32(0) != 1:
        return []
    index, count = u32(20), u32(24)
    if not 28 <= index <= len(data) or count > min(MOST_PAGES, (len(data) - index) // 12):
        return []
    pages: list[Page] = []
    begin = first = 0
    for entry in range(index, index + 12 * count, 12):
        page = u32(entry + 4)
        if page < index + 12 * count or page >= len(data) or page <= begin:
            continue
        if begin:
            pages.append((begin, page, first))
        begin, first = page, base_addr + u32(entry) & MASK64
    if begin:
        pages.append((begin, len(data), first))
    return pages
