"""Each kind of reference: reading, writing and labelling its field."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import refs
from tests.support.refs import (
    ABS32,
    ABS64,
    ADD12,
    ADR,
    ADRP,
    B14,
    B19,
    B26,
    BACK32,
    BASE8X4,
    BASE16X4,
    BASE24,
    BASE32,
    BASE64,
    CHAIN64,
    CHAIN64_OFFSET,
    CHAIN_ARM64E,
    CHAIN_ARM64E_AUTH,
    CHAIN_ARM64E_OFFSET,
    CHAIN_BIND,
    CHAIN_BIND16,
    CHAIN_BIND24,
    FILE32,
    IMPORT23,
    INDEX16,
    INDEX24,
    LDST12,
    LIT19,
    PC32,
    REL8,
    REL32,
    RIP32,
    ULEB1,
    ULEB2,
    ULEB3,
    ULEB4,
)

# Address bits of each kind's field, from the manuals; everything else is to be kept.
ADDRESS_BITS = {
    B26: 0x03FFFFFF, B19: 0x00FFFFE0, B14: 0x0007FFE0, LIT19: 0x00FFFFE0, ADR: 0x60FFFFE0,
    ADRP: 0x60FFFFE0, ADD12: 0x003FFC00, LDST12: 0x003FFC00,
    REL32: 2**32 - 1, REL8: 0xFF, RIP32: 2**32 - 1, ABS64: 2**64 - 1, ABS32: 2**32 - 1,
    PC32: 2**32 - 1, BASE32: 2**32 - 1, BASE16X4: 0xFFFF, BASE8X4: 0xFF, BASE24: 0xFFFFFF,
    BACK32: 2**32 - 1, CHAIN64: 2**36 - 1, CHAIN64_OFFSET: 2**36 - 1, CHAIN_ARM64E: 2**43 - 1,
    CHAIN_ARM64E_AUTH: 2**32 - 1, CHAIN_ARM64E_OFFSET: 2**43 - 1, CHAIN_BIND: 0,
    INDEX24: 2**32 - 1, FILE32: 2**32 - 1, BASE64: 2**64 - 1, INDEX16: 2**32 - 1,
    CHAIN_BIND24: 2**24 - 1, CHAIN_BIND16: 2**16 - 1,
    IMPORT23: 0xFFFFFE00, ULEB1: 0x7F, ULEB2: 0x7F7F, ULEB3: 0x7F7F7F, ULEB4: 0x7F7F7F7F,
}  # fmt: skip
SIZES = {
    **dict.fromkeys(range(1, 9), 4), REL32: 4, REL8: 1, RIP32: 4, ABS64: 8, ABS32: 4, PC32: 4,
    BASE32: 4, BASE16X4: 2, BASE8X4: 1, BASE24: 3, BACK32: 4, CHAIN64: 8, CHAIN64_OFFSET: 8,
    CHAIN_ARM64E: 8, CHAIN_ARM64E_AUTH: 8, CHAIN_BIND: 8, CHAIN_ARM64E_OFFSET: 8,
    INDEX24: 4, FILE32: 4, BASE64: 8, INDEX16: 4, CHAIN_BIND24: 8, CHAIN_BIND16: 8,
    IMPORT23: 4, ULEB1: 1, ULEB2: 2, ULEB3: 3, ULEB4: 4,
}  # fmt: skip
KINDS = sorted(SIZES)


def a64(word: int) -> bytes:
    return struct.pack("<I", word)


@pytest.mark.parametrize(
    ("kind", "word", "site", "base", "target"),
    [
        (B26, 0x14000001, 0x1000, 0, 0x1004),  # b .+4
        (B26, 0x97FFFFFF, 0x1000, 0, 0x0FFC),  # bl .-4
        (B26, 0x96000000, 0x10000000, 0, 0x08000000),  # bl .-128 MiB
        (B19, 0x54000040, 0x1000, 0, 0x1008),  # b.eq .+8
        (B19, 0x54FFFFF1, 0x1000, 0, 0x0FFC),  # bc.ne .-4
        (B19, 0x34000020, 0x1000, 0, 0x1004),  # cbz w0
        (B19, 0xB5FFFFE3, 0x1000, 0, 0x0FFC),  # cbnz x3
        (B14, 0x36000041, 0x1000, 0, 0x1008),  # tbz w1, #0
        (B14, 0xB7FFFFE1, 0x1000, 0, 0x0FFC),  # tbnz x1, #32
        (LIT19, 0x18000040, 0x1000, 0, 0x1008),  # ldr w0
        (LIT19, 0x58FFFFE0, 0x1000, 0, 0x0FFC),  # ldr x0
        (LIT19, 0x98000040, 0x1000, 0, 0x1008),  # ldrsw x0
        (LIT19, 0xD8000040, 0x1000, 0, 0x1008),  # prfm
        (LIT19, 0x9C000040, 0x1000, 0, 0x1008),  # ldr q0
        (ADR, 0x30000000, 0x1000, 0, 0x1001),  # adr x0, .+1
        (ADR, 0x70FFFFE0, 0x1000, 0, 0x0FFF),  # adr x0, .-1
        (ADRP, 0x90000000, 0x1FFC, 0, 0x1000),  # adrp x0, this page
        (ADRP, 0xB0000000, 0x1FFC, 0, 0x2000),  # adrp x0, next page
        (ADRP, 0xF0FFFFE0, 0x1FFC, 0, 0x0000),  # adrp x0, page before
        (ADD12, 0x91048D08, 0, 0x7000, 0x7123),  # add x8, x8, #0x123
        (LDST12, 0x39448D00, 0, 0x7000, 0x7123),  # ldrb w0, [x8, #0x123]
        (LDST12, 0x79409100, 0, 0x7000, 0x7048),  # ldrh w0, [x8, #0x48]
        (LDST12, 0xB9404900, 0, 0x7000, 0x7048),  # ldr w0, [x8, #0x48]
        (LDST12, 0xF9402500, 0, 0x7000, 0x7048),  # ldr x0, [x8, #0x48]
        (LDST12, 0xF9802500, 0, 0x7000, 0x7048),  # prfm pldl1keep, [x8, #0x48]
        (LDST12, 0xFD402500, 0, 0x7000, 0x7048),  # ldr d0, [x8, #0x48]
        (LDST12, 0x3DC01500, 0, 0x7000, 0x7050),  # ldr q0, [x8, #0x50]
        (LDST12, 0x3D801500, 0, 0x7000, 0x7050),  # str q0, [x8, #0x50]
    ],
)
def test_arm64_encodings(kind: int, word: int, site: int, base: int, target: int) -> None:
    field = a64(word)
    assert refs.read(kind, field, site, base) == target
    blank = refs.label(kind, field, 0)
    back = refs.write(kind, blank, site, base, target)
    assert back == field


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (B26, 0x54000040),  # b.eq
        (B19, 0x74000020),  # compare and branch with another layout
        (B14, 0x34000020),  # cbz
        (LIT19, 0xDC000040),  # unallocated SIMD size
        (LIT19, 0xF9402500),  # ldr x0, [x8, #0x48]
        (ADR, 0x90000000),  # adrp
        (ADRP, 0x10000000),  # adr
        (ADD12, 0x11048D08),  # 32 bits wide
        (ADD12, 0x91448D08),  # shifted by 12
        (ADD12, 0xB1048D08),  # adds
        (LDST12, 0xF8408500),  # ldr x0, [x8], #8
        (LDST12, 0xF9C02500),  # unallocated
        (LDST12, 0x7D802500),  # unallocated SIMD size
    ],
)
def test_other_instructions_are_refused(kind: int, word: int) -> None:
    assert refs.read(kind, a64(word), 0x1000, 0) is None
    assert refs.write(kind, a64(word), 0x1000, 0, 0x1000) is None


def test_an_offset_past_the_page_is_no_half_of_an_address() -> None:
    assert refs.read(LDST12, a64(0xF947FD00), 0, 0) == 0xFF8  # ldr x0, [x8, #0xff8]
    assert refs.read(LDST12, a64(0xF9480100), 0, 0) is None  # ldr x0, [x8, #0x1000]


@pytest.mark.parametrize(
    ("kind", "word", "target"),
    [
        (B26, 0x14000000, 0x10000000 + (1 << 27)),
        (B26, 0x14000000, 0x10000002),
        (B19, 0x54000000, 0x10000000 + (1 << 20)),
        (B14, 0x36000000, 0x10000000 - (1 << 15) - 4),
        (ADR, 0x10000000, 0x10000000 + (1 << 20)),
        (ADRP, 0x90000000, 0x10000000 + (1 << 32)),
        (LDST12, 0xF9400000, 0x1001),
    ],
)
def test_what_does_not_fit_is_refused(kind: int, word: int, target: int) -> None:
    assert refs.write(kind, a64(word), 0x10000000, 0x1000, target) is None


def test_the_furthest_branches_fit() -> None:
    site = 0x10000000
    assert refs.write(B26, a64(0x14000000), site, 0, site + (1 << 27) - 4) == a64(0x15FFFFFF)
    assert refs.write(B26, a64(0x14000000), site, 0, site - (1 << 27)) == a64(0x16000000)
    assert refs.write(ADRP, a64(0x90000000), site + 0xFFC, 0, site + (1 << 32) - 1) == a64(
        0xF07FFFE0
    )


@pytest.mark.parametrize(
    ("kind", "field", "site", "base", "target"),
    [
        (REL32, "fbffffff", 0, 0x1005, 0x1000),
        (REL8, "fe", 0, 0x1002, 0x1000),
        (RIP32, "00010000", 0, 0x1007, 0x1107),
        (ABS64, "8877665544332211", 0, 0, 0x1122334455667788),
        (ABS32, "000000f0", 0, 0, 0xF0000000),
        (PC32, "f0ffffff", 0x1000, 0, 0x0FF0),
        (BACK32, "f0ffffff", 0x1000, 0, 0x1010),
        (BASE32, "f0ffffff", 0, 0x1000, 0x0FF0),
        (BASE16X4, "ffff", 0, 0x1000, 0x1000 + 0xFFFF * 4),
        (BASE8X4, "ff", 0, 0x1000, 0x1000 + 0xFF * 4),
        (BASE24, "563412", 0, 0x1000, 0x124456),
        (INDEX24, "03000000", 0, 0x1000, 0x1048),
        (INDEX24, "ffffffff", 0, 0x1000, 0x1000 + (2**32 - 1) * 24),
        (FILE32, "ffffffff", 0, 0x1000, 0x1000 + 2**32 - 1),
        (BASE64, "8877665544332211", 0, 0x1000, 0x1122334455668788),
        (INDEX16, "03000000", 0, 0x1000, 0x1030),
        (INDEX16, "ffffffff", 0, 0x1000, 0x1000 + (2**32 - 1) * 16),
        (IMPORT23, "00020000", 0, 0x1000, 0x1001),
        (IMPORT23, "00feffff", 0, 0x1000, 0x1000 + 2**23 - 1),
    ],
)
def test_data_and_x86_encodings(kind: int, field: str, site: int, base: int, target: int) -> None:
    stored = bytes.fromhex(field)
    assert refs.read(kind, stored, site, base) == target
    assert refs.write(kind, bytes(len(stored)), site, base, target) == stored


@pytest.mark.parametrize(
    ("kind", "field", "number"),
    [
        (ULEB1, "00", 0),
        (ULEB1, "7f", 0x7F),
        (ULEB2, "8001", 0x80),
        (ULEB2, "ff7f", 0x3FFF),
        (ULEB3, "e58e26", 624485),
        (ULEB3, "ffff7f", 0x1FFFFF),
        (ULEB4, "80808001", 0x200000),
        (ULEB4, "ffffff7f", 0xFFFFFFF),
    ],
)
def test_uleb_numbers(kind: int, field: str, number: int) -> None:
    stored = bytes.fromhex(field)
    assert refs.read(kind, stored, 0, 0x1000) == 0x1000 + number
    # One that happens to need fewer bytes is padded: the field keeps its length.
    for start in (0, number):
        blank = refs.write(kind, stored, 0, 0x1000, 0x1000 + start)
        assert blank is not None
        assert len(blank) == len(stored)
        assert refs.write(kind, blank, 0, 0x1000, 0x1000 + number) == stored
    assert refs.write(kind, stored, 0, 0x1000, 0x1000 + 2 ** (7 * len(stored))) is None
    # A byte that ends the number too early or not at all.
    assert refs.read(kind, stored[:-1] + bytes([stored[-1] | 0x80]), 0, 0x1000) is None
    if len(stored) > 1:
        assert refs.read(kind, bytes([stored[0] & 0x7F]) + stored[1:], 0, 0x1000) is None


def test_binds_that_name_a_row_of_the_imports() -> None:
    addend, chained = 0x55 << 24, 1 << 63 | 3 << 51
    bind = struct.pack("<Q", chained | addend | 0x1234)
    assert refs.read(CHAIN_BIND24, bind, 0, 0x1000) == 0x1000 + 0x1234 * 4
    moved = struct.pack("<Q", chained | addend | 0x1235)
    assert refs.write(CHAIN_BIND24, bind, 0, 0x1000, 0x1000 + 0x1235 * 4) == moved
    assert refs.write(CHAIN_BIND24, bind, 0, 0x1000, 0x1000 + 0x1235 * 4 + 1) is None
    signed = struct.pack("<Q", 3 << 62 | 0xBEEF << 32 | 0x1234)
    assert refs.read(CHAIN_BIND16, signed, 0, 0x1000) == 0x1000 + 0x1234 * 4
    assert refs.write(CHAIN_BIND16, signed, 0, 0x1000, 0x1000 + 0x10000 * 4) is None
    for kind in (CHAIN_BIND24, CHAIN_BIND16):
        assert refs.read(kind, struct.pack("<Q", 0x1234), 0, 0x1000) is None


@pytest.mark.parametrize("target", [0x1001, 0x1000 + 24 * 2**32, 0x1000 - 24])
def test_between_rows_and_past_the_last_is_no_row(target: int) -> None:
    assert refs.write(INDEX24, bytes(4), 0, 0x1000, target) is None


@pytest.mark.parametrize(
    ("kind", "value", "base", "target"),
    [
        # next 3, high8 0x80, address
        (CHAIN64, 3 << 51 | 0x80 << 36 | 0xA12345678, 0x100000000, 0xA12345678),
        (CHAIN64_OFFSET, 3 << 51 | 0x80 << 36 | 0x12345678, 0x100000000, 0x112345678),
        (CHAIN_ARM64E, 3 << 51 | 0x80 << 43 | 0x71234567890, 0x100000000, 0x71234567890),
        (CHAIN_ARM64E_OFFSET, 3 << 51 | 0x80 << 43 | 0x1000, 0x100000000, 0x100001000),
        # auth, next 3, key 2, address diversity, diversity 0xBEEF, offset
        (
            CHAIN_ARM64E_AUTH,
            1 << 63 | 3 << 51 | 2 << 49 | 1 << 48 | 0xBEEF << 32 | 0x1000,
            0x100000000,
            0x100001000,
        ),
    ],
)
def test_chained_pointers(kind: int, value: int, base: int, target: int) -> None:
    field = struct.pack("<Q", value)
    assert refs.read(kind, field, 0, base) == target
    moved = refs.write(kind, field, 0, base, target + 0x40)
    assert moved == struct.pack("<Q", value + 0x40)
    # One bit turns a rebase into a bind, and an authenticated one into a plain one.
    for bit in (62, 63):
        if bit == 63 or kind not in (CHAIN64, CHAIN64_OFFSET):
            other = struct.pack("<Q", value ^ 1 << bit)
            assert refs.read(kind, other, 0, base) is None
            assert refs.write(kind, other, 0, base, target) is None


def test_a_bind_names_no_address() -> None:
    bind = struct.pack("<Q", 1 << 63 | 3 << 51 | 0x1234)
    assert refs.read(CHAIN_BIND, bind) == 0
    assert refs.write(CHAIN_BIND, bind, 0, 0, 0) == bind
    assert refs.write(CHAIN_BIND, bind, 0, 0, 4) is None
    assert refs.label(CHAIN_BIND, bind, 2**64 - 1) == bind
    assert refs.read(CHAIN_BIND, bytes(8)) is None


@pytest.mark.parametrize("kind", [k for k in range(256) if k not in KINDS])
def test_unknown_kinds_are_nothing(kind: int) -> None:
    assert refs.core()[1].bspi_ref_size(kind) == 0
    assert refs.read(kind, bytes(8)) is None
    assert refs.write(kind, bytes(8), 0, 0, 0) is None
    assert refs.label(kind, bytes(8), 1) == bytes(8)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind: int) -> None:
    assert refs.core()[1].bspi_ref_size(kind) == SIZES[kind]


ANY64 = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 2**33), st.integers(2**64 - 2**33, 2**64 - 1)
)
# Opcodes to begin from, so that random fields are of their kind often enough.
OPCODES = {
    B26: [0x14000000, 0x94000000], B19: [0x54000000, 0x34000000, 0xB5000000],
    B14: [0x36000000, 0xB7000000], LIT19: [0x18000000, 0x9C000000, 0xD8000000],
    ADR: [0x10000000], ADRP: [0x90000000], ADD12: [0x91000000],
    LDST12: [0x39000000, 0x79400000, 0xB9800000, 0xF9400000, 0x3DC00000],
    CHAIN_ARM64E_AUTH: [1 << 63], CHAIN_BIND: [1 << 63, 1 << 62],
    CHAIN_BIND24: [1 << 63, 1 << 62], CHAIN_BIND16: [1 << 63, 1 << 62],
    ULEB1: [0], ULEB2: [0x80], ULEB3: [0x8080], ULEB4: [0x808080],
}  # fmt: skip


@st.composite
def fields(draw: st.DrawFn) -> tuple[int, bytes]:
    """A kind and a field that is one of its kind more often than not."""
    kind = draw(st.sampled_from(KINDS))
    field = draw(st.binary(min_size=SIZES[kind], max_size=SIZES[kind]))
    if kind in OPCODES and draw(st.booleans()):
        value = int.from_bytes(field, "little") & (ADDRESS_BITS[kind] | 0x1F)
        field = (value | draw(st.sampled_from(OPCODES[kind]))).to_bytes(SIZES[kind], "little")
    return kind, field


@given(fields(), ANY64, ANY64, ANY64)
def test_write_then_read(made: tuple[int, bytes], site: int, base: int, target: int) -> None:
    kind, field = made
    if kind in (ADD12, LDST12):
        base &= ~PAGE_BITS
    # Far targets hardly ever fit: take near ones as well.
    origin = 0 if kind in (ABS64, ABS32, CHAIN64, CHAIN_ARM64E) else base
    near = {B26, B19, B14, LIT19, ADR, ADRP, PC32, BACK32}
    aims = (target, ((site if kind in near else origin) + target % 2**17) % 2**64)
    for aim in aims:
        after = refs.write(kind, field, site, base, aim)
        if after is None:
            continue
        kept = ~ADDRESS_BITS[kind]
        assert (int.from_bytes(field, "little") ^ int.from_bytes(after, "little")) & kept == 0
        expected = aim
        if kind == ADRP:
            expected = aim & ~PAGE_BITS
        elif kind in (ADD12, LDST12):
            expected = base | (aim & PAGE_BITS)
        assert refs.read(kind, after, site, base) == expected


PAGE_BITS = refs.PAGE


@given(fields(), ANY64, ANY64)
def test_read_then_write(made: tuple[int, bytes], site: int, base: int) -> None:
    kind, field = made
    if kind in (ADD12, LDST12):
        base &= ~PAGE_BITS
    target = refs.read(kind, field, site, base)
    if target is not None:
        assert refs.write(kind, field, site, base, target) == field


@given(fields(), ANY64)
def test_labels_touch_address_bits_alone(made: tuple[int, bytes], value: int) -> None:
    kind, field = made
    before = int.from_bytes(field, "little")
    after = int.from_bytes(refs.label(kind, field, value), "little")
    assert (before ^ after) & ~ADDRESS_BITS[kind] == 0
    # A label says as much as fits, and the same from whatever was there before.
    width = ADDRESS_BITS[kind].bit_count()
    assert refs.label(kind, field, value % (1 << width)) == after.to_bytes(SIZES[kind], "little")
    blank = refs.label(kind, field, 0)
    assert int.from_bytes(blank, "little") & ADDRESS_BITS[kind] == 0
    full = refs.label(kind, field, 2**64 - 1)
    assert int.from_bytes(full, "little") & ADDRESS_BITS[kind] == ADDRESS_BITS[kind]
