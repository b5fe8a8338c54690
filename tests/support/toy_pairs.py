"""Pairs of small builds: code that calls itself, pointers at it, and a change that moves things."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.support.toy_elf import ALLOC, EXEC, WRITE, ToyElf, words
from tests.support.toy_macho import ARM64, PURE_INSTRUCTIONS, ToyMacho, fat

FUNCTIONS = 150
BODY = 64  # bytes of a function


def _bodies(changed: bool) -> list[tuple[int, bytes]]:
    """(number, random body) of each function; a changed build has three new ones in between."""
    draw = random.Random(11)
    bodies = [(number, draw.randbytes(BODY)) for number in range(FUNCTIONS)]
    if changed:
        for number in range(3):
            bodies.insert(40 + 20 * number, (FUNCTIONS + number, draw.randbytes(BODY)))
    return bodies


def _code(
    changed: bool, plain: Callable[[bytes], bytes], write: Callable[[bytearray, int, int], None]
) -> tuple[bytes, list[int]]:
    """Code in which each function calls two others, and where the functions of both builds are.

    `plain` makes instructions without addresses of random bytes, `write` a call.
    """
    bodies = [(number, plain(body)) for number, body in _bodies(changed)]
    places = {number: index * BODY for index, (number, _) in enumerate(bodies)}
    code = bytearray(b"".join(body for _, body in bodies))
    for number, at in places.items():
        for step, field in ((7, 16), (31, 40)):
            write(code, at + field, places[(number * step + 3) % FUNCTIONS])
    return bytes(code), [places[number] for number in range(FUNCTIONS)]


def arm64(changed: bool, subtype: int = 0) -> bytes:
    """A Mach-O slice with branches and chained pointers."""
    draw = random.Random(3)

    def plain(body: bytes) -> bytes:  # ADD x0, x0, #imm
        words = struct.unpack(f"<{len(body) // 4}I", body)
        return struct.pack(f"<{len(words)}I", *(0x91000000 | word & 0x3FFC00 for word in words))

    def write(code: bytearray, at: int, to: int) -> None:
        struct.pack_into("<I", code, at, 0x94000000 | (to - at) // 4 & 0x3FFFFFF)

    code, places = _code(changed, plain, write)
    toy = ToyMacho(ARM64, subtype)
    toy.segment("__TEXT")
    text = toy.section("__text", code, flags=PURE_INSTRUCTIONS)
    toy.section("__const", draw.randbytes(3000))
    toy.segment("__DATA")
    toy.section("__data", 8 * FUNCTIONS)
    toy.zerofill("__bss", 512)
    toy.chains(6, {"__DATA": {8 * i: text.off + place for i, place in enumerate(places)}})
    return toy.build()


def universal(changed: bool) -> bytes:
    """A fat file of two slices."""
    return fat([(ARM64, 0, arm64(changed)), (ARM64, 2, arm64(changed, 2))])


def x86_64(changed: bool) -> bytes:
    """A shared ELF object with calls and relocated pointers."""
    draw = random.Random(4)

    def plain(body: bytes) -> bytes:  # PUSH and POP
        return bytes(0x50 | byte & 15 for byte in body)

    def write(code: bytearray, at: int, to: int) -> None:
        struct.pack_into("<Bi", code, at, 0xE8, to - (at + 5))

    code, places = _code(changed, plain, write)
    toy = ToyElf()
    text = toy.add(".text", flags=ALLOC | EXEC, data=code)
    toy.add(".rodata", data=draw.randbytes(3000))
    toy.add(".data", flags=ALLOC | WRITE, data=words(*(text.addr + place for place in places)))
    return toy.build()


def raw(changed: bool) -> bytes:
    """Bytes that are no executable."""
    return b"".join(body for _, body in _bodies(changed))


PAIRS: dict[str, Callable[[bool], bytes]] = {
    "raw": raw,
    "macho": arm64,
    "fat": universal,
    "elf": x86_64,
}
