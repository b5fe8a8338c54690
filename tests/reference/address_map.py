"""Where old addresses have gone (docs/format.md, chapter 9)."""

from __future__ import annotations

import bisect
from typing import NamedTuple

from tests.reference.columns import Column
from tests.reference.container import MASK64, Broken
from tests.reference.images.model import Section
from tests.reference.layout import LayoutImage, LayoutSection
from tests.reference.streams import Entry


class Override(NamedTuple):
    """What becomes of [old_addr, old_addr + reach]."""

    old_addr: int
    reach: int
    new_addr: int


class Span:
    """Old addresses [begin, begin + len) are at `to` on; an anchor has no length."""

    __slots__ = ("begin", "len", "to")

    def __init__(self, begin: int, length: int, to: int) -> None:
        self.begin, self.len, self.to = begin, length, to

    def lose(self, count: int) -> None:
        """Forgets its first bytes."""
        self.begin += count
        self.to += count
        self.len -= count


class AddressMap:
    """Addresses of an old image to those of the layout image that continues it."""

    def __init__(self, image: LayoutImage, cover: list[Entry]) -> None:
        spans = _anchors(image)
        for entry in cover:
            spans += _parts(image, entry)
        self.spans = _settle(spans)
        self._borders = [0] * min(len(self.spans), 1)
        for before, span in zip(self.spans, self.spans[1:], strict=False):
            end = before.begin + before.len
            self._borders.append(min(end + (span.begin - end) // 2 + 1, span.begin))
        self._overrides: list[Override] = []
        self._override_starts: list[int] = []

    def override(self, overrides: list[Override]) -> None:
        self._overrides = overrides
        self._override_starts = [o.old_addr for o in overrides]

    def by_spans(self, addr: int) -> int:
        """Where the spans alone put an address."""
        if not self.spans:
            return addr
        span = self.spans[bisect.bisect_right(self._borders, addr) - 1]
        return addr + span.to - span.begin & MASK64

    def target(self, addr: int) -> int:
        """Where an address has gone."""
        at = bisect.bisect_right(self._override_starts, addr) - 1
        if at >= 0:
            found = self._overrides[at]
            if addr <= found.old_addr + found.reach:
                return found.new_addr + addr - found.old_addr & MASK64
        return self.by_spans(addr)


def read_overrides(column: Column, map_: AddressMap) -> list[Override]:
    """The corrections of one map (docs/format.md, chapter 8)."""
    places: list[tuple[int, int]] = []
    after = reach = 0
    for _ in range(column.count(3)):
        old_addr = after + column.u64(24)
        reach = column.u64(26 if reach else 25)
        if old_addr + reach > MASK64:
            raise Broken("override")
        places.append((old_addr, reach))
        after = old_addr + reach + 1
    chained = column.u64(27) if places else 0
    if chained > 1:
        raise Broken("chained")
    overrides: list[Override] = []
    number = shift = 0
    for old_addr, reach in places:
        number = column.s64(29 if number else 28)
        expected = old_addr + shift if chained else map_.by_spans(old_addr)
        new_addr = expected + number & MASK64
        shift = new_addr - old_addr
        overrides.append(Override(old_addr, reach, new_addr))
    return overrides


def _anchors(image: LayoutImage) -> list[Span]:
    spans = []
    for section in image.sections:
        pair = image.pair_of(section)
        if not section.mapped or pair is None or not pair.mapped:
            continue
        more = min(
            max(pair.mem_size - pair.file_size, 0), max(section.mem_size - section.file_size, 0)
        )
        spans.append(Span(pair.addr, 0, section.addr))
        spans.append(Span(pair.addr + pair.file_size, more, section.addr + section.file_size))
    return spans


def _parts(image: LayoutImage, entry: Entry) -> list[Span]:
    """The spans of a cover entry, cut at the sections of both sides."""
    spans = []
    done = 0
    while done < entry.length:
        old_off, new_off, left = entry.old_off + done, entry.new_off + done, entry.length - done
        old, new = image.old.section_at(old_off), image.section_at(new_off)
        length = min(
            left,
            _until(old, old_off, image.old.sections),
            _until(new, new_off, image.sections),
        )
        if old is not None and new is not None and old.mapped and new.mapped:
            spans.append(
                Span(old.addr + old_off - old.file_off, length, new.addr + new_off - new.file_off)
            )
        done += length
    return spans


def _until(
    section: Section | LayoutSection | None,
    off: int,
    sections: list[Section] | list[LayoutSection],
) -> int:
    """Bytes up to where another section begins, or this one ends."""
    if section is not None:
        return section.end - off
    after = bisect.bisect_right(sections, off, key=lambda s: s.file_off if s.file_size else 1 << 64)
    if after == len(sections) or not sections[after].file_size:
        return 1 << 64
    return sections[after].file_off - off


def _settle(spans: list[Span]) -> list[Span]:
    spans.sort(key=lambda span: (span.begin, -span.len, span.to))
    kept: list[Span] = []
    for span in spans:
        if not kept:
            kept.append(span)
            continue
        last = kept[-1]
        if span.begin < last.begin:
            if span.len <= last.begin - span.begin:
                continue
            span.lose(last.begin - span.begin)
        if span.begin < last.begin + last.len:
            if span.len > last.len:
                last.len = span.begin - last.begin
            else:
                lost = last.begin + last.len - span.begin
                if span.len <= lost:
                    continue
                span.lose(lost)
        if last.len == 0 and span.begin == last.begin:
            kept[-1] = span
        elif (
            last.len
            and span.len
            and last.begin + last.len == span.begin
            and last.to + last.len & MASK64 == span.to & MASK64
        ):
            last.len += span.len
        else:
            kept.append(span)
    return kept
