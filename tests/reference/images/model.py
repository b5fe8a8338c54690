"""Images, their sections, bases and data references (format-images.md, "Images")."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64

NO_ARCH, ARM64, X86_64 = range(3)
OTHER, CODE, ZEROFILL = range(3)
ELF, MACHO = "elf", "macho"


class Section(NamedTuple):
    """Offsets in bytes from the start of the file; `name` is a hash."""

    file_off: int
    file_size: int
    addr: int
    mem_size: int
    role: int
    mapped: bool
    name: int

    @property
    def end(self) -> int:
        return self.file_off + self.file_size


class Ref(NamedTuple):
    """A field at a file offset that names an address."""

    off: int
    kind: int
    target: int
    base: int
    size: int


def name_hash(name: bytes) -> int:
    value = 2166136261
    for byte in name:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def within(off: int, length: int, size: int) -> bool:
    """Whether [off, off + length) lies within `size`."""
    return off <= size and length <= size - off


class Bytes:
    """The file's bytes, read as little-endian numbers at places known to lie within."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def u8(self, off: int) -> int:
        return self.data[off]

    def u16(self, off: int) -> int:
        return int.from_bytes(self.data[off : off + 2], "little")

    def u32(self, off: int) -> int:
        return int.from_bytes(self.data[off : off + 4], "little")

    def u64(self, off: int) -> int:
        return int.from_bytes(self.data[off : off + 8], "little")


@dataclass
class Image:
    """One executable of a file."""

    file: Bytes
    format: str
    file_off: int
    file_size: int
    arch: int
    base_addr: int = 0
    sections: list[Section] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    data_refs: list[Ref] = field(default_factory=list)
    addr_low: int = 0
    addr_high: int = 0
    _added: list[tuple[int, int, int]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _by_addr: list[tuple[int, int]] = field(default_factory=list)

    def finish_sections(self) -> None:
        """Puts the sections in order and drops those that cannot be."""
        self.sections.sort(
            key=lambda s: (
                s.file_size == 0,
                s.file_off,
                s.addr,
                -s.file_size,
                -s.mem_size,
                s.name,
                s.role,
                not s.mapped,
            )
        )
        kept: list[Section] = []
        end, image_end = self.file_off, self.file_off + self.file_size
        for section in self.sections:
            if section.mapped and (
                section.mem_size < section.file_size or section.addr + section.mem_size > MASK64
            ):
                continue
            if section.file_size:
                if section.file_off < end or section.end > image_end:
                    continue
                end = section.end
            elif not section.mapped or section.mem_size == 0:
                continue
            kept.append(section)
        self.sections = kept
        self._starts = [s.file_off for s in kept if s.file_size]
        self._by_addr = sorted((s.addr, i) for i, s in enumerate(kept) if s.mapped)
        if self._by_addr:
            self.addr_low = self._by_addr[0][0]
            self.addr_high = max(s.addr + s.mem_size for s in kept if s.mapped)

    def section_at(self, off: int) -> Section | None:
        """The section with this file offset."""
        at = bisect.bisect_right(self._starts, off) - 1
        return self.sections[at] if at >= 0 and off < self.sections[at].end else None

    def section_with(self, addr: int) -> Section | None:
        """The section with this address."""
        at = bisect.bisect_right(self._by_addr, (addr, len(self.sections))) - 1
        if at < 0:
            return None
        section = self.sections[self._by_addr[at][1]]
        return section if addr - section.addr < section.mem_size else None

    def offset_of(self, addr: int, length: int) -> int | None:
        """Where in the file `length` bytes at an address lie."""
        section = self.section_with(addr)
        if section is None or not within(addr - section.addr, length, section.file_size):
            return None
        return section.file_off + addr - section.addr

    def register(self, addr: int) -> int:
        """The index of a base."""
        addr &= MASK64
        if self.bases:
            if self.bases[-1] == addr:
                return len(self.bases) - 1
            if self.bases[0] == addr:
                return 0
        self.bases.append(addr)
        return len(self.bases) - 1

    def add(self, off: int, kind: int, index: int = 0) -> None:
        """Adds a data reference, with the index of its base."""
        if off < 1 << 36 and index < 1 << 22:
            self._added.append((off, kind, index))

    def finish_refs(self) -> None:
        """Puts the references in order, drops overlapping ones and reads the others."""
        self._added.sort()
        end, image_end = self.file_off, self.file_off + self.file_size
        for off, kind, index in self._added:
            shape = kinds.SHAPES[kind]
            if off < end or off + shape.size > image_end:
                continue
            end = off + shape.size
            base = self.bases[index] if shape.origin == kinds.BASE else 0
            site = 0
            if shape.origin == kinds.SITE:
                section = self.section_at(off)
                if section is None or not section.mapped:
                    continue
                site = section.addr + off - section.file_off & MASK64
            value = int.from_bytes(self.file.data[off:end], "little")
            target = kinds.read(kind, value, site, base)
            if target is not None:
                self.data_refs.append(Ref(off, kind, target, base, shape.size))
        self._added = []
