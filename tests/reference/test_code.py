"""The reference's finders and kinds, and the core's, on code that no compiler would write."""

from __future__ import annotations

import random
import struct

import pytest

from tests.reference.images import arm64, kinds, x86_64
from tests.support import refs

TABLE_TOPS = [top for top in range(256) if arm64.FORGETS[top] or top in arm64.DIRECT]
SOME_OPCODES = (
    "e8 e9 eb 0f 05 0d 15 1d 25 2d 35 3d 8b 8d 48 4c 66 67 f2 f3 c4 c5 62 8f c6 c7 f6 f7 fe ff "
    "81 83 69 6b c2 c8 a0 b8 80 84 38 3a f8 70 e3"
)

PREFIXES = [
    bytes.fromhex(text)
    for text in (
        "", "48", "66", "6648", "67", "0f", "0f38", "c5f8", "c4e178", "c4e278", "c4e378",
        "62f17c48", "62f57c48", "8fe878", "8fe978", "8fea78",
    )
]  # fmt: skip


def word(rng: random.Random) -> int:
    """An arm64 instruction, often one of those that matter, with few registers."""
    top = rng.choice(TABLE_TOPS) if rng.random() < 0.9 else rng.randrange(256)
    if rng.random() < 0.3:
        top = rng.choice((0x90, 0xB0, 0xD0, 0xF0, 0x91, 0xF9, 0xB9, 0x39, 0x3D, 0xFD, 0x94))
    value = top << 24 | rng.randrange(1 << 24)
    if rng.random() < 0.7:
        value = value & ~(31 << 5) | rng.choice((0, 1, 2, 19, 20, 30, 31)) << 5
    if rng.random() < 0.7:
        value = value & ~31 | rng.choice((0, 1, 2, 19, 20, 30, 31))
    return value


def as_core(found: list[tuple[int, int, int, int]]) -> list[refs.Ref]:
    return [
        refs.Ref(off, kind, target, base, kinds.SHAPES[kind].size)
        for off, kind, base, target in found
    ]


@pytest.mark.parametrize("seed", range(40))
def test_arm64(seed: int) -> None:
    rng = random.Random(seed)
    code = struct.pack("<900I", *(word(rng) for _ in range(900)))
    code = code[: len(code) - rng.randrange(4)]
    addr = rng.choice((0, 4, 0x1000, 0x100003F80, (1 << 64) - 2048, 0x4003, 0x4001))
    assert as_core(arm64.find(code, addr)) == refs.find("arm64", code, addr)


@pytest.mark.parametrize("seed", range(40))
def test_x86_64(seed: int) -> None:
    rng = random.Random(seed)
    opcodes = bytes.fromhex(SOME_OPCODES)
    code = bytes(
        rng.choice(opcodes) if rng.random() < 0.5 else rng.randrange(256) for _ in range(5000)
    )
    addr = rng.choice((0, 0x1000, (1 << 64) - 1000))
    for begin, end in ((0, len(code)), (1500, 4000), (0, 700), (4990, len(code))):
        assert as_core(x86_64.find(code, addr, begin, end)) == refs.find(
            "x86_64", code, addr, begin, end
        )


@pytest.mark.parametrize("first", range(0, 256, 16))
def test_every_x86_64_opcode(first: int) -> None:
    rng = random.Random(first)
    for opcode in range(first, first + 16):
        for prefix in PREFIXES:
            code = prefix + bytes([opcode]) + rng.choice((b"\x05", b"\x0d", b"\x25")) + b"\1" * 40
            assert as_core(x86_64.find(code, 0, 0, len(code))) == refs.find("x86_64", code), code


@pytest.mark.parametrize("kind", kinds.SHAPES)
def test_kind(kind: int) -> None:
    rng = random.Random(kind)
    shape = kinds.SHAPES[kind]
    fitting = 0
    for _ in range(3000):
        field = rng.getrandbits(8 * shape.size)
        if rng.random() < 0.9:
            field = field & ~shape.mask | shape.match
        site, base = (rng.choice((0, rng.getrandbits(33), rng.getrandbits(64))) for _ in range(2))
        if shape.origin != kinds.BASE:
            base = 0
        near = base if shape.origin == kinds.BASE else site
        distance = rng.choice((0, rng.randrange(1 << 12), rng.randrange(1 << 30)))
        scale = rng.choice((1, 2, 4, 16, 24, 4096))
        target = near + rng.choice((-1, 1)) * distance * scale & kinds.MASK64
        data = field.to_bytes(shape.size, "little")
        if kind not in (kinds.ADD12, kinds.LDST12):  # their base is a page
            assert kinds.read(kind, field, site, base) == refs.read(kind, data, site, base)
        after = refs.write(kind, data, site, base, target)
        ours = kinds.write(kind, field, site, base, target).to_bytes(shape.size, "little")
        assert ours == (data if after is None else after)
        fitting += after is not None
    assert fitting
