"""References in arm64 code: what is found, and that pieces agree with the whole."""

from __future__ import annotations

import importlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import refs
from tests.support.refs import ADD12, ADR, ADRP, B14, B19, B26, LDST12, LIT19, Ref

ADDR = 0x100004000
WINDOW = 512  # instructions that an ADRP is good for, as the format says
NOP, RET = 0xD503201F, 0xD65F03C0
BL = 0x94000000
ADRP_X8 = 0xB0000008  # adrp x8, next page
ADD_X8 = 0x91048D08  # add x8, x8, #0x123
ADD_X9 = 0x91048D09  # add x9, x8, #0x123
LDR_X0 = 0xF9402500  # ldr x0, [x8, #0x48]
STR_W0 = 0xB9004900  # str w0, [x8, #0x48]
NEXT = ADDR + 0x1000


def code(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def found(*words: int, addr: int = ADDR) -> list[tuple[int, int, int]]:
    """(number of the instruction, kind, target) of each reference."""
    return [(r.off // 4, r.kind, r.target) for r in refs.find("arm64", code(*words), addr)]


def adrp(register: int, pages: int) -> int:
    return 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | register


@pytest.mark.parametrize(
    ("word", "kind", "distance"),
    [
        (0x14000002, B26, 8), (0x97FFFFFF, B26, -4), (0x54000040, B19, 8), (0x54FFFFF1, B19, -4),
        (0x34000020, B19, 4), (0xB5FFFFE3, B19, -4), (0x36000041, B14, 8), (0xB7FFFFE1, B14, -4),
        (0x18000040, LIT19, 8), (0x58FFFFE0, LIT19, -4), (0x98000040, LIT19, 8),
        (0xD8000040, LIT19, 8), (0x1C000040, LIT19, 8), (0x9C000040, LIT19, 8),
        (0x30000000, ADR, 1), (0x70FFFFE0, ADR, -1),
    ],
)  # fmt: skip
def test_single_instructions(word: int, kind: int, distance: int) -> None:
    assert found(NOP, word) == [(1, kind, ADDR + 4 + distance)]


@pytest.mark.parametrize(
    "word",
    [NOP, RET, 0xD61F0100, 0xD63F0100, 0x8B080000, 0xF9402500, ADD_X8, 0xD4200020, 0x00000000,
     0xFFFFFFFF, 0xDC000040],
)  # fmt: skip
def test_what_names_no_address(word: int) -> None:
    assert found(word) == []


def test_the_two_halves_of_an_address() -> None:
    assert found(ADRP_X8, ADD_X8) == [(0, ADRP, NEXT + 0x123), (1, ADD12, NEXT + 0x123)]
    assert found(ADRP_X8, LDR_X0) == [(0, ADRP, NEXT + 0x48), (1, LDST12, NEXT + 0x48)]
    pair = refs.find("arm64", code(ADRP_X8, ADD_X8), ADDR)
    assert pair[1] == Ref(4, ADD12, NEXT + 0x123, NEXT, 4)


def test_an_adrp_alone_names_its_page() -> None:
    assert found(NOP, ADRP_X8, NOP) == [(1, ADRP, NEXT)]


def test_pages_go_by_address_and_backwards() -> None:
    assert found(adrp(8, -1), ADD_X8, addr=ADDR + 0xFF8)[0] == (0, ADRP, ADDR - 0x1000 + 0x123)


@pytest.mark.parametrize(
    "word",
    [0x39448D00, 0x39048D00, 0x79409100, 0xB9404900, 0xB9804900, 0xF9402500, 0xF9002500,
     0xF9802500, 0xBD404900, 0xFD402500, 0x3DC01500, 0x3D801500],
)  # fmt: skip
def test_every_size_of_access_is_a_consumer(word: int) -> None:
    target = refs.read(LDST12, code(word), 0, NEXT)
    assert found(ADRP_X8, word) == [(0, ADRP, target), (1, LDST12, target)]


def test_one_adrp_serves_several() -> None:
    assert found(ADRP_X8, LDR_X0, ADD_X9, STR_W0) == [
        (0, ADRP, NEXT + 0x48),
        (1, LDST12, NEXT + 0x48),
        (2, ADD12, NEXT + 0x123),
        (3, LDST12, NEXT + 0x48),
    ]


def test_a_finished_address_is_no_page() -> None:
    assert found(ADRP_X8, ADD_X8, LDR_X0) == [
        (0, ADRP, NEXT + 0x123),
        (1, ADD12, NEXT + 0x123),
    ]
    assert [n for n, _, _ in found(ADRP_X8, 0xF9402508, LDR_X0)] == [0, 1]  # ldr x8, [x8, #0x48]


@pytest.mark.parametrize(
    "writer",
    [
        0xAA0103E8,  # mov x8, x1
        0xD2800008,  # mov x8, #0
        0xF2A00008,  # movk x8, #0, lsl #16
        0x91000428,  # add x8, x1, #1
        0xD3407C28,  # ubfx x8, x1, #0, #32
        0x9A811008,  # csel x8, x0, x1, ne
        0x1B017C08,  # mul w8, w0, w1
        0xDA010008,  # sbc x8, x0, x1
        0xBA010008,  # adcs x8, x0, x1
        0x10000008,  # adr x8, .
        0x58000048,  # ldr x8, .+8
        0xF9400028,  # ldr x8, [x1]
        0xF8408028,  # ldur x8, [x1, #8]
        0xF8626828,  # ldr x8, [x1, x2]
        0xF8408501,  # ldr x1, [x8], #8
        0xF8008D01,  # str x1, [x8, #8]!
        0x3C810500,  # str q0, [x8], #16
        0xA9400428,  # ldp x8, x1, [x1]
        0xA9402021,  # ldp x1, x8, [x1]
        0xA8810901,  # stp x1, x2, [x8], #16
        0xC85F7C28,  # ldxr x8, [x1]
        0xC8087C41,  # stxr w8, x1, [x2]
        0xC8A87C41,  # cas x8, x1, [x2]
        0xF8210048,  # ldadd x1, x8, [x2]
        0xF820CC28,  # ldraa x8, [x1, #...]!
        0x4CDF7100,  # ld1 {v0.16b}, [x8], #16
        0xD53BD048,  # mrs x8, tpidr_el0
        0x9E660008,  # fmov x8, d0
        0x9E780008,  # fcvtzs x8, d0
        0x1E188008,  # fcvtzs w8, s0, #32 (fixed point)
        0x4E083C08,  # umov x8, v0.d[0]
        BL,
        0xD63F0120,  # blr x9
        0xD73F0920,  # blraa x9, x0
    ],
)
def test_writing_the_register_ends_the_page(writer: int) -> None:
    assert (0, ADRP, NEXT) in found(ADRP_X8, writer, LDR_X0)
    assert 2 not in {n for n, _, _ in found(ADRP_X8, writer, LDR_X0)}


@pytest.mark.parametrize(
    "other",
    [
        NOP, RET, 0x14000010, 0xD61F0120, 0x54000040,  # flow but no call
        0xF9000028,  # str x8, [x1]
        0xF9800028,  # prfm pstl..., [x1]
        0xD8000048,  # prfm, literal
        0xF8008028,  # stur x8, [x1, #8]
        0xF8226828,  # str x8, [x1, x2]
        0xF8A26828,  # prfm, [x1, x2]
        0xA9000428,  # stp x8, x1, [x1]
        0xAD400428,  # ldp q8, q1, [x1]
        0x3DC00028,  # ldr q8, [x1]
        0x9C000048,  # ldr q8, literal
        0xC89FFC28,  # stlr x8, [x1]
        0x4EA11C28,  # orr v8.16b, v1.16b, v1.16b
        0x1E604028,  # fmov d8, d1
        0x9E670028,  # fmov d8, x1
        0x9E620028,  # scvtf d8, x1
        0xFA410808,  # ccmp x0, #1, #8, eq
        0xD51BD048,  # msr tpidr_el0, x8
    ],
)  # fmt: skip
def test_other_instructions_leave_it(other: int) -> None:
    assert (2, LDST12, NEXT + 0x48) in found(ADRP_X8, other, LDR_X0)


def test_calls_keep_callee_saved_registers() -> None:
    load = 0xF9402660  # ldr x0, [x19, #0x48]
    assert (2, LDST12, NEXT + 0x48) in found(adrp(19, 1), BL, load)


def test_code_behind_a_return_still_has_what_the_epilogue_restored() -> None:
    load = 0xF9402660  # ldr x0, [x19, #0x48]
    for epilogue in (0xA9414FF4, 0xA8C24FF4, 0xF84207F3):  # ldp x20, x19, [sp...]; ldr x19, [sp]...
        assert (3, LDST12, NEXT + 0x48) in found(adrp(19, 1), epilogue, RET, load)


def test_zero_register_and_stack_pointer_are_no_page() -> None:
    sp_load = 0xF94027E0  # ldr x0, [sp, #0x48]
    assert found(adrp(31, 1), sp_load) == [(0, ADRP, NEXT)]


def test_no_consumer_past_the_page_or_shifted() -> None:
    assert found(ADRP_X8, 0xF9480100) == [(0, ADRP, NEXT)]  # ldr x0, [x8, #0x1000]
    assert found(ADRP_X8, 0x91448D09) == [(0, ADRP, NEXT)]  # add x9, x8, #0x123, lsl #12
    assert found(ADRP_X8, 0x11048D09) == [(0, ADRP, NEXT)]  # add w9, w8, #0x123


def test_the_window() -> None:
    for gap, paired in ((WINDOW - 1, True), (WINDOW, False)):
        names = found(ADRP_X8, *[NOP] * gap, LDR_X0)
        assert ((gap + 1, LDST12, NEXT + 0x48) in names) is paired
        assert names[0] == (0, ADRP, NEXT + 0x48 if paired else NEXT)


def test_instructions_stand_where_addresses_say() -> None:
    shifted = b"\x00\x00" + code(0x14000002)
    assert refs.find("arm64", shifted, ADDR + 2) == [Ref(2, B26, ADDR + 12, 0, 4)]
    assert refs.find("arm64", shifted, ADDR) == []


def test_offsets_are_the_files() -> None:
    plain = refs.find("arm64", code(NOP, ADRP_X8, ADD_X8), ADDR)
    assert refs.find("arm64", code(NOP, ADRP_X8, ADD_X8), ADDR, file_off=0x4000) == plain


@pytest.mark.parametrize("length", range(9))
def test_short_code(length: int) -> None:
    for addr in range(ADDR, ADDR + 4):
        refs.find("arm64", code(0x14000002, 0x14000002)[:length], addr)


INSTRUCTIONS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([NOP, RET, BL, ADRP_X8, ADD_X8, ADD_X9, LDR_X0, STR_W0, adrp(19, -3)]),
    st.builds(adrp, st.integers(0, 31), st.integers(-4, 4)),
    st.builds(lambda r, i: 0x91000000 | i << 10 | r << 5, st.integers(0, 31), st.integers(0, 4095)),
    st.builds(lambda r, i: 0xF9400001 | i << 10 | r << 5, st.integers(0, 31), st.integers(0, 600)),
)


def check_refs(data: bytes, addr: int, names: list[Ref]) -> None:
    """Fields are sorted and disjoint, and read as what was reported."""
    end = 0
    for ref in names:
        assert ref.off >= end
        end = ref.off + ref.size
        assert end <= len(data)
        target = refs.read(ref.kind, data[ref.off : end], addr + ref.off, ref.base)
        assert target == (ref.target & ~refs.PAGE if ref.kind == ADRP else ref.target)


@given(st.lists(INSTRUCTIONS, max_size=60), st.integers(1, 40), st.sampled_from([0, 1, 2, 3]))
def test_pieces_agree_with_the_whole(words: list[int], step: int, skew: int) -> None:
    data, addr = code(*words), ADDR + skew
    whole = refs.find("arm64", data, addr)
    check_refs(data, addr, whole)
    assert refs.find_in_pieces("arm64", data, step, addr) == whole


def test_long_reaches_agree_across_pieces() -> None:
    rng = random.Random(1)
    words: list[int] = []
    for _ in range(400):
        words.append(adrp(rng.choice([8, 9, 19, 20]), rng.randrange(-9, 9)))
        words += [NOP] * rng.choice([0, 1, 5, 200, 509, 510, 511, 512])
        words.append(0xF9400000 | rng.randrange(512) << 10 | rng.choice([8, 9, 19, 20]) << 5)
    data = code(*words)
    whole = refs.find("arm64", data, ADDR)
    check_refs(data, ADDR, whole)
    assert sum(r.kind == LDST12 for r in whole) > 100
    for step in (4, 1000, 2048, 65536):
        assert refs.find_in_pieces("arm64", data, step, ADDR) == whole


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.data())
def test_random_bytes(data: bytes, addr: int, draw: st.DataObject) -> None:
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin, len(data)))
    for ref in refs.find("arm64", data, addr, begin, end):
        assert begin <= ref.off < end
        assert ref.off + 4 <= len(data)


MNEMONICS = {
    "b": B26, "bl": B26, "cbz": B19, "cbnz": B19, "tbz": B14, "tbnz": B14, "adr": ADR,
    "adrp": ADRP,
}  # fmt: skip


def test_against_another_disassembler(tmp_path: Path) -> None:
    """Every PC-relative instruction that capstone sees in compiled code is found, and no other."""
    if reason := refs.cross_check_reason():
        pytest.skip(reason)
    capstone = importlib.import_module("capstone")
    data = macho_text(refs.compiled("aarch64-macos", tmp_path))
    ours = {r.off: (r.kind, r.target) for r in refs.find("arm64", data, ADDR) if r.kind <= ADRP}
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    decoder.skipdata = True
    theirs = {}
    for address, _, mnemonic, operands in decoder.disasm_lite(data, ADDR):
        kind = MNEMONICS.get(mnemonic, B19 if mnemonic.startswith("b.") else None)
        last = operands.split(", ")[-1]
        if mnemonic in ("ldr", "ldrsw", "prfm") and last.startswith("#") and "]" not in operands:
            kind = LIT19
        if kind is not None:
            theirs[address - ADDR] = (kind, int(last.lstrip("#"), 0) % 2**64)
    assert len(theirs) > 50
    pages = {off: (k, t & ~refs.PAGE) if k == ADRP else (k, t) for off, (k, t) in ours.items()}
    assert pages == theirs


def macho_text(file: bytes) -> bytes:
    """The __text section of a thin 64-bit Mach-O file."""
    (commands,) = struct.unpack_from("<I", file, 16)
    at = 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", file, at)
        if command == 0x19:  # LC_SEGMENT_64
            for section in range(at + 72, at + size, 80):
                if file[section : section + 16].rstrip(b"\0") == b"__text":
                    length, offset = struct.unpack_from("<QI", file, section + 40)
                    return file[offset : offset + length]
        at += size
    raise AssertionError("no __text")
