"""Go's table of functions: what its records name."""

from __future__ import annotations

import random
import struct

from tests.support import file_model as fm
from tests.support.toy_macho import ARM64, BASE, Section, ToyMacho

NONE = 0xFFFFFFFF
HEADER, NAMES, PCS, FUNCTIONS = 72, 72, 104, 136
TREE = 16  # where the second function's tree of inlined calls is in __rodata


def table(text: int) -> tuple[bytearray, list[tuple[int, int]]]:
    """A table of two functions, and (offset, target from BASE or from the table)."""
    made = bytearray(struct.pack("<I2x2B", 0xFFFFFFF1, 4, 8))
    made += struct.pack("<8Q", 2, 1, text, NAMES, 0, 0, PCS, FUNCTIONS)
    made += bytes(PCS - len(made))
    made += bytes([2, 4, 2, 4, 4, 4, 0])  # leaves 0, 1, 3 of the second function
    made += bytes(FUNCTIONS - len(made))
    first = 5 * 4
    second = first + 44 + 4
    made += struct.pack("<5I", 0, first, 64, second, 128)
    made += struct.pack("<11I", 0, 1, 0, 0, 3, 0, 4, 0, 0, 7, 1 << 24) + struct.pack("<I", NONE)
    made += struct.pack("<11I", 64, 9, 0, 0, 3, 5, 6, 3, 0, 8, 4 << 24)
    made += struct.pack("<3I", 0, 8, 0) + struct.pack("<4I", 4, NONE, 8, TREE)
    pcdata2 = FUNCTIONS + second + 44 + 8
    struct.pack_into("<I", made, pcdata2, 1)  # not 0, which is none; so the leaves start there
    made[PCS : PCS + 8] = bytes([0]) + bytes([2, 4, 2, 4, 4, 4, 0])
    return made, [(first, 0), (second, 64)]


def toy() -> tuple[ToyMacho, Section, Section]:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    text = toy.section("__text", 256)
    rodata = toy.section("__rodata", 256)
    content, _ = table(text.addr)
    pclntab = toy.section("__gopclntab", bytes(content))
    module = toy.section("__noptrdata", 41 * 8)
    struct.pack_into("<2Q", module.data, 0, pclntab.addr, pclntab.addr + NAMES)
    struct.pack_into("<Q", module.data, 22 * 8, text.addr)
    struct.pack_into("<Q", module.data, 40 * 8, rodata.addr)
    return toy, pclntab, rodata


def test_records_name_code_names_and_tables() -> None:
    made, pclntab, rodata = toy()
    text = made.segments[0].sections[0].addr
    refs = fm.parse(made.build()).data_refs()
    assert {r.kind for r in refs} == {fm.BASE32}
    names, pcs, functions = (pclntab.addr + at for at in (NAMES, PCS, FUNCTIONS))
    first, second = 20, 68
    f1, f2 = FUNCTIONS + first, FUNCTIONS + second
    assert [(r.off - pclntab.off, r.target) for r in refs if r.off >= pclntab.off] == [
        (FUNCTIONS, text),
        (FUNCTIONS + 4, functions + first),
        (FUNCTIONS + 8, text + 64),
        (FUNCTIONS + 12, functions + second),
        (f1, text),
        (f1 + 4, names + 1),
        (f1 + 16, pcs + 3),
        (f1 + 24, pcs + 4),
        (f2, text + 64),
        (f2 + 4, names + 9),
        (f2 + 16, pcs + 3),
        (f2 + 20, pcs + 5),
        (f2 + 24, pcs + 6),
        (f2 + 48, pcs + 8),
        (f2 + 52, pcs + 1),
        (f2 + 56, rodata.addr + 4),
        (f2 + 64, rodata.addr + 8),
        (f2 + 68, rodata.addr + TREE),
    ]
    # Leaves 0 to 3 of the tree name functions.
    assert [(r.off - rodata.off, r.target) for r in refs if r.off < pclntab.off] == [
        (TREE + 4 + 16 * i, names) for i in range(4)
    ]


def test_without_module_data_function_data_is_left_alone() -> None:
    made, _, rodata = toy()
    made.segments[0].sections[3].data[0] ^= 1
    targets = {r.target for r in fm.parse(made.build()).data_refs()}
    assert targets
    assert not any(rodata.addr <= target < rodata.addr + rodata.size for target in targets)


def test_other_versions_are_left_alone() -> None:
    for at, value in [(0, 0xF0), (7, 4)]:
        made, pclntab, _ = toy()
        pclntab.data[at] = value
        assert fm.parse(made.build()).data_refs() == []


def test_records_that_many_functions_share_stay_linear() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    count = 3000
    content = bytearray(struct.pack("<I2x2B", 0xFFFFFFF1, 4, 8))
    content += struct.pack("<8Q", count, 1, BASE, NAMES, 0, 0, NAMES, NAMES)
    content += struct.pack("<2I", 0, 8 * count) * count
    content += struct.pack("<11I", 0, 1, 0, 0, 3, 5, 6, 5000, 0, 8, 0) + b"\1\0\0\0" * 5000
    toy.section("__gopclntab", bytes(content))
    assert len(fm.parse(toy.build()).data_refs()) <= len(content) // 4


def test_mutations_are_survived() -> None:
    random_ = random.Random(4)
    for _ in range(300):
        made, pclntab, _ = toy()
        for _ in range(random_.randint(1, 6)):
            at = random_.randrange(len(pclntab.data))
            pclntab.data[at] = random_.choice([0, 0xFF, 0x7F, random_.randrange(256)])
        fm.parse(made.build())
