"""Chained fixups (format-images-macho.md, "Fixups")."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.reference.images import kinds
from tests.reference.images.kinds import (
    CHAIN64,
    CHAIN64_OFFSET,
    CHAIN_ARM64E,
    CHAIN_ARM64E_AUTH,
    CHAIN_ARM64E_OFFSET,
    CHAIN_BIND,
    CHAIN_BIND16,
    CHAIN_BIND24,
)
from tests.reference.images.model import Image, within

if TYPE_CHECKING:
    from tests.reference.images.macho import Parsed, Segment


class Format(NamedTuple):
    """A pointer format: how far a step goes, which bits say it, and what the kinds are."""

    stride: int
    next_bits: int
    bind_bit: int
    rebase: int
    auth: int | None
    bind: int


FORMATS = {
    2: Format(4, 12, 63, CHAIN64, None, CHAIN_BIND24),
    6: Format(4, 12, 63, CHAIN64_OFFSET, None, CHAIN_BIND24),
    1: Format(8, 11, 62, CHAIN_ARM64E, CHAIN_ARM64E_AUTH, CHAIN_BIND16),
    10: Format(4, 11, 62, CHAIN_ARM64E, CHAIN_ARM64E_AUTH, CHAIN_BIND16),
    7: Format(4, 11, 62, CHAIN_ARM64E_OFFSET, CHAIN_ARM64E_AUTH, CHAIN_BIND16),
    9: Format(8, 11, 62, CHAIN_ARM64E_OFFSET, CHAIN_ARM64E_AUTH, CHAIN_BIND16),
    12: Format(8, 11, 62, CHAIN_ARM64E_OFFSET, CHAIN_ARM64E_AUTH, CHAIN_BIND24),
}
FROM_IMAGE = {CHAIN64_OFFSET, CHAIN_ARM64E_AUTH, CHAIN_ARM64E_OFFSET}


class _Chains:
    """Adds the pointers of a chain."""

    def __init__(self, image: Image, rows: int | None, import_count: int, base: int) -> None:
        self.image, self.rows, self.import_count, self.base = image, rows, import_count, base

    def add(self, off: int, word: int, form: Format) -> None:
        if word >> form.bind_bit & 1:
            ordinal = word & (0xFFFFFF if form.bind == CHAIN_BIND24 else 0xFFFF)
            if self.rows is not None and ordinal < self.import_count:
                self.image.add(off, form.bind, self.rows)
            else:
                self.image.add(off, CHAIN_BIND)
            return
        kind = form.auth if form.auth is not None and word >> 63 else form.rebase
        self.image.add(off, kind, self.base if kind in FROM_IMAGE else 0)

    def walk(self, begin: int, limit: int, pos: int, form: Format) -> None:
        while within(pos, 8, limit):
            word = self.image.file.u64(begin + pos)
            self.add(begin + pos, word, form)
            step = word >> 51 & ((1 << form.next_bits) - 1)
            if step == 0:
                break
            pos += step * form.stride


def read(parsed: Parsed) -> None:
    """Adds the pointers and the imports of LC_DYLD_CHAINED_FIXUPS."""
    table, image = parsed.tables.get("chained_fixups"), parsed.image
    if table is None:
        return
    off, size = table.off, table.size

    def u32(at: int) -> int:
        return image.file.u32(off + at)

    if size < 28 or u32(0) != 0:
        return
    starts = u32(4)
    if not within(starts, 4, size):
        return
    count = min(u32(starts), (size - starts - 4) // 4, len(parsed.segments))
    base = image.register(image.base_addr)

    rows_at, names_at, imports = u32(8), u32(12), u32(16)
    rows: int | None = None
    import_count = 0
    if u32(20) == 1 and u32(24) == 0 and rows_at <= size and names_at <= size:
        rows, names = parsed.base_of(off + rows_at), parsed.base_of(off + names_at)
        imports = min(imports, (size - rows_at) // 4)
        if rows is not None:
            import_count = imports
        if names is not None:
            for k in range(imports):
                image.add(off + rows_at + 4 * k, kinds.IMPORT23, names)
    chains = _Chains(image, rows, import_count, base)
    for k in range(count):
        start = u32(starts + 4 + 4 * k)
        if start and start <= size - starts:
            _segment(chains, parsed.segments[k], off + starts + start, off + size)


def _segment(chains: _Chains, segment: Segment, at: int, end: int) -> None:
    file, image = chains.image.file, chains.image
    if not segment.sound or segment.file_size == 0 or end - at < 22:
        return
    page, form = file.u16(at + 4), FORMATS.get(file.u16(at + 6))
    pages = min(file.u16(at + 20), (end - at - 22) // 2)
    expected = segment.addr - image.base_addr & kinds.MASK64
    if page not in (0x1000, 0x4000) or form is None or file.u64(at + 8) != expected:
        return
    for j in range(pages):
        if j * page >= segment.file_size:
            break
        first = file.u16(at + 22 + 2 * j)
        if not first >> 15:
            limit = min(page, segment.file_size - j * page)
            chains.walk(segment.off + j * page, limit, first, form)
