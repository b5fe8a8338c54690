"""The ELF reader: which bytes become which sections, whatever the headers say."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest

from tests.support import elf_model as em
from tests.support.toy_elf import (
    AARCH64,
    ALLOC,
    BASE,
    DYNAMIC,
    DYNSYM,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    EXEC,
    NOBITS,
    PROGBITS,
    RELA,
    RELR,
    STRTAB,
    SYMTAB,
    TLS,
    WRITE,
    X86_64,
    ToyElf,
    rela,
    symbol,
    words,
)

OBJECT_BASE = 0x10000000


def check_tiling(model: em.Model, size: int) -> None:
    """Every byte in one piece, every address in at most one."""
    end = 0
    for piece in model.pieces:
        if piece.size:
            assert piece.off == end
            end += piece.size
        assert piece.size == 0 or not piece.mapped or piece.memory >= piece.size
    assert end == size
    memory = sorted((p.addr, p.memory) for p in model.pieces if p.mapped)
    for (addr, length), (following, _) in pairwise(memory):
        assert addr + length <= following


def full_elf(type_: int = ET_DYN, machine: int = X86_64) -> ToyElf:
    """One of everything."""
    elf = ToyElf(type_, machine)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 64)
    data = elf.add(".data", PROGBITS, ALLOC | WRITE, size=64)
    dynstr = elf.add(".dynstr", STRTAB, ALLOC, b"\0printf\0libc.so\0")
    dynsym = elf.add(".dynsym", DYNSYM, ALLOC, size=72, link=dynstr)
    dynsym.data = symbol(0, 0, 0, 0) + symbol(1, 2, text.index, text.addr + 16)
    rela_dyn = elf.add(".rela.dyn", RELA, ALLOC, link=dynsym, size=48)
    rela_dyn.data = rela(data.addr, 8, 0, text.addr) + rela(data.addr + 8, 6, 1, 0)
    relr = elf.add(".relr.dyn", RELR, ALLOC, words(data.addr + 16, 0b101))
    data.data = words(text.addr, 0, text.addr + 4, text.addr + 8, 0, text.addr + 12)
    dynamic = elf.add(".dynamic", DYNAMIC, ALLOC | WRITE, size=160, link=dynstr)
    dynamic.data = words(1, 8, 7, rela_dyn.addr, 8, 48, 36, relr.addr, 35, 16, 5, dynstr.addr)
    elf.add(".tbss", NOBITS, ALLOC | WRITE | TLS, size=32)
    elf.add(".bss", NOBITS, ALLOC | WRITE, size=100)
    elf.add(".comment", PROGBITS, 0, b"toy")
    elf.entry = text.addr
    return elf


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_sections_get_addresses_names_and_roles(machine: int) -> None:
    elf = full_elf(machine=machine)
    data = elf.build()
    model = em.parse(data)
    assert (model.format, model.subtype) == (em.FORMAT_ELF, ET_DYN)
    check_tiling(model, len(data))
    for section in elf.sections:
        if section.type == NOBITS:
            continue
        piece = model.piece(section.name)
        assert (piece.off, piece.size, piece.addr) == (section.off, section.size, section.addr)
        assert piece.role == (em.CODE if section.flags & EXEC else em.OTHER)
        assert piece.mapped == bool(section.flags & ALLOC)
    bss = model.piece(".bss")
    assert (bss.role, bss.size, bss.addr, bss.memory) == (
        em.ZEROFILL,
        0,
        elf.sections[-2].addr,
        100,
    )
    assert em.name_hash(".tbss") not in {p.name for p in model.pieces}


def test_headers_and_gaps_are_mapped_where_a_segment_loads_them() -> None:
    model = em.parse(full_elf().build())
    header = model.piece("ELF header")
    assert (header.off, header.size, header.addr, header.mapped) == (0, 64, BASE, True)
    assert model.piece("program headers").addr == BASE + 64
    assert not model.piece("section headers").mapped
    gaps = [p for p in model.pieces if p.size and p.mapped and p.off % 0x200 and p.off > 0x200]
    assert gaps
    assert all(p.addr == BASE + p.off for p in gaps)
    assert len({p.name for p in gaps}) == len(gaps), "gaps are named after what they follow"


def test_addresses_in_headers_are_references() -> None:
    elf = full_elf()
    data = elf.build()
    model = em.parse(data)
    table_off = struct.unpack_from("<Q", data, 40)[0]
    assert model.refs[24].target == elf.entry
    assert model.refs[64 + 16].target == BASE
    assert model.refs[64 + 24].target == BASE
    for section in elf.sections:
        off = table_off + 64 * section.index + 16
        if section.addr:
            assert model.refs[off].target == section.addr
        else:
            assert off not in model.refs


def test_a_relocatable_file_gets_addresses() -> None:
    elf = full_elf(ET_REL)
    data = elf.build()
    model = em.parse(data)
    check_tiling(model, len(data))
    text = model.piece(".text")
    assert (text.addr, text.role) == (OBJECT_BASE + text.off, em.CODE)
    bss = model.piece(".bss")
    assert bss.addr == OBJECT_BASE + -(-len(data) // 4096) * 4096


def test_without_section_headers_segments_are_read() -> None:
    elf = full_elf()
    data = elf.build(section_headers=False)
    model = em.parse(data)
    check_tiling(model, len(data))
    text = elf.sections[0]
    (home,) = [p for p in model.pieces if p.size and p.off <= text.off < p.off + p.size]
    assert home.role == em.CODE
    assert home.addr + text.off - home.off == text.addr
    assert [p.memory for p in model.pieces if p.role == em.ZEROFILL] != []
    with_headers = em.parse(elf.build())
    for name in (".rela.dyn", ".relr.dyn"):
        (section,) = [s for s in elf.sections if s.name == name]
        for off in range(section.off, section.off + section.size, 8):
            assert model.refs.get(off) == with_headers.refs.get(off)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (24, 1 << 63),  # offset outside
        (24, 0),  # on top of the headers
        (32, 1 << 62),  # endless
        (32, (1 << 64) - 1),
        (16, (1 << 64) - 8),  # at the end of memory
        (16, 0),
        (4, 0x7FFFFFFF),  # of no known type
        (0, 0xFFFFFFFF),  # without a name
    ],
)
@pytest.mark.parametrize("victim", [".comment", ".data", ".dynstr"])
def test_an_odd_section_spoils_no_other(field: int, value: int, victim: str) -> None:
    elf = full_elf()
    data = bytearray(elf.build())
    table_off = struct.unpack_from("<Q", data, 40)[0]
    (section,) = [s for s in elf.sections if s.name == victim]
    size = 8 if field >= 8 else 4
    at = table_off + 64 * section.index + field
    data[at : at + size] = value.to_bytes(size, "little")
    model = em.parse(bytes(data))
    check_tiling(model, len(data))
    text = model.piece(".text")
    assert (text.role, text.size, text.addr) == (em.CODE, 64, elf.sections[0].addr)
    (rela_dyn,) = [s for s in elf.sections if s.name == ".rela.dyn"]
    assert model.refs[rela_dyn.off].target == elf.sections[1].addr


def test_a_table_that_shares_its_bytes_is_not_walked() -> None:
    elf = full_elf()
    (section,) = [s for s in elf.sections if s.name == ".rela.dyn"]
    clone = elf.add(".rela.clone", RELA, ALLOC, size=48)
    data = bytearray(elf.build())
    at = struct.unpack_from("<Q", data, 40)[0] + 64 * clone.index
    shape = struct.pack("<QQ", section.addr + 24, section.off + 24)
    data[at + 16 : at + 32] = shape
    model = em.parse(bytes(data))
    check_tiling(model, len(data))
    assert model.refs[section.off].target == elf.sections[1].addr


@pytest.mark.parametrize(("machine", "class_"), [(3, 2), (40, 2), (X86_64, 1)])
def test_other_machines_and_widths_are_left_raw(machine: int, class_: int) -> None:
    data = bytearray(full_elf(machine=machine).build())
    data[4] = class_
    assert em.parse(bytes(data)).pieces == []


def test_pointers_lie_bare_in_a_fixed_executable() -> None:
    elf = ToyElf(ET_EXEC)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 64)
    table = elf.add(".rodata", PROGBITS, ALLOC, size=24)
    table.data = words(text.addr + 8, 12345, text.addr + 1)
    refs = em.parse(elf.build()).refs
    assert refs[table.off].target == text.addr + 8
    assert refs[table.off + 16].target == text.addr + 1
    assert table.off + 8 not in refs


def test_every_truncation_is_survived() -> None:
    for type_ in (ET_DYN, ET_REL):
        data = full_elf(type_).build()
        for size in range(len(data)):
            model = em.parse(data[:size])
            if model.pieces:
                check_tiling(model, size)


def test_mutations_are_survived() -> None:
    rng = random.Random(20)
    files = [
        full_elf(type_, machine).build(section_headers=headers)
        for type_ in (ET_DYN, ET_EXEC, ET_REL)
        for machine in (X86_64, AARCH64)
        for headers in (True, False)
    ]
    extremes = [0, 1, 0x7F, 0x80, 0xFF]
    for _ in range(4000):
        data = bytearray(rng.choice(files))
        heads = [*range(16, 400), *range(len(data) - 900, len(data))]
        for _ in range(rng.randint(1, 12)):
            at = rng.choice(heads) if rng.random() < 0.7 else rng.randrange(len(data))
            data[at] = rng.choice(extremes) if rng.random() < 0.5 else rng.randrange(256)
        model = em.parse(bytes(data))
        if model.pieces:
            check_tiling(model, len(data))


def test_every_refused_allocation_gives_everything_back() -> None:
    for headers in (True, False):
        data = full_elf().build(section_headers=headers)
        for fail_at in range(1, 200):
            if em.try_parse(data, fail_at) is not None:
                break
        else:
            pytest.fail("no end of allocations")


def test_the_same_bytes_give_the_same_model() -> None:
    data = full_elf().build()
    assert em.parse(data) == em.parse(data)


def test_symbol_table_of_an_object_counts_from_its_sections() -> None:
    elf = ToyElf(ET_REL)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 64)
    table = elf.add(".symtab", SYMTAB, 0, size=96)
    table.data = (
        symbol(0, 0, 0, 0)
        + symbol(0, 3, text.index, 0)  # the section's own symbol
        + symbol(1, 2, text.index, 16)
        + symbol(1, 0, 0xFFF1, 5)  # an absolute number
    )
    refs = em.parse(elf.build()).refs
    assert {off - table.off for off in refs if off >= table.off} == {2 * 24 + 8}
    ref = refs[table.off + 2 * 24 + 8]
    base = OBJECT_BASE + text.off
    assert (ref.kind, ref.base, ref.target) == (em.BASE32, base, base + 16)
