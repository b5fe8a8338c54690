"""Jump tables: found from the code that reads them, bounded by what surrounds them."""

from __future__ import annotations

import struct

import pytest

from tests.support import file_model as fm
from tests.support.toy_macho import ARM64, PURE_INSTRUCTIONS, X86_64, Section, ToyMacho

NOP = 0xD503201F


def adr(reg: int, distance: int) -> int:
    return 0x10000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | reg


def adrp(reg: int, here: int, there: int) -> int:
    pages = (there >> 12) - (here >> 12)
    return 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | reg


def add_low(reg: int, address: int) -> int:
    return 0x91000000 | (address & 0xFFF) << 10 | reg << 5 | reg


def arm64_toy() -> tuple[ToyMacho, Section, Section]:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    text = toy.section("__text", struct.pack("<I", NOP) * 128, flags=PURE_INSTRUCTIONS)
    return toy, text, toy.section("__const", 256)


def write_switch(text: Section, at: int, table: int, load: int, add: int, cmp: int = 0) -> int:
    """Writes a switch with its table in x10 and its base in x11; gives the base."""
    here = text.addr + at
    words = [
        0x7100001F | 9 << 5 | cmp << 10 if cmp else NOP,  # cmp w9, #cmp
        0x54000008 | 20 << 5 if cmp else NOP,  # b.hi
        adrp(10, here + 8, table),
        add_low(10, table),
        adr(11, 16),
        load,
        add,
        0xD61F0000 | 11 << 5,  # br x11
    ]
    struct.pack_into("<8I", text.data, at, *words)
    return here + 32


LDRB = 0x38696940 | 12  # ldrb w12, [x10, x9]
LDRH = 0x78697940 | 12  # ldrh w12, [x10, x9, lsl #1]
LDRSW = 0xB8A97940 | 12  # ldrsw x12, [x10, x9, lsl #2]
ADD_LSL2 = 0x8B0C0960 | 11  # add x11, x11, x12, lsl #2
ADD_SXTH2 = 0x8B2CA960 | 11  # add x11, x11, w12, sxth #2
ADD_TABLE = 0x8B0A0180 | 11  # add x11, x12, x10


def named(toy: ToyMacho, const: Section) -> list[tuple[int, int, int]]:
    refs = fm.parse(toy.build()).data_refs()
    return [(r.off - const.off, r.kind, r.target) for r in refs]


def test_arm64_bytes_and_halfwords() -> None:
    toy, text, const = arm64_toy()
    first = write_switch(text, 0, const.addr + 6, LDRB, ADD_LSL2, cmp=3)
    second = write_switch(text, 64, const.addr + 16, LDRH, ADD_LSL2, cmp=1)
    const.data[6:10] = bytes([0, 2, 4, 6])
    struct.pack_into("<2H", const.data, 16, 3, 1)
    assert named(toy, const) == [
        *((6 + i, fm.BASE8X4, first + 8 * i) for i in range(4)),
        (16, fm.BASE16X4, second + 12),
        (18, fm.BASE16X4, second + 4),
    ]


def test_arm64_words_count_from_the_table() -> None:
    toy, text, const = arm64_toy()
    write_switch(text, 32, const.addr + 8, LDRSW, ADD_TABLE, cmp=2)
    targets = [text.addr, text.addr + 16, text.addr + 100]
    struct.pack_into("<3i", const.data, 8, *(t - const.addr - 8 for t in targets))
    assert named(toy, const) == [(8 + 4 * i, fm.BASE32, t) for i, t in enumerate(targets)]


def test_arm64_negative_entries_are_left_alone() -> None:
    toy, text, const = arm64_toy()
    base = write_switch(text, 64, const.addr, LDRH, ADD_SXTH2, cmp=2)
    struct.pack_into("<3h", const.data, 0, 1, -2, 3)
    assert named(toy, const) == [(0, fm.BASE16X4, base + 4), (4, fm.BASE16X4, base + 12)]


def test_a_table_ends_where_the_next_begins() -> None:
    toy, text, const = arm64_toy()
    write_switch(text, 0, const.addr, LDRB, ADD_LSL2)
    write_switch(text, 64, const.addr + 3, LDRB, ADD_LSL2, cmp=1)
    write_switch(text, 128, const.addr + 3, LDRB, ADD_LSL2, cmp=1)  # shares it
    assert [at for at, _, _ in named(toy, const)] == [0, 1, 2, 3, 4]


def x86_switch(count: int | None, hoist: int = 0, notrack: bool = False) -> bytes:
    """A switch through r9 and rax; the lea's displacement is zero and `hoist` bytes early."""
    check = b"" if count is None else b"\x83\xf8" + bytes([count - 1]) + b"\x77\x20"
    jump = b"\x3e\xff\xe0" if notrack else b"\xff\xe0"
    return (
        check
        + b"\x4c\x8d\x0d\0\0\0\0"  # lea r9, [rip + table]
        + b"\x90" * hoist
        + b"\x49\x63\x04\x81"  # movsxd rax, [r9 + rax * 4]
        + b"\x4c\x01\xc8"  # add rax, r9
        + jump
    )


def x86_toy(switches: list[tuple[bytes, int]]) -> tuple[ToyMacho, Section, Section]:
    """A toy with switches, each reading the table at an offset of __const."""
    toy = ToyMacho(X86_64)
    toy.segment("__TEXT")
    text = toy.section("__text", b"\x90" * 0x400, flags=PURE_INSTRUCTIONS)
    const = toy.section("__const", 256)
    at = 0
    for code, table in switches:
        at += 16
        text.data[at : at + len(code)] = code
        lea = code.index(b"\x4c\x8d\x0d") + 7
        distance = const.addr + table - (text.addr + at + lea)
        struct.pack_into("<i", text.data, at + lea - 4, distance)
        at += len(code)
    return toy, text, const


@pytest.mark.parametrize("hoist", [0, 9, 200])
@pytest.mark.parametrize("notrack", [False, True])
def test_x86_64_tables(hoist: int, notrack: bool) -> None:
    toy, text, const = x86_toy([(x86_switch(3 if hoist < 20 else None, hoist, notrack), 8)])
    targets = [text.addr + 3, text.addr + 0x3FF, text.addr]
    struct.pack_into("<3i", const.data, 8, *(t - const.addr - 8 for t in targets))
    struct.pack_into("<i", const.data, 20, 0x7FFFFFFF)
    assert named(toy, const) == [(8 + 4 * i, fm.BASE32, t) for i, t in enumerate(targets)]


def test_x86_64_counts_and_neighbours() -> None:
    toy, text, const = x86_toy([(x86_switch(2), 0), (x86_switch(None), 16), (x86_switch(None), 24)])
    for at in range(0, 256, 4):
        table = 0 if at < 16 else 16 if at < 24 else 24
        struct.pack_into("<i", const.data, at, text.addr + at - const.addr - table)
    struct.pack_into("<i", const.data, 32, 0)  # leads to the table itself: the end
    assert [at for at, _, _ in named(toy, const)] == [0, 4, 16, 20, 24, 28]


def test_code_full_of_jumps_is_survived() -> None:
    for pattern in (b"\xff\xe0", b"\x48\x01\xc8\xff\xe0", b"\x48\x63\x04\x81\x48\x01\xc8\xff\xe0"):
        toy, text, _ = x86_toy([])
        text.data[:] = (pattern * 0x400)[: len(text.data)]
        fm.parse(toy.build())
    toy64, text64, _ = arm64_toy()
    text64.data[:] = struct.pack("<I", 0xD61F0160) * (len(text64.data) // 4)
    fm.parse(toy64.build())
