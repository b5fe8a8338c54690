"""ELF files: headers, and sections made up (format-images-elf.md, 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.reference.images import elf_layout, elf_tables, jump_tables
from tests.reference.images.kinds import sext
from tests.reference.images.model import (
    ARM64,
    ELF,
    X86_64,
    Bytes,
    Image,
    name_hash,
    within,
)

MAGIC = b"\x7fELF"
RELOCATABLE, FIXED, SHARED = 1, 2, 3
NULL, PROGBITS, SYMTAB, STRTAB, RELA, HASH, DYNAMIC, NOBITS, DYNSYM, RELR = (
    0, 1, 2, 3, 4, 5, 6, 8, 11, 19,
)  # fmt: skip
GNU_HASH = 0x6FFFFFF6
WRITE, ALLOC, EXEC, THREAD_LOCAL = 1, 2, 4, 0x400
PT_LOAD, PT_DYNAMIC, PT_FRAMES = 1, 2, 0x6474E550


class Header(NamedTuple):
    """A program header; `at` is where it stands."""

    at: int
    type: int
    flags: int
    off: int
    addr: int
    file_size: int
    mem_size: int


@dataclass
class Section:
    """A section header, or what stands for one."""

    index: int
    type: int
    flags: int
    addr: int
    off: int
    size: int
    link: int
    info: int
    name: int
    whole: bool = False
    mapped: bool = False
    base: int | None = None
    base_after: int | None = None  # of addr + 4


@dataclass
class Elf:
    """What the headers say."""

    file: Bytes
    image: Image
    type: int
    machine: int
    headers: list[Header]
    header_place: tuple[int, int]
    segments: list[Header]
    sections: list[Section]
    section_place: tuple[int, int]
    made_up: bool
    btf: tuple[int, int] | None = None  # addresses of types and strings

    @property
    def relocatable(self) -> bool:
        return self.type == RELOCATABLE

    def section(self, index: int) -> Section | None:
        return self.sections[index] if index < len(self.sections) else None

    def segment_offset(self, addr: int, length: int) -> int | None:
        """Where the segments put `length` bytes at an address."""
        for s in self.segments:
            if s.addr <= addr and within(addr - s.addr, length, s.file_size):
                return s.off + addr - s.addr
        return None


def read(data: bytes) -> list[Image]:
    """The image of an ELF file, if it is one that can be read."""
    file = Bytes(data)
    if len(data) < 64 or data[4:7] != b"\x02\x01\x01":
        return []
    type_, machine = file.u16(16), file.u16(18)
    arch = {62: X86_64, 183: ARM64}.get(machine)
    if type_ not in (RELOCATABLE, FIXED, SHARED) or arch is None:
        return []
    image = Image(file, ELF, 0, len(data), arch)
    headers, header_place = _program_headers(file)
    segments = [
        h
        for h in headers
        if h.type == PT_LOAD
        and h.mem_size >= h.file_size
        and h.addr + h.mem_size < 1 << 64
        and within(h.off, h.file_size, len(file))
    ][:64]
    sections, section_place = _section_headers(file)
    elf = Elf(
        file, image, type_, machine, headers, header_place, segments, sections, section_place, False
    )
    if not sections:
        elf.made_up = True
        _make_up(elf)
    elf_layout.lay_out(elf)
    image.finish_sections()
    image.base_addr = image.addr_low
    elf_tables.read(elf)
    jump_tables.add_all(image)
    image.finish_refs()
    return [image]


def _program_headers(file: Bytes) -> tuple[list[Header], tuple[int, int]]:
    off, count = file.u64(32), file.u16(56)
    if file.u16(54) != 56 or not within(off, 56 * count, len(file)):
        return [], (0, 0)
    headers = [
        Header(
            at,
            file.u32(at),
            file.u32(at + 4),
            file.u64(at + 8),
            file.u64(at + 16),
            file.u64(at + 32),
            file.u64(at + 40),
        )
        for at in range(off, off + 56 * count, 56)
    ]
    return headers, (off, 56 * count)


def _section_headers(file: Bytes) -> tuple[list[Section], tuple[int, int]]:
    off, count, names = file.u64(40), file.u16(60), file.u16(62)
    if off == 0 or file.u16(58) != 64 or not within(off, 64, len(file)):
        return [], (0, 0)
    if count == 0:
        count = file.u64(off + 32)
    if names == 0xFFFF:
        names = file.u32(off + 40)
    if count > 1 << 18 or not within(off, 64 * count, len(file)):
        return [], (0, 0)
    strings = b""
    if names < count:
        head = off + 64 * names
        start, size = file.u64(head + 24), file.u64(head + 32)
        if within(start, size, len(file)):
            strings = file.data[start : start + size]
    sections = []
    for i in range(count):
        at = off + 64 * i
        name = strings[file.u32(at) :][:256].partition(b"\0")[0]
        sections.append(
            Section(
                i,
                file.u32(at + 4),
                file.u64(at + 8),
                file.u64(at + 16),
                file.u64(at + 24),
                file.u64(at + 32),
                file.u32(at + 40),
                file.u32(at + 44),
                name_hash(name) if name else 0,
            )
        )
    return sections, (off, 64 * count)


def _make_up(elf: Elf) -> None:
    seen = set()
    for header in elf.headers:
        if header.type in (PT_DYNAMIC, PT_FRAMES) and header.type not in seen:
            seen.add(header.type)
            make = _make_up_dynamic if header.type == PT_DYNAMIC else _make_up_frames
            make(elf, header.addr, header.file_size)


def _append(elf: Elf, type_: int, name: bytes, addr: int, size: int) -> None:
    off = elf.segment_offset(addr, size)
    if size and off is not None:
        index = len(elf.sections)
        elf.sections.append(Section(index, type_, ALLOC, addr, off, size, 0, 0, name_hash(name)))


def _make_up_dynamic(elf: Elf, addr: int, size: int) -> None:
    off = elf.segment_offset(addr, size)
    if off is None:
        return
    values: dict[int, int] = {}
    for at in range(off, off + size - 15, 16):
        tag = elf.file.u64(at)
        if tag == 0:
            break
        values[tag] = elf.file.u64(at + 8)
    _append(elf, DYNAMIC, b".dynamic", addr, size)
    _append(elf, RELA, b".rela.dyn", values.get(7, 0), values.get(8, 0))
    _append(elf, RELA, b".rela.plt", values.get(23, 0), values.get(2, 0))
    _append(elf, RELR, b".relr.dyn", values.get(36, 0), values.get(35, 0))


def _make_up_frames(elf: Elf, addr: int, size: int) -> None:
    _append(elf, PROGBITS, b".eh_frame_hdr", addr, size)
    off = elf.segment_offset(addr, size)
    if size < 8 or off is None or elf.file.u8(off + 1) != 0x1B:
        return
    start = addr + 4 + sext(elf.file.u32(off + 4), 32) & (1 << 64) - 1
    for s in elf.segments:
        if s.addr <= start < s.addr + s.file_size:
            _append(elf, PROGBITS, b".eh_frame", start, s.addr + s.file_size - start)
            break
