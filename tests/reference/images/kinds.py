"""How each kind keeps its number in its field (format-images.md, "Reference kinds")."""

from __future__ import annotations

from typing import NamedTuple

MASK64 = (1 << 64) - 1
B26, B19, B14, LIT19, ADR, ADRP, ADD12, LDST12 = range(1, 9)
REL32, REL8, RIP32 = 16, 17, 18
ABS64, ABS32, PC32, BASE32, BASE16X4, BASE8X4, BASE24 = 32, 33, 34, 35, 36, 37, 38
BACK32, INDEX24, INDEX16, FILE32, BASE64 = 40, 41, 42, 43, 44
CHAIN64, CHAIN64_OFFSET, CHAIN_ARM64E, CHAIN_ARM64E_AUTH, CHAIN_BIND = 48, 49, 50, 51, 52
CHAIN_ARM64E_OFFSET, CHAIN_BIND24, CHAIN_BIND16, IMPORT23 = 53, 54, 55, 56
ULEB1, ULEB2, ULEB3, ULEB4 = 57, 58, 59, 60

ZERO, SITE, BASE = range(3)  # what a number counts from
SIGN_BITS = 3 << 62


class Shape(NamedTuple):
    """A row of the table of kinds: sizes in bytes, shift and width in bits."""

    size: int
    shift: int
    width: int
    scale: int
    signed: bool
    origin: int
    mask: int = 0
    match: int = 0


SHAPES = {
    B26: Shape(4, 0, 26, 2, True, SITE, 0x7C000000, 0x14000000),
    B19: Shape(4, 5, 19, 2, True, SITE),
    B14: Shape(4, 5, 14, 2, True, SITE, 0x7E000000, 0x36000000),
    LIT19: Shape(4, 5, 19, 2, True, SITE, 0x3B000000, 0x18000000),
    ADR: Shape(4, 5, 21, 0, True, SITE, 0x9F000000, 0x10000000),
    ADRP: Shape(4, 5, 21, 12, True, SITE, 0x9F000000, 0x90000000),
    ADD12: Shape(4, 10, 12, 0, False, BASE, 0xFFC00000, 0x91000000),
    LDST12: Shape(4, 10, 12, 0, False, BASE, 0x3B000000, 0x39000000),
    REL32: Shape(4, 0, 32, 0, True, BASE),
    REL8: Shape(1, 0, 8, 0, True, BASE),
    RIP32: Shape(4, 0, 32, 0, True, BASE),
    ABS64: Shape(8, 0, 64, 0, False, ZERO),
    ABS32: Shape(4, 0, 32, 0, False, ZERO),
    PC32: Shape(4, 0, 32, 0, True, SITE),
    BASE32: Shape(4, 0, 32, 0, True, BASE),
    BASE16X4: Shape(2, 0, 16, 2, False, BASE),
    BASE8X4: Shape(1, 0, 8, 2, False, BASE),
    BASE24: Shape(3, 0, 24, 0, False, BASE),
    BACK32: Shape(4, 0, 32, 0, True, SITE),
    INDEX24: Shape(4, 0, 32, 0, False, BASE),
    INDEX16: Shape(4, 0, 32, 4, False, BASE),
    FILE32: Shape(4, 0, 32, 0, False, BASE),
    BASE64: Shape(8, 0, 64, 0, False, BASE),
    CHAIN64: Shape(8, 0, 36, 0, False, ZERO, 1 << 63, 0),
    CHAIN64_OFFSET: Shape(8, 0, 36, 0, False, BASE, 1 << 63, 0),
    CHAIN_ARM64E: Shape(8, 0, 43, 0, False, ZERO, SIGN_BITS, 0),
    CHAIN_ARM64E_AUTH: Shape(8, 0, 32, 0, False, BASE, SIGN_BITS, 1 << 63),
    CHAIN_BIND: Shape(8, 0, 0, 0, False, ZERO),
    CHAIN_ARM64E_OFFSET: Shape(8, 0, 43, 0, False, BASE, SIGN_BITS, 0),
    CHAIN_BIND24: Shape(8, 0, 24, 2, False, BASE),
    CHAIN_BIND16: Shape(8, 0, 16, 2, False, BASE),
    IMPORT23: Shape(4, 9, 23, 0, False, BASE),
    ULEB1: Shape(1, 0, 7, 0, False, BASE, 0x80, 0),
    ULEB2: Shape(2, 0, 14, 0, False, BASE, 0x8080, 0x80),
    ULEB3: Shape(3, 0, 21, 0, False, BASE, 0x808080, 0x8080),
    ULEB4: Shape(4, 0, 28, 0, False, BASE, 0x80808080, 0x808080),
}
BINDS = {CHAIN_BIND, CHAIN_BIND24, CHAIN_BIND16}
ADR_FIELDS = {ADR, ADRP}
ULEBS = {ULEB1, ULEB2, ULEB3, ULEB4}
LOCAL_ARM64 = range(B26, ADR + 1)


def sext(value: int, bits: int) -> int:
    """The low bits of `value` with their sign, modulo 2^64."""
    value &= (1 << bits) - 1
    return (value - (1 << bits)) & MASK64 if value >> (bits - 1) else value


def access_bits(word: int) -> int | None:
    """log2 of the bytes that an arm64 load or store with unsigned offset moves."""
    size, opc = word >> 30, word >> 22 & 3
    if word >> 26 & 1:
        return size if opc < 2 else 4 if size == 0 else None
    return None if size >= 2 and opc == 3 else size


def passes(kind: int, field: int) -> bool:
    """Whether the bytes are a field of this kind at all."""
    shape = SHAPES[kind]
    if kind in BINDS:
        return bool(field & SIGN_BITS)
    if kind == B19:
        return field & 0x7E000000 == 0x34000000 or field & 0xFF000000 == 0x54000000
    if kind == LIT19 and field & 0xC4000000 == 0xC4000000:
        return False
    if kind == LDST12 and access_bits(field) is None:
        return False
    return field & shape.mask == shape.match


def _scale(kind: int, field: int) -> int:
    if kind == LDST12:
        bits = access_bits(field)
        assert bits is not None
        return bits
    return SHAPES[kind].scale


def _number(kind: int, field: int) -> int:
    shape = SHAPES[kind]
    if kind in ADR_FIELDS:
        return (field >> 5 & 0x7FFFF) << 2 | field >> 29 & 3
    if kind in ULEBS:
        return sum((field >> 8 * i & 0x7F) << 7 * i for i in range(shape.size))
    return field >> shape.shift & ((1 << shape.width) - 1)


def _with_number(kind: int, field: int, number: int) -> int:
    shape = SHAPES[kind]
    if kind in ADR_FIELDS:
        return field & ~(0x7FFFF << 5 | 3 << 29) | number >> 2 << 5 | (number & 3) << 29
    if kind in ULEBS:
        field &= ~sum(0x7F << 8 * i for i in range(shape.size))
        return field | sum((number >> 7 * i & 0x7F) << 8 * i for i in range(shape.size))
    mask = (1 << shape.width) - 1
    return field & ~(mask << shape.shift) | number << shape.shift


def _origin(kind: int, site: int, base: int) -> int:
    origin = (0, site, base)[SHAPES[kind].origin]
    return origin & ~0xFFF if kind == ADRP else origin


def read(kind: int, field: int, site: int, base: int) -> int | None:
    """The address that a field names, None when it is no field of this kind."""
    if not passes(kind, field):
        return None
    if kind == CHAIN_BIND:
        return 0
    shape = SHAPES[kind]
    number = _number(kind, field)
    if shape.signed:
        number = sext(number, shape.width)
    number <<= _scale(kind, field)
    if kind == LDST12 and number > 4095:
        return None
    if kind == INDEX24:
        number *= 24
    origin = _origin(kind, site, base)
    return (origin - number if kind == BACK32 else origin + number) & MASK64


def write(kind: int, field: int, site: int, base: int, target: int) -> int:
    """The field naming another target, or as it was when that does not fit."""
    if not passes(kind, field) or kind == CHAIN_BIND:
        return field
    shape = SHAPES[kind]
    origin = _origin(kind, site, base)
    if kind == ADRP:
        target &= ~0xFFF
    if kind in (ADD12, LDST12):
        number = target & 0xFFF
    elif kind == BACK32:
        number = (origin - target) & MASK64
    else:
        number = (target - origin) & MASK64
    if kind == INDEX24:
        number, rest = divmod(number, 24)
        if rest:
            return field
    scale = _scale(kind, field)
    if number & ((1 << scale) - 1):
        return field
    if shape.signed:
        number = (number - (1 << 64) if number >> 63 else number) >> scale
        half = 1 << (shape.width - 1)
        if not -half <= number < half:
            return field
    else:
        number >>= scale
        if number >> shape.width:
            return field
    return _with_number(kind, field, number & ((1 << shape.width) - 1))
