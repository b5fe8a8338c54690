"""Chained fixups: which pointers the chains string together, and what they name."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support import file_model as fm
from tests.support.toy_macho import ARM64, BASE, LC_CHAINED_FIXUPS, PAGE, Section, ToyMacho

BIND64 = 1 << 63
BIND_ARM64E, AUTH_ARM64E = 1 << 62, 1 << 63


def toy_with_data(size: int, subtype: int = 0) -> tuple[ToyMacho, Section]:
    toy = ToyMacho(ARM64, subtype)
    toy.segment("__TEXT")
    toy.section("__const", 64)
    toy.segment("__DATA")
    return toy, toy.section("__data", size)


def found(toy: ToyMacho, data: Section) -> list[tuple[int, int, int]]:
    """(offset in the section, kind, target) of what was found."""
    return [(r.off - data.off, r.kind, r.target) for r in fm.parse(toy.build()).data_refs()]


def test_plain_addresses() -> None:
    toy, data = toy_with_data(256)
    high8 = 0x80 << 36
    toy.chains(2, {"__DATA": {0: 0x100000800, 20: BIND64 | 3, 40: high8 | 0x100000804}})
    assert found(toy, data) == [
        (0, fm.CHAIN64, 0x100000800),
        (20, fm.CHAIN_BIND, 0),
        (40, fm.CHAIN64, 0x100000804),
    ]


def test_offsets_from_the_image() -> None:
    toy, data = toy_with_data(256)
    toy.chains(6, {"__DATA": {8: 0x800, 16: 0x80C, 200: BIND64}})
    assert found(toy, data) == [
        (8, fm.CHAIN64_OFFSET, BASE + 0x800),
        (16, fm.CHAIN64_OFFSET, BASE + 0x80C),
        (200, fm.CHAIN_BIND, 0),
    ]


@pytest.mark.parametrize(
    ("number", "kind", "origin"),
    [
        (1, fm.CHAIN_ARM64E, 0),
        (10, fm.CHAIN_ARM64E, 0),
        (7, fm.CHAIN_ARM64E_OFFSET, BASE),
        (9, fm.CHAIN_ARM64E_OFFSET, BASE),
        (12, fm.CHAIN_ARM64E_OFFSET, BASE),
    ],
)
def test_signed_pointers(number: int, kind: int, origin: int) -> None:
    toy, data = toy_with_data(256, subtype=0x80000002)
    toy.chains(
        number,
        {
            "__DATA": {
                0: 0x800,
                8: AUTH_ARM64E | 0xBEEF << 32 | 0x810,
                24: BIND_ARM64E | 7,
                32: AUTH_ARM64E | BIND_ARM64E | 9,
                40: 0xAA << 43 | 0x820,
            }
        },
    )
    assert found(toy, data) == [
        (0, kind, origin + 0x800),
        (8, fm.CHAIN_ARM64E_AUTH, BASE + 0x810),
        (24, fm.CHAIN_BIND, 0),
        (32, fm.CHAIN_BIND, 0),
        (40, kind, origin + 0x820),
    ]
    assert fm.parse(toy.build()).images[0].subtype == 2


@pytest.mark.parametrize("page_size", [0x1000, 0x4000])
def test_every_page_has_a_chain_of_its_own(page_size: int) -> None:
    toy, data = toy_with_data(5 * 0x4000)
    random_ = random.Random(1)
    places = sorted(at * 4 for at in random_.sample(range(5 * 0x1000 - 2), 3000))
    places = [a for a, b in zip([-8, *places], places, strict=False) if b - a >= 8 and a >= 0]
    places = [at for at in places if at % page_size <= page_size - 8]
    toy.chains(6, {"__DATA": {at: 0x800 + at for at in places}}, page_size=page_size)
    # A bigger gap than `next` can express cannot occur within a page.
    assert found(toy, data) == [(at, fm.CHAIN64_OFFSET, BASE + 0x800 + at) for at in places]


@pytest.mark.parametrize(
    ("number", "kind", "bind"),
    [
        (2, fm.CHAIN_BIND24, BIND64 | 0xAB << 24),
        (6, fm.CHAIN_BIND24, BIND64),
        (1, fm.CHAIN_BIND16, BIND_ARM64E | 0xAB << 32),
        (9, fm.CHAIN_BIND16, BIND_ARM64E | AUTH_ARM64E | 0xBEEF << 32),
        (12, fm.CHAIN_BIND24, BIND_ARM64E),
    ],
)
def test_binds_name_rows_and_rows_name_strings(number: int, kind: int, bind: int) -> None:
    toy, data = toy_with_data(256)
    names = b"\0_malloc\0_free\0"
    toy.chains(
        number,
        {"__DATA": {0: bind | 1, 16: bind, 32: bind | 2}},  # there is no third row
        imports=[9 << 9 | 1, 1 << 9 | 0x101],
        import_names=names,
    )
    model = fm.parse(toy.build())
    table = model.section("__LINKEDIT,chained_fixups")
    strings = table.addr + table.size - len(names)
    rows = strings - 8
    row_off = table.off + table.size - len(names) - 8
    assert [(r.off, r.kind, r.target) for r in model.data_refs()] == [
        (data.off, kind, rows + 4),
        (data.off + 16, kind, rows),
        (data.off + 32, fm.CHAIN_BIND, 0),
        (row_off, fm.IMPORT23, strings + 9),
        (row_off + 4, fm.IMPORT23, strings + 1),
    ]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (8, 0xFFFFFFFF),  # imports_offset
        (12, 0xFFFFFFFF),  # symbols_offset
        (20, 2),  # imports_format: with addends
        (24, 1),  # symbols_format: compressed
    ],
)
def test_other_imports_leave_binds_unnamed(at: int, value: int) -> None:
    toy, data = toy_with_data(256)
    toy.chains(6, {"__DATA": {0: BIND64}}, imports=[1 << 9], import_names=b"\0_f\0")
    poke(toy, at, "<I", value)
    assert found(toy, data) == [(0, fm.CHAIN_BIND, 0)]


def poke(toy: ToyMacho, at: int, format_: str, value: int) -> None:
    """Changes a field of the fixups table."""
    command, table = toy.tables[0]
    assert command == LC_CHAINED_FIXUPS
    changed = bytearray(table)
    struct.pack_into(format_, changed, at, value)
    toy.tables[0] = command, bytes(changed)


STARTS = 32
INFO = STARTS + 16  # count and three segment offsets would need 12; padded


@pytest.mark.parametrize(
    ("at", "format_", "value"),
    [
        (0, "<I", 1),  # version
        (4, "<I", 0xFFFFFFFF),  # starts_offset
        (4, "<I", 0x10000),
        (STARTS, "<I", 1),  # seg_count leaves __DATA out
        (STARTS + 8, "<I", 0xFFFFFFF0),  # offset of __DATA's info
        (INFO + 4, "<H", 0),  # page_size
        (INFO + 4, "<H", 8),
        (INFO + 6, "<H", 99),  # pointer_format
        (INFO + 8, "<Q", 0x123),  # segment_offset
        (INFO + 20, "<H", 0),  # page_count
        (INFO + 22, "<H", 0xFFFF),  # page_start: none
        (INFO + 22, "<H", 0x8001),  # page_start: several chains
        (INFO + 22, "<H", PAGE - 4),  # not a whole pointer
    ],
)
def test_malformed_tables_name_nothing(at: int, format_: str, value: int) -> None:
    toy, data = toy_with_data(256)
    toy.chains(6, {"__DATA": {0: 0x800, 16: 0x80C}})
    assert len(found(toy, data)) == 2
    poke(toy, at, format_, value)
    assert found(toy, data) == []


def test_a_chain_ends_with_its_page() -> None:
    toy, data = toy_with_data(3 * PAGE)
    toy.chains(6, {"__DATA": {0: 0x800, PAGE: 0x804}})
    struct.pack_into("<Q", data.data, 0, 0xFFF << 51 | 0x800)  # far beyond the page
    assert [at for at, _, _ in found(toy, data)] == [0, PAGE]


def test_many_pages_and_segments_cannot_multiply_the_work() -> None:
    """A table that sends every segment to the same, longest, list of pages stays linear."""
    toy, data = toy_with_data(4 * PAGE)
    toy.chains(6, {"__DATA": dict.fromkeys(range(0, 4 * PAGE, 8), 2048)})
    poke(toy, INFO + 20, "<H", 0xFFFF)
    poke(toy, STARTS + 4, "<I", 16)
    assert len(found(toy, data)) == 4 * PAGE // 8
