"""Tables in a Mach-O file's __LINKEDIT (format-images-macho.md, "Tables")."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64
from tests.reference.images.model import within

if TYPE_CHECKING:
    from tests.reference.images.macho import Parsed, Segment


def read(parsed: Parsed) -> None:
    """Adds what the tables behind the chained fixups name, one after the other."""
    _rebase(parsed)
    _data_in_code(parsed)
    _exports(parsed)
    _symbols(parsed)
    _indirect(parsed)


class Stop(Exception):
    """A table ends, or its bytes do."""


class Ulebs:
    """Bytes and LEB128 numbers of a table."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise Stop
        self.at += 1
        return self.data[self.at - 1]

    def uleb(self, groups: int = 10) -> int:
        """Bits beyond 64, and bytes beyond `groups`, are cut off."""
        value = shift = 0
        while True:
            byte = self.byte()
            if shift < 7 * groups:
                value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value & MASK64


class _Rebase:
    def __init__(self, parsed: Parsed, data: bytes) -> None:
        self.parsed = parsed
        self.code = Ulebs(data)
        self.type = self.offset = 0
        self.segment: Segment | None = None
        self.budget = parsed.image.file_size // 8

    def run(self) -> None:
        uleb = self.code.uleb
        while True:
            operation = self.code.byte()
            what, imm = operation >> 4, operation & 15
            if what == 1:
                self.type = imm
            elif what == 2:
                segments = self.parsed.segments
                self.segment = segments[imm] if imm < len(segments) else None
                self.offset = uleb()
            elif what == 3:
                self.offset = self.offset + uleb() & MASK64
            elif what == 4:
                self.offset = self.offset + 8 * imm & MASK64
            elif what == 5:
                self.rebase(imm, 0)
            elif what == 6:
                self.rebase(uleb(), 0)
            elif what == 7:
                self.rebase(1, uleb())
            elif what == 8:
                count = uleb()
                self.rebase(count, uleb())
            else:
                raise Stop

    def rebase(self, count: int, skip: int) -> None:
        segment = self.segment
        for _ in range(min(count, self.budget + 1)):
            if self.budget == 0 or segment is None or not segment.sound:
                raise Stop
            if not within(self.offset, 8, segment.file_size):
                raise Stop
            self.budget -= 1
            if self.type == 1:
                self.parsed.image.add(segment.off + self.offset, kinds.ABS64)
            self.offset = self.offset + 8 + skip & MASK64


def _data(parsed: Parsed, name: str) -> bytes | None:
    table = parsed.tables.get(name)
    if table is None:
        return None
    return parsed.image.file.data[table.off : table.off + table.size]


def _rebase(parsed: Parsed) -> None:
    data = _data(parsed, "rebase")
    if data is not None:
        with suppress(Stop):
            _Rebase(parsed, data).run()


def _data_in_code(parsed: Parsed) -> None:
    table, image = parsed.tables.get("data_in_code"), parsed.image
    if table is None or table.size < 8:
        return
    base = image.register(image.base_addr)
    for i in range(table.size // 8):
        image.add(table.off + 8 * i, kinds.BASE32, base)


class _Exports:
    def __init__(self, parsed: Parsed, data: bytes, off: int, image: int, trie: int) -> None:
        self.parsed, self.off = parsed, off
        self.trie = Ulebs(data)
        self.image_base, self.trie_base = image, trie

    def name(self, base: int) -> None:
        """Adds the number that comes next, which counts from a base."""
        at = self.trie.at
        self.trie.uleb(9)
        length = self.trie.at - at
        if length <= 4:
            self.parsed.image.add(self.off + at, kinds.IMPORT23 + length, base)

    def walk(self) -> None:
        trie, size = self.trie, len(self.trie.data)
        while trie.at < size:
            length = trie.uleb(9)
            if length > size - trie.at:
                break
            if length:
                end = trie.at + length
                flags = trie.uleb(9)
                if not flags & 8:
                    if flags & 3 != 2:
                        self.name(self.image_base)
                    if flags & 16:
                        self.name(self.image_base)
                if trie.at > end:
                    break
                trie.at = end
            if trie.at >= size:
                break
            for _ in range(trie.byte()):
                at = trie.data.find(b"\0", trie.at)
                if at < 0:
                    raise Stop
                trie.at = at + 1
                self.name(self.trie_base)


def _exports(parsed: Parsed) -> None:
    table, data = parsed.tables.get("exports_trie"), _data(parsed, "exports_trie")
    if table is None or data is None:
        return
    image_base = parsed.image.register(parsed.image.base_addr)
    trie_base = parsed.base_of(table.off)
    if trie_base is None:
        return
    with suppress(Stop):
        _Exports(parsed, data, table.off, image_base, trie_base).walk()


def _symbols(parsed: Parsed) -> None:
    table, image = parsed.tables.get("symtab"), parsed.image
    if table is None:
        return
    strings = parsed.tables.get("strtab")
    base = parsed.base_of(strings.off) if strings is not None else None
    for at in range(table.off, table.off + table.size - 15, 16):
        if base is not None and image.file.u32(at):
            image.add(at, kinds.BASE32, base)
        kind, section = image.file.u8(at + 4), image.file.u8(at + 5)
        if section and (kind in (0x24, 0x26, 0x2E) if kind & 0xE0 else kind & 0x0E == 0x0E):
            image.add(at + 8, kinds.ABS64)


def _indirect(parsed: Parsed) -> None:
    table, image = parsed.tables.get("indirect_symtab"), parsed.image
    symbols = parsed.tables.get("symtab")
    if table is None or symbols is None:
        return
    base = parsed.base_of(symbols.off)
    if base is None:
        return
    for at in range(table.off, table.off + table.size - 3, 4):
        if image.file.u32(at) >> 30 == 0:
            image.add(at, kinds.INDEX16, base)
