"""What the sections of an executable are called, read from its own headers for people to see.

Nothing but the text shown depends on it: whatever is malformed has no name.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: bounds for hostile files
_MOST, _MOST_COMMANDS, _MOST_SLICES = 1 << 16, 1 << 12, 16
_FAT = {0xCAFEBABE: ">5I", 0xCAFEBABF: ">IIQQII"}
_THIN = 0xFEEDFACF
_SEGMENT, _SYMTAB, _DYSYMTAB = 0x19, 0x2, 0xB
_DYLD_INFO = (0x22, 0x80000022)
_DYLD_TABLES = ("rebase opcodes", "bind opcodes", "weak binds", "lazy binds", "exports trie")
_ZERO_FILL = (0x1, 0xC, 0x12)
_LINKEDIT = {
    0x1D: "code signature",
    0x1E: "split info",
    0x26: "function starts",
    0x29: "data in code",
    0x2B: "code signing requirements",
    0x2E: "optimization hints",
    0x80000033: "exports trie",
    0x80000034: "chained fixups",
}


class SectionNames:
    """Names by file offset. Offsets in bytes from the start of the file."""

    def __init__(self, data: Buffer) -> None:
        found: dict[int, str] = {}
        with memoryview(data) as view, view.cast("B") as file:
            try:
                for offset, name in _sections(file):
                    found.setdefault(offset, name)
            except struct.error:
                pass  # ends early: what was read stays
        self._offsets = sorted(found)
        self._names = found

    def at(self, offset: int) -> str:
        """The section that begins at offset, or what lies before it; "" when unknown."""
        if offset in self._names:
            return self._names[offset]
        before = bisect.bisect(self._offsets, offset)
        return f"after {self._names[self._offsets[before - 1]]}" if before else ""


def _sections(file: memoryview) -> Iterator[tuple[int, str]]:
    if bytes(file[:4]) == b"\x7fELF":
        yield from _elf(file)
        return
    (magic,) = struct.unpack_from(">I", file)
    if magic not in _FAT:
        yield from _macho(file, 0)
        return
    (count,) = struct.unpack_from(">I", file, 4)
    yield 0, "fat header"
    for index in range(min(count, _MOST_SLICES)):
        entry = struct.unpack_from(_FAT[magic], file, 8 + index * struct.calcsize(_FAT[magic]))
        yield from _macho(file, entry[2])


def _text(raw: bytes) -> str:
    name = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in name)


def _elf(file: memoryview) -> Iterator[tuple[int, str]]:
    if bytes(file[4:6]) != b"\x02\x01":  # 64 bits, little endian
        return
    segments, sections = struct.unpack_from("<QQ", file, 32)
    _, count, size, total, names = struct.unpack_from("<5H", file, 54)
    yield 0, "ELF header"
    if count:
        yield segments, "program headers"
    if not sections or size != 64:
        return
    yield sections, "section headers"
    first = struct.unpack_from("<IIQQQQIIQQ", file, sections)
    total = min(total or first[5], _MOST)
    names = first[6] if names == 0xFFFF else names
    strings = struct.unpack_from("<IIQQQQ", file, sections + names * 64)
    for index in range(1, total):
        header = struct.unpack_from("<IIQQQQ", file, sections + index * 64)
        if header[1] in (0, 8) or header[5] == 0 or header[0] >= strings[5]:
            continue  # unused, zero-fill, empty
        at = strings[4] + header[0]
        name = _text(bytes(file[at : at + 256]))
        if name:
            yield header[4], name


def _macho(file: memoryview, begin: int) -> Iterator[tuple[int, str]]:
    magic, _, _, _, count, _ = struct.unpack_from("<6I", file, begin)
    if magic != _THIN:
        return
    yield begin, "Mach-O header"
    at = begin + 32
    for _ in range(min(count, _MOST_COMMANDS)):
        command, size = struct.unpack_from("<II", file, at)
        if size < 8:
            return
        for offset, name in _command(file, at, command, size):
            if offset:
                yield begin + offset, name
        at += size


def _command(file: memoryview, at: int, command: int, length: int) -> Iterator[tuple[int, str]]:
    if command == _SEGMENT:
        (count,) = struct.unpack_from("<I", file, at + 64)
        for index in range(min(count, (length - 72) // 80, 256)):
            name, owner, size, where, _, _, _, flags = struct.unpack_from(
                "<16s16s8xQIIIII", file, at + 72 + index * 80
            )
            if size and flags & 0xFF not in _ZERO_FILL:
                yield where, f"{_text(owner)},{_text(name)}"
    elif command == _SYMTAB:
        symbols, _, strings = struct.unpack_from("<3I", file, at + 8)
        yield symbols, "symbol table"
        yield strings, "string table"
    elif command == _DYSYMTAB:
        (indirect,) = struct.unpack_from("<I", file, at + 56)
        yield indirect, "indirect symbols"
    elif command in _DYLD_INFO:
        offsets = struct.unpack_from("<10I", file, at + 8)[::2]
        yield from zip(offsets, _DYLD_TABLES, strict=True)
    elif command in _LINKEDIT:
        (offset,) = struct.unpack_from("<I", file, at + 8)
        yield offset, _LINKEDIT[command]
