"""References in an ELF file's headers and tables (format-images-elf.md, 4 and 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference.images import elf_btf, frames, kinds
from tests.reference.images.elf_layout import BTF
from tests.reference.images.kinds import MASK64
from tests.reference.images.model import name_hash

if TYPE_CHECKING:
    from tests.reference.images.elf import Elf, Section

PROGBITS, SYMTAB, STRTAB, RELA, HASH, DYNAMIC, DYNSYM, RELR = 1, 2, 3, 4, 5, 6, 11, 19
ARRAYS = (14, 15, 16)
GNU_HASH = 0x6FFFFFF6
EXEC, THREAD_LOCAL = 4, 0x400
FIXED = 2
X86_64 = 62
RELATIVE = {62: (8, 37), 183: (1027, 1032)}
ABSOLUTE = {62: 1, 183: 257}
ADDRESS_TAGS = {
    3, 4, 5, 6, 7, 12, 13, 17, 23, 25, 26, 32, 34, 36,
    0x6FFFFEF5, 0x6FFFFEF6, 0x6FFFFEF7, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE,
}  # fmt: skip
NAME_TAGS = {1, 14, 15, 29}
SECTION_SYMBOL, FILE_SYMBOL_LIMIT, THREAD_SYMBOL = 3, 0xFF00, 6
NAMED = {name_hash(name): name for name in (b".eh_frame", b".eh_frame_hdr", b".got", b".got.plt")}


def read(elf: Elf) -> None:
    """Adds all references of headers and tables."""
    _Tables(elf).read()


class _Tables:
    def __init__(self, elf: Elf) -> None:
        self.elf, self.image, self.file = elf, elf.image, elf.file

    def read(self) -> None:
        if not self.elf.relocatable:
            self.field(24)
            for header in self.elf.headers:
                self.field(header.at + 16)
                self.field(header.at + 24)
            off, size = self.elf.section_place
            for at in range(off, off + size, 64):
                self.field(at + 16)
        readers = {
            SYMTAB: self.symbols,
            DYNSYM: self.symbols,
            RELA: self.relocations_of_object if self.elf.relocatable else self.relocations,
            RELR: self.relr,
            HASH: self.hash,
            GNU_HASH: self.gnu_hash,
            DYNAMIC: self.dynamic,
        }
        for section in self.elf.sections:
            if section.whole:
                readers.get(section.type, self.other)(section)

    # --- what tables are made of ---

    def field(self, off: int) -> None:
        """An address, if it is one of the image's."""
        value = self.file.u64(off)
        if value and self.image.addr_low <= value <= self.image.addr_high:
            self.image.add(off, kinds.ABS64)

    def field_at(self, addr: int) -> None:
        """The same, of the field at an address."""
        off = self.image.offset_of(addr, 8)
        if off is not None:
            self.field(off)

    def base(self, section: Section) -> int:
        if section.base is None:
            section.base = self.image.register(section.addr)
        return section.base

    def base_after(self, section: Section) -> int:
        if section.base_after is None:
            section.base_after = self.image.register(section.addr + 4)
        return section.base_after

    def row(self, symbols: Section, off: int) -> None:
        """The index of a symbol."""
        if self.file.u32(off):
            self.image.add(off, kinds.INDEX24, self.base(symbols))

    def linked(self, section: Section, *types: int) -> Section | None:
        found = self.elf.section(section.link)
        return found if found is not None and found.mapped and found.type in types else None

    def linked_symbols(self, section: Section) -> Section | None:
        return self.linked(section, SYMTAB, DYNSYM)

    @staticmethod
    def rows(section: Section, size: int) -> range:
        return range(section.off, section.off + section.size - size + 1, size)

    # --- one table each ---

    def symbols(self, section: Section) -> None:
        names = self.linked(section, STRTAB)
        for at in self.rows(section, 24):
            if names is not None and self.file.u32(at):
                self.image.add(at, kinds.BASE32, self.base(names))
            kind, index = self.file.u8(at + 4) & 15, self.file.u16(at + 6)
            if index == 0 or index >= FILE_SYMBOL_LIMIT or kind == THREAD_SYMBOL:
                continue
            if not self.elf.relocatable:
                self.field(at + 8)
                continue
            home = self.elf.section(index)
            if kind != SECTION_SYMBOL and home is not None and home.mapped:
                self.image.add(at + 8, kinds.BASE32, self.base(home))

    def relocations(self, section: Section) -> None:
        symbols = self.linked_symbols(section)
        relative, absolute = RELATIVE[self.elf.machine], ABSOLUTE[self.elf.machine]
        for at in self.rows(section, 24):
            addr, addend = self.file.u64(at), self.file.u64(at + 16)
            type_, symbol = self.file.u32(at + 8), self.file.u32(at + 12)
            self.field(at)
            if symbols is not None:
                self.row(symbols, at + 12)
            if type_ not in relative and not (symbol == 0 and type_ == absolute):
                continue
            self.field(at + 16)
            place = self.image.offset_of(addr, 8)
            if place is None:
                continue
            value = self.file.u64(place)
            if value and (value == addend or self.image.section_with(value) is not None):
                self.image.add(place, kinds.ABS64)

    def relocations_of_object(self, section: Section) -> None:
        symbols = self.linked_symbols(section)
        home = self.elf.section(section.info)
        if symbols is None or home is None:
            return
        for at in self.rows(section, 24):
            if home.mapped:
                self.image.add(at, kinds.BASE32, self.base(home))
            self.row(symbols, at + 12)
            type_, symbol = self.file.u32(at + 8), self.file.u32(at + 12)
            if not symbols.whole or symbol >= symbols.size // 24:
                continue
            entry = symbols.off + 24 * symbol
            named = self.elf.section(self.file.u16(entry + 6))
            if self.file.u8(entry + 4) & 15 != SECTION_SYMBOL or named is None or not named.mapped:
                continue
            after = self.elf.machine == X86_64 and home.flags & EXEC and type_ in (2, 4)
            base = self.base_after(named) if after else self.base(named)
            self.image.add(at + 16, kinds.BASE32, base)

    def relr(self, section: Section) -> None:
        after = self.image.addr_low
        for at in self.rows(section, 8):
            word = self.file.u64(at)
            if word & 1 == 0:
                if word < after or word >= self.image.addr_high:
                    return
                self.field(at)
                self.field_at(word)
                after = word + 8
            else:
                for b in range(1, 64):
                    addr = after + 8 * (b - 1)
                    if word >> b & 1 and addr <= MASK64:
                        self.field_at(addr)
                after += 504
            if after > MASK64:
                return

    def hash(self, section: Section) -> None:
        symbols = self.linked_symbols(section)
        if symbols is not None:
            for at in list(self.rows(section, 4))[1:]:
                self.row(symbols, at)

    def gnu_hash(self, section: Section) -> None:
        symbols = self.linked_symbols(section)
        if symbols is None or section.size < 16:
            return
        off = section.off
        self.row(symbols, off + 4)
        first = 16 + 8 * self.file.u32(off + 8)
        for at in range(first, section.size - 3, 4)[: self.file.u32(off)]:
            self.row(symbols, off + at)

    def dynamic(self, section: Section) -> None:
        if self.elf.relocatable:
            return
        names = self.linked(section, STRTAB)
        for at in self.rows(section, 16):
            tag = self.file.u64(at)
            if tag == 0:
                break
            if tag in ADDRESS_TAGS:
                self.field(at + 8)
            elif tag in NAME_TAGS and names is not None:
                self.image.add(at + 8, kinds.BASE32, self.base(names))

    def other(self, section: Section) -> None:
        if self.elf.btf is not None and section.name == BTF:
            elf_btf.read(self.image, section.off, section.size, *self.elf.btf)
            return
        if self.elf.relocatable or not section.mapped:
            return
        name = NAMED.get(section.name)
        if name == b".eh_frame":
            frames.Frames(self.image, section.off, section.size, section.addr).walk()
        elif name == b".eh_frame_hdr":
            frames.read_header(self.image, section.off, section.size, section.addr)
        elif name is not None or (self.elf.type == FIXED and self.is_data(section)):
            self.pointers(section)

    @staticmethod
    def is_data(section: Section) -> bool:
        plain = section.type == PROGBITS and not section.flags & (EXEC | THREAD_LOCAL)
        return plain or section.type in ARRAYS

    def pointers(self, section: Section) -> None:
        low, high = self.image.addr_low, self.image.addr_high
        first = section.off + (-section.addr & 7)
        for at in range(first, section.off + section.size - 7, 8):
            value = self.file.u64(at)
            if value and low <= value <= high and self.image.section_with(value) is not None:
                self.image.add(at, kinds.ABS64)
