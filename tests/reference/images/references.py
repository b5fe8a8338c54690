"""The references of a file, block by block (format-images.md, "References of a file")."""

from __future__ import annotations

import bisect

from tests.reference.images import arm64, kinds, x86_64
from tests.reference.images.kinds import MASK64
from tests.reference.images.model import ARM64, CODE, NO_ARCH, Image, Ref, Section

BLOCK = 8192
NEAR = 4096  # how far outside of its image a reference of code may point


class References:
    """Those of one image, found when they are asked for."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._data_starts = [ref.off for ref in image.data_refs]
        self._blocks: dict[int, list[Ref]] = {}
        self._arm64: dict[int, tuple[list[int], list[tuple[int, int, int, int]]]] = {}
        self._low = max(image.addr_low - NEAR, 0)
        self._high = min(image.addr_high + NEAR, MASK64)

    def within(self, begin: int, end: int) -> list[Ref]:
        """References whose whole field lies in [begin, end), ascending."""
        image = self._image
        begin, end = max(begin, image.file_off), min(end, image.file_off + image.file_size)
        found: list[Ref] = []
        for block in range(begin // BLOCK, -(-end // BLOCK)):
            found += (r for r in self.block(block) if begin <= r.off and r.off + r.size <= end)
        return found

    def block(self, number: int) -> list[Ref]:
        """References whose field begins in this block of the file."""
        if number not in self._blocks:
            self._blocks[number] = self._find(number)
        return self._blocks[number]

    def _find(self, number: int) -> list[Ref]:
        image = self._image
        begin = max(number * BLOCK, image.file_off)
        end = min((number + 1) * BLOCK, image.file_off + image.file_size)
        first = bisect.bisect_left(self._data_starts, begin)
        last = bisect.bisect_left(self._data_starts, end)
        refs = image.data_refs[first:last]
        if image.arch == NO_ARCH:
            return refs
        for section in image.sections:
            start, stop = max(begin, section.file_off), min(end, section.end)
            if section.role == CODE and section.mapped and start < stop:
                refs += self._code(section, start, stop)
        return sorted(refs)

    def _code(self, section: Section, begin: int, end: int) -> list[Ref]:
        shift = section.file_off
        kept: list[Ref] = []
        for at, kind, base, target in self._raw(section, begin - shift, end - shift):
            ref = Ref(shift + at, kind, target, base, kinds.SHAPES[kind].size)
            if ref.off + ref.size > len(self._image.file):
                continue
            if not self._low <= target <= self._high or self._touches_data(ref):
                continue
            if kept and ref.off < kept[-1].off + kept[-1].size:
                continue
            kept.append(ref)
        return kept

    def _raw(self, section: Section, begin: int, end: int) -> list[tuple[int, int, int, int]]:
        data = self._image.file.data
        if self._image.arch != ARM64:
            # what lies far behind the block cannot matter, but where the section ends does
            code = data[section.file_off : section.end]
            return x86_64.find(code, section.addr, begin, end)
        if section.file_off not in self._arm64:
            found = arm64.find(data[section.file_off : section.end], section.addr)
            self._arm64[section.file_off] = ([ref[0] for ref in found], found)
        starts, refs = self._arm64[section.file_off]
        return refs[bisect.bisect_left(starts, begin) : bisect.bisect_left(starts, end)]

    def _touches_data(self, ref: Ref) -> bool:
        at = bisect.bisect_left(self._data_starts, ref.off + ref.size) - 1
        if at < 0:
            return False
        data = self._image.data_refs[at]
        return data.off + data.size > ref.off
