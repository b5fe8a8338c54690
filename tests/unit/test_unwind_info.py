"""Compact unwind info: functions, LSDAs and personalities of both levels of tables."""

from __future__ import annotations

import random
import struct

from tests.support import file_model as fm
from tests.support.toy_macho import ARM64, BASE, Section, ToyMacho

HEADER = 28
FUNCTIONS = [0x800, 0x840, 0x880, 0x900]


def unwind_info() -> tuple[bytes, list[tuple[int, int, int]]]:
    """A table with one page of each kind, and (offset, kind, image offset) of its addresses."""
    personalities = HEADER
    index = personalities + 4
    lsdas = index + 3 * 12
    regular = lsdas + 2 * 8
    compressed = regular + 8 + 2 * 8
    end = compressed + 12 + 2 * 4 + 4
    table = struct.pack("<7I", 1, HEADER, 0, personalities, 1, index, 3)
    table += struct.pack("<I", 0x700)
    table += struct.pack("<3I", FUNCTIONS[0], regular, lsdas)
    table += struct.pack("<3I", FUNCTIONS[2], compressed, lsdas + 8)
    table += struct.pack("<3I", 0xA00, 0, lsdas + 16)
    table += struct.pack("<4I", FUNCTIONS[0], 0x600, FUNCTIONS[2], 0x610)
    table += struct.pack("<IHH", 2, 8, 2)
    table += struct.pack("<4I", FUNCTIONS[0], 0x1000, FUNCTIONS[1], 0x2000)
    table += struct.pack("<IHHHH", 3, 12, 2, 20, 1)
    table += struct.pack("<2I", 0x00000000, 0x01000000 | FUNCTIONS[3] - FUNCTIONS[2])
    table += struct.pack("<I", 0x4000)
    assert len(table) == end
    expected = [
        (personalities, fm.BASE32, 0x700),
        (index, fm.BASE32, FUNCTIONS[0]),
        (index + 12, fm.BASE32, FUNCTIONS[2]),
        (index + 24, fm.BASE32, 0xA00),
        (lsdas, fm.BASE32, FUNCTIONS[0]),
        (lsdas + 4, fm.BASE32, 0x600),
        (lsdas + 8, fm.BASE32, FUNCTIONS[2]),
        (lsdas + 12, fm.BASE32, 0x610),
        (regular + 8, fm.BASE32, FUNCTIONS[0]),
        (regular + 16, fm.BASE32, FUNCTIONS[1]),
        (compressed + 12, fm.BASE24, FUNCTIONS[2]),
        (compressed + 16, fm.BASE24, FUNCTIONS[3]),
    ]
    return table, expected


def toy_with(table: bytes) -> tuple[bytes, Section]:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    toy.section("__const", 0x300)
    section = toy.section("__unwind_info", table)
    toy.segment("__DATA")
    toy.section("__data", 64)
    return toy.build(), section


def found(table: bytes) -> list[tuple[int, int, int]]:
    raw, section = toy_with(table)
    return [(r.off - section.off, r.kind, r.target - BASE) for r in fm.parse(raw).data_refs()]


def test_all_addresses_are_named() -> None:
    table, expected = unwind_info()
    assert found(table) == expected


def test_compressed_entries_count_from_their_page() -> None:
    table, _ = unwind_info()
    raw, _ = toy_with(table)
    bases = {r.base - BASE for r in fm.parse(raw).data_refs() if r.kind == fm.BASE24}
    assert bases == {FUNCTIONS[2]}


def test_another_version_is_left_alone() -> None:
    table, _ = unwind_info()
    assert found(b"\2" + table[1:]) == []


def test_truncated_tables_name_what_is_left() -> None:
    table, expected = unwind_info()
    for length in range(1, len(table)):
        assert set(found(table[:length])) <= set(expected)


def test_pages_that_share_entries_stay_linear() -> None:
    """Every index entry names one huge page: the work is bounded by the section's size."""
    count = 4000
    index = HEADER
    page = index + count * 12
    table = struct.pack("<7I", 1, HEADER, 0, HEADER, 0, index, count)
    table += struct.pack("<3I", 0x800, page, 0) * count
    table += struct.pack("<IHH", 2, 8, 0xFFFF) + bytes(count * 8)
    assert len(found(table)) <= len(table) // 4


def test_mutations_are_survived() -> None:
    table, _ = unwind_info()
    random_ = random.Random(5)
    for _ in range(300):
        changed = bytearray(table)
        for _ in range(random_.randint(1, 6)):
            at = random_.randrange(len(changed))
            changed[at] = random_.choice([0, 0xFF, 0x7F, random_.randrange(256)])
        found(bytes(changed))
