"""Readers of Mach-O sections (format-images-macho.md, "Readers of sections")."""

from __future__ import annotations

from collections.abc import Callable

from tests.reference.images import kinds
from tests.reference.images.model import Image, within


def _offsets(image: Image, off: int, size: int) -> None:
    base = image.register(image.base_addr)
    for at in range(0, size - 3, 4):
        image.add(off + at, kinds.BASE32, base)


def _relative(image: Image, off: int, size: int) -> None:
    for at in range(0, size - 3, 4):
        _relative_word(image, off + at)


def _relative_word(image: Image, off: int) -> None:
    if image.file.u32(off):
        image.add(off, kinds.PC32)


def _methods(image: Image, off: int, size: int) -> None:
    u32, at = image.file.u32, 0
    while size - at >= 8:
        flags, count = u32(off + at), u32(off + at + 4)
        sound = flags >> 31 and flags & 0xFFFC == 12
        if sound and count <= (size - at - 8) // 12:
            at += 8
            for _ in range(3 * count):
                _relative_word(image, off + at)
                at += 4
        else:
            at += 4


def _fields(image: Image, off: int, size: int) -> None:
    at = 0
    while size - at >= 16:
        count = image.file.u32(off + at + 12)
        if image.file.u16(off + at + 10) == 12 and count <= (size - at - 16) // 12:
            _relative_word(image, off + at)
            _relative_word(image, off + at + 4)
            for i in range(count):
                _relative_word(image, off + at + 16 + 12 * i + 4)
                _relative_word(image, off + at + 16 + 12 * i + 8)
            at += 16 + 12 * count
        else:
            at += 4


def _unwind(image: Image, off: int, size: int) -> None:
    def u32(at: int) -> int:
        return image.file.u32(off + at)

    if size < 28 or u32(0) != 1:
        return
    personalities, count, index, index_count = u32(12), u32(16), u32(20), u32(24)
    base = image.register(image.base_addr)
    if index > size:
        return
    index_count = min(index_count, (size - index) // 12)
    budget = size // 4

    def column(at: int, count: int, entry: int, kind: int, base: int) -> None:
        nonlocal budget
        if at > size:
            return
        for i in range(min(count, (size - at) // entry, budget)):
            image.add(off + at + i * entry, kind, base)
            budget -= 1

    column(personalities, count, 4, kinds.BASE32, base)
    column(index, index_count, 12, kinds.BASE32, base)
    if index_count == 0:
        return
    first, last = u32(index + 8), u32(index + 12 * (index_count - 1) + 8)
    if first < last:
        column(first, 2 * ((last - first) // 8), 4, kinds.BASE32, base)
    for i in range(index_count):
        if budget == 0:
            break
        function, page = u32(index + 12 * i), u32(index + 12 * i + 4)
        if page == 0 or not within(page, 8, size):
            continue
        entries = page + image.file.u16(off + page + 4)
        entry_count = image.file.u16(off + page + 6)
        if u32(page) == 2:
            column(entries, entry_count, 8, kinds.BASE32, base)
        elif u32(page) == 3 and entry_count:
            counted_from = image.register(image.base_addr + function)
            column(entries, entry_count, 4, kinds.BASE24, counted_from)


READERS: dict[str, Callable[[Image, int, int], None]] = {
    "offsets": _offsets,
    "relative": _relative,
    "methods": _methods,
    "fields": _fields,
    "unwind": _unwind,
}
