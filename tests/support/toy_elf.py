"""A writer of small ELF files for readable tests: sections at round offsets, one segment.

Every section starts at a multiple of `STRIDE` in the file and, unless the file is
relocatable, at `BASE` plus that offset in memory, so a test knows all addresses as soon as
it has added its sections and can fill in their contents afterwards.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
X86_64, AARCH64 = 62, 183
PROGBITS, SYMTAB, STRTAB, RELA, DYNAMIC, NOBITS, DYNSYM, RELR = 1, 2, 3, 4, 6, 8, 11, 19
WRITE, ALLOC, EXEC, TLS = 1, 2, 4, 0x400
PT_LOAD, PT_DYNAMIC, PT_GNU_EH_FRAME = 1, 2, 0x6474E550

HASH, GNU_HASH = 5, 0x6FFFFFF6

BASE = 0x40000
STRIDE = 0x200
PHDR_OFF = 64


@dataclass
class Section:
    """One section; sizes and offsets in bytes."""

    name: str
    type: int
    flags: int
    data: bytes
    off: int
    addr: int
    size: int
    index: int
    link: int = 0
    info: int = 0
    entry_size: int = 0


@dataclass
class ToyElf:
    """Collects sections and writes them, with `build`, as one file."""

    type: int = ET_DYN
    machine: int = X86_64
    base: int = BASE
    entry: int = 0
    sections: list[Section] = field(default_factory=list)
    next_off: int = STRIDE

    def add(
        self,
        name: str,
        type_: int = PROGBITS,
        flags: int = ALLOC,
        data: bytes = b"",
        *,
        size: int | None = None,
        link: Section | None = None,
        info: Section | None = None,
    ) -> Section:
        """Appends a section of `size` bytes (by default as long as `data`)."""
        size = len(data) if size is None else size
        mapped = bool(flags & ALLOC) and self.type != ET_REL
        section = Section(
            name,
            type_,
            flags,
            data,
            self.next_off,
            self.base + self.next_off if mapped else 0,
            size,
            len(self.sections) + 1,
            link.index if link else 0,
            info.index if info else 0,
        )
        self.sections.append(section)
        self.next_off += max(1, -(-size // STRIDE)) * STRIDE
        return section

    def segments(self, file_len: int) -> list[tuple[int, ...]]:
        """(type, flags, offset, address, bytes in the file, bytes in memory) of each."""
        if self.type == ET_REL:
            return []
        mapped = [s for s in self.sections if s.flags & ALLOC]
        end = max((s.off + s.size for s in mapped if s.type != NOBITS), default=STRIDE)
        mem_end = max((s.off + s.size for s in mapped), default=end)
        found: list[tuple[int, ...]] = [(PT_LOAD, 7, 0, self.base, min(end, file_len), mem_end)]
        for section in mapped:
            special = {".dynamic": PT_DYNAMIC, ".eh_frame_hdr": PT_GNU_EH_FRAME}.get(section.name)
            if special:
                found.append((special, 4, section.off, section.addr, section.size, section.size))
        return found

    def build(self, *, section_headers: bool = True) -> bytes:
        """The file's bytes, as they stand now."""
        names, starts = b"\0", []
        for section in self.sections:
            starts.append(len(names))
            names += section.name.encode() + b"\0"
        names_start = len(names)
        names += b".shstrtab\0"
        out = bytearray(self.next_off)
        for section in self.sections:
            if section.type != NOBITS:
                data = section.data.ljust(section.size, b"\0")
                out[section.off : section.off + section.size] = data
        names_off = len(out)
        if section_headers:
            out += names.ljust(-(-len(names) // 8) * 8, b"\0")
        table_off = len(out)
        segments = self.segments(len(out))
        for i, (type_, flags, off, addr, file_len, mem_len) in enumerate(segments):
            at = PHDR_OFF + i * 56
            segment = (type_, flags, off, addr, addr, file_len, mem_len, 0x1000)
            out[at : at + 56] = struct.pack("<IIQQQQQQ", *segment)
        if section_headers:
            out += bytes(64)
            for section, start in zip(self.sections, starts, strict=True):
                s = section
                fields = (start, s.type, s.flags, s.addr, s.off, s.size, s.link, s.info, 8)
                out += struct.pack("<IIQQQQIIQQ", *fields, s.entry_size)
            shape = (names_start, STRTAB, 0, 0, names_off, len(names), 0, 0, 1, 0)
            out += struct.pack("<IIQQQQIIQQ", *shape)
        count = len(self.sections) + 2 if section_headers else 0
        out[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH",
            b"\x7fELF\x02\x01\x01",
            self.type,
            self.machine,
            1,
            self.entry,
            PHDR_OFF if segments else 0,
            table_off if section_headers else 0,
            0,
            64,
            56,
            len(segments),
            64,
            count,
            count - 1 if count else 0,
        )
        return bytes(out)


def rela(offset: int, type_: int, symbol: int, addend: int) -> bytes:
    """One Elf64_Rela."""
    return struct.pack("<QIIq", offset, type_, symbol, addend)


def symbol(name: int, kind: int, section: int, value: int, size: int = 0) -> bytes:
    """One Elf64_Sym; `section` is a header index."""
    return struct.pack("<IBBHQQ", name, kind, 0, section, value, size)


def words(*values: int) -> bytes:
    """64-bit little-endian words."""
    return struct.pack(f"<{len(values)}Q", *values)
