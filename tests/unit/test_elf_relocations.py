"""Relocations, symbols and the dynamic section: every address in them is found."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support import elf_model as em
from tests.support.toy_elf import (
    AARCH64,
    ALLOC,
    DYNAMIC,
    DYNSYM,
    ET_REL,
    EXEC,
    GNU_HASH,
    HASH,
    PROGBITS,
    RELA,
    RELR,
    STRTAB,
    SYMTAB,
    WRITE,
    X86_64,
    Section,
    ToyElf,
    rela,
    symbol,
    words,
)

OBJECT_BASE = 0x10000000


def refs_of(elf: ToyElf) -> dict[int, em.Ref]:
    return em.parse(elf.build()).refs


def inside(refs: dict[int, em.Ref], section: Section) -> dict[int, em.Ref]:
    """The references in a section, by offset in it."""
    return {
        off - section.off: ref
        for off, ref in refs.items()
        if section.off <= off < section.off + section.size
    }


def linked(machine: int = X86_64) -> tuple[ToyElf, Section, Section, Section]:
    elf = ToyElf(machine=machine)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 256)
    data = elf.add(".data", PROGBITS, ALLOC | WRITE, size=256)
    table = elf.add(".rela.dyn", RELA, ALLOC, size=24 * 8)
    return elf, text, data, table


@pytest.mark.parametrize(
    ("machine", "relative", "irelative", "absolute", "glob_dat"),
    [(X86_64, 8, 37, 1, 6), (AARCH64, 1027, 1032, 257, 1025)],
)
def test_rela_entries_name_a_slot_and_perhaps_a_target(
    machine: int, relative: int, irelative: int, absolute: int, glob_dat: int
) -> None:
    elf, text, data, table = linked(machine)
    table.data = (
        rela(data.addr, relative, 0, text.addr + 1)
        + rela(data.addr + 8, irelative, 0, text.addr + 2)
        + rela(data.addr + 16, absolute, 0, text.addr + 3)
        + rela(data.addr + 24, absolute, 7, text.addr + 4)  # counts from a symbol
        + rela(data.addr + 32, glob_dat, 7, 0)
        + rela(1, relative, 0, 1 << 40)  # names nothing
    )
    found = inside(refs_of(elf), table)
    assert all(ref.kind == em.ABS64 for ref in found.values())
    assert {off: ref.target for off, ref in found.items()} == {
        0: data.addr,
        16: text.addr + 1,
        24: data.addr + 8,
        40: text.addr + 2,
        48: data.addr + 16,
        64: text.addr + 3,
        72: data.addr + 24,
        96: data.addr + 32,
    }


def test_a_relocated_slot_counts_when_it_holds_an_address() -> None:
    elf, text, data, table = linked()
    end = data.addr + data.size  # of memory: an address without a byte
    table.data = b"".join(
        rela(data.addr + 8 * i, 8, 0, addend)
        for i, addend in enumerate([text.addr + 1, text.addr + 2, text.addr + 3, end])
    )
    data.data = words(text.addr + 1, 0, text.addr + 5, end, text.addr)
    found = inside(refs_of(elf), data)
    assert {off: ref.target for off, ref in found.items()} == {
        0: text.addr + 1,  # the addend once more
        16: text.addr + 5,  # another address
        24: end,  # not mapped, but the addend says that it is meant
    }


@pytest.mark.parametrize("name", [".got", ".got.plt"])
def test_the_global_offset_table_holds_bare_addresses(name: str) -> None:
    elf, text, _, _ = linked()
    got = elf.add(name, PROGBITS, ALLOC | WRITE, size=32)
    got.data = words(text.addr + 6, 0, 1, text.addr + 22)
    assert inside(refs_of(elf), got).keys() == {0, 24}


def test_relr_bitmaps_name_slots() -> None:
    elf = ToyElf()
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 256)
    data = elf.add(".data", PROGBITS, ALLOC | WRITE, size=8 * 140)
    data.data = words(*(text.addr + i for i in range(140)))
    relr = elf.add(".relr.dyn", RELR, ALLOC, size=32)
    # Slot 2, then of the 63 after it the first and last, then of the next 63 the second,
    # then slot 139.
    relr.data = words(data.addr + 16, 1 << 1 | 1 << 63 | 1, 1 << 2 | 1, data.addr + 8 * 139)
    refs = refs_of(elf)
    assert sorted(off // 8 for off in inside(refs, data)) == [2, 3, 2 + 63, 2 + 63 + 2, 139]
    assert {off: ref.target for off, ref in inside(refs, relr).items()} == {
        0: data.addr + 16,
        24: data.addr + 8 * 139,
    }


def test_relr_that_goes_back_is_believed_up_to_there() -> None:
    elf = ToyElf()
    data = elf.add(".data", PROGBITS, ALLOC | WRITE, size=64)
    data.data = words(*[data.addr] * 8)
    relr = elf.add(".relr.dyn", RELR, ALLOC, size=32)
    relr.data = words(data.addr + 32, data.addr + 8, data.addr + 40)
    assert inside(refs_of(elf), data).keys() == {32}


def test_dynamic_symbols_name_addresses_and_strings() -> None:
    elf, text, _, _ = linked()
    names = elf.add(".dynstr", STRTAB, ALLOC, b"\0one\0two\0")
    table = elf.add(".dynsym", DYNSYM, ALLOC, size=24 * 5, link=names)
    table.data = (
        symbol(0, 0, 0, 0)
        + symbol(1, 2, text.index, text.addr + 8)
        + symbol(5, 2, 0, 0)  # undefined
        + symbol(5, 6, text.index, text.addr)  # thread-local: an offset
        + symbol(1, 1, 0xFFF1, text.addr)  # a number
    )
    found = inside(refs_of(elf), table)
    assert {off: ref.target for off, ref in found.items() if ref.kind == em.ABS64} == {
        32: text.addr + 8
    }
    strings = {off: ref.target for off, ref in found.items() if ref.kind == em.BASE32}
    assert strings == {
        24: names.addr + 1,
        48: names.addr + 5,
        72: names.addr + 5,
        96: names.addr + 1,
    }
    assert all(ref.base == names.addr for ref in found.values() if ref.kind == em.BASE32)


def test_dynamic_entries_that_are_addresses() -> None:
    elf, text, data, table = linked()
    names = elf.add(".dynstr", STRTAB, ALLOC, b"\0libc.so\0")
    dynamic = elf.add(".dynamic", DYNAMIC, ALLOC | WRITE, size=16 * 7, link=names)
    dynamic.data = words(
        *(1, 1),  # NEEDED
        *(12, text.addr),  # INIT
        *(7, table.addr),  # RELA
        *(8, table.size),  # RELASZ
        *(0x6FFFFEF5, data.addr),  # GNU_HASH
        *(0, 0),
        *(12, text.addr),  # behind the end
    )
    found = inside(refs_of(elf), dynamic)
    assert {off: (ref.kind, ref.target) for off, ref in found.items()} == {
        8: (em.BASE32, names.addr + 1),
        24: (em.ABS64, text.addr),
        40: (em.ABS64, table.addr),
        72: (em.ABS64, data.addr),
    }


def test_relocations_and_hash_tables_name_rows_of_the_symbol_table() -> None:
    elf = ToyElf()
    symbols = elf.add(".dynsym", DYNSYM, ALLOC, size=24 * 6)
    table = elf.add(".rela.plt", RELA, ALLOC, size=48, link=symbols)
    table.data = rela(symbols.addr, 7, 3, 0) + rela(symbols.addr, 7, 0, 0)
    old_hash = elf.add(".hash", HASH, ALLOC, size=4 * (2 + 2 + 6), link=symbols)
    old_hash.data = struct.pack("<10I", 2, 6, 5, 0, 0, 0, 1, 0, 2, 4)
    gnu_hash = elf.add(".gnu.hash", GNU_HASH, ALLOC, size=16 + 8 + 4 * 2 + 4 * 3, link=symbols)
    gnu_hash.data = struct.pack("<4IQ2I3I", 2, 3, 1, 6, 1234, 3, 5, 1, 2, 3)
    refs = refs_of(elf)

    def rows(section: Section) -> dict[int, int]:
        return {
            off: (ref.target - symbols.addr) // 24
            for off, ref in inside(refs, section).items()
            if ref.kind == em.INDEX24
        }

    assert rows(table) == {12: 3}
    assert rows(old_hash) == {4: 6, 8: 5, 24: 1, 32: 2, 36: 4}
    assert rows(gnu_hash) == {4: 3, 24: 3, 28: 5}


def object_file(machine: int) -> tuple[ToyElf, dict[str, Section]]:
    """A relocatable file with a section symbol for each of its sections."""
    elf = ToyElf(ET_REL, machine)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\x90" * 64)
    data = elf.add("__ex_table", PROGBITS, ALLOC, size=64)
    symbols = elf.add(".symtab", SYMTAB, 0, size=96)
    symbols.data = (
        symbol(0, 0, 0, 0)
        + symbol(0, 3, text.index, 0)
        + symbol(0, 3, data.index, 0)
        + symbol(1, 2, text.index, 8)
    )
    sections = {"text": text, "data": data, "symbols": symbols}
    for name, target in ((".rela.text", text), (".rela__ex_table", data)):
        sections[name] = elf.add(name, RELA, 0, size=24 * 4, link=symbols, info=target)
    return elf, sections


def test_relocations_of_an_object_count_from_sections() -> None:
    elf, s = object_file(X86_64)
    entries = (
        rela(4, 2, 2, 12)  # PC32 against .data
        + rela(9, 4, 1, 28)  # PLT32 against .text
        + rela(16, 11, 2, 16)  # 32S against .data
        + rela(24, 4, 3, -4)  # PLT32 against a function: its addend names nothing
    )
    s[".rela.text"].data = s[".rela__ex_table"].data = entries
    refs = refs_of(elf)
    text, data = OBJECT_BASE + s["text"].off, OBJECT_BASE + s["data"].off
    code = inside(refs, s[".rela.text"])
    symbols = OBJECT_BASE + s["symbols"].off
    rows = {off: ref.target for off, ref in code.items() if ref.kind == em.INDEX24}
    assert rows == {12: symbols + 48, 36: symbols + 24, 60: symbols + 48, 84: symbols + 72}
    offsets = {off: (ref.base, ref.target) for off, ref in code.items() if off not in rows}
    assert offsets == {
        0: (text, text + 4),
        16: (data + 4, data + 16),  # counted from the end of the instruction
        24: (text, text + 9),
        40: (text + 4, text + 32),
        48: (text, text + 16),
        64: (data, data + 16),
        72: (text, text + 24),
    }
    table = inside(refs, s[".rela__ex_table"])
    assert table[0].target == data + 4
    assert table[16].target == data + 12  # counted from the field itself
    assert table[40].target == text + 28


def test_aarch64_addends_count_from_the_section_alone() -> None:
    elf, s = object_file(AARCH64)
    s[".rela.text"].data = rela(4, 283, 1, 28) + rela(8, 275, 2, 12)
    code = inside(refs_of(elf), s[".rela.text"])
    text, data = OBJECT_BASE + s["text"].off, OBJECT_BASE + s["data"].off
    assert code[16].target == text + 28
    assert code[40].target == data + 12


def test_mutated_tables_are_survived() -> None:
    rng = random.Random(21)
    files = []
    for machine in (X86_64, AARCH64):
        elf, sections = object_file(machine)
        sections[".rela.text"].data = rela(4, 2, 2, 12) + rela(9, 4, 1, 28)
        files.append(elf.build())
        elf, text, data, table = linked(machine)
        table.data = rela(data.addr, 8, 0, text.addr) + rela(data.addr + 8, 1027, 0, text.addr)
        elf.add(".relr.dyn", RELR, ALLOC, words(data.addr, (1 << 64) - 1, (1 << 64) - 1))
        files.append(elf.build())
    for _ in range(4000):
        mutated = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 10)):
            at = rng.randrange(len(mutated))
            mutated[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        em.parse(bytes(mutated))
