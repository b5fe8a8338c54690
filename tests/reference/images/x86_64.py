"""References in x86-64 code (format-images-code.md, "x86-64")."""

from __future__ import annotations

from collections.abc import Iterator

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64, sext

RUN_UP = 1024
LONGEST = 15
PREFIXES = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)}
NOT_BEFORE_VEX = {0x66, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)}
NONE = "-"


def _table(rows: dict[str, str]) -> list[str]:
    table = [""] * 256
    for opcodes, parts in rows.items():
        for part in opcodes.split():
            first, _, last = part.partition("-")
            for opcode in range(int(first, 16), int(last or first, 16) + 1):
                assert not table[opcode]
                table[opcode] = parts
    return table


ONE_BYTE = _table(
    {
        "00-03 08-0B 10-13 18-1B 20-23 28-2B 30-33 38-3B 63 84-8E D0-D3 D8-DF": "m",
        "04 0C 14 1C 24 2C 34 3C 6A A8 B0-B7 CD E4-E7": "1",
        "05 0D 15 1D 25 2D 35 3D 68 A9": "z",
        "69 81": "mz",
        "6B 80 83 C0 C1": "m1",
        "C2 CA": "2",
        "C8": "21",
        "70-7F E0-E3 EB": "j1",
        "E8 E9": "j4",
        "50-5F 6C-6F 90-99 9B-9F A4-A7 AA-AF C3 C9 CB CC CF D7 EC-EF F1 F4 F5 F8-FD": "0",
        "A0-A3": "a",
        "B8-BF": "w",
        "0F C4 C5 62 8F C6 C7 F6 F7 FE FF": "special",
        "06 07 0E 16 17 1E 1F 27 2F 37 3F 60 61 82 9A CE D4-D6 EA": NONE,
        "26 2E 36 3E 64 65 66 67 F0 F2 F3 40-4F": "prefix",
    }
)
TWO_BYTE = _table(
    {
        "00-03 0D 10-23 28-2F 40-6F 74-76 78 79 7C-7F 90-9F A3 A5 AB AD-B9 BB-C1 C3 C7 D0-FF": "m",
        "0F 70-73 A4 AC BA C2 C4-C6": "m1",
        "80-8F": "j4",
        "05-09 0B 0E 30-35 37 77 A0-A2 A8-AA C8-CF": "0",
        "04 0A 0C 24-27 36 39 3B-3F 7A 7B A6 A7": NONE,
        "38 3A": "special",
    }
)


def _vector(which: int, opcode: int, no_vex: bool) -> str:
    if no_vex:
        return NONE
    if which in (2, 5, 6, 9):
        return "m"
    if which in (3, 8):
        return "m1"
    if which == 10:
        return "m4"
    if which != 1:
        return NONE
    if 0x90 <= opcode <= 0x9F:
        return "m"
    parts = TWO_BYTE[opcode]
    if parts == "special":
        return NONE
    return parts if "m" in parts or opcode == 0x77 else NONE


def _special(code: bytes, at: int, no_vex: bool) -> tuple[str, int]:
    """The parts of an opcode that begins at `at`, and where they begin."""
    opcode, p = code[at], code[at + 1]
    field = p >> 3 & 7
    if opcode == 0x0F:
        if p == 0x38:
            return "m", at + 3
        if p == 0x3A:
            return "m1", at + 3
        return TWO_BYTE[p], at + 2
    if opcode == 0xC5:
        return _vector(1, code[at + 2], no_vex), at + 3
    if opcode == 0xC4:
        which = p & 31
        return _vector(which, code[at + 3], no_vex) if which <= 3 else NONE, at + 4
    if opcode == 0x62:
        if p & 8 or not code[at + 2] & 4:
            return NONE, at
        return _vector(p & 7, code[at + 4], no_vex), at + 5
    if opcode == 0x8F:
        if p & 31 < 8:
            return "m" if field == 0 else NONE, at + 1
        return _vector(p & 31, code[at + 3], no_vex), at + 4
    if opcode in (0xC6, 0xC7):
        if p == 0xF8:
            return "m1" if opcode == 0xC6 else "mj4", at + 1
        return (("m1" if opcode == 0xC6 else "mz") if field == 0 else NONE), at + 1
    if opcode in (0xF6, 0xF7):
        return (("m1" if opcode == 0xF6 else "mz") if field <= 1 else "m"), at + 1
    if opcode == 0xFE:
        return "m" if field <= 1 else NONE, at + 1
    return NONE if field == 7 or (field in (3, 5) and p >> 6 == 3) else "m", at + 1


def decode(code: bytes, at: int) -> tuple[int, int, int]:
    """Length of the instruction (0 for none), its reference's field and kind (0 for none).

    `code` has zeros behind its end, at least twice the longest instruction.
    """
    start = at
    size = address = wide = no_vex = False
    byte = code[at]
    while byte in PREFIXES:
        size |= byte == 0x66
        address |= byte == 0x67
        wide = 0x48 <= byte <= 0x4F
        no_vex |= byte in NOT_BEFORE_VEX
        at += 1
        if at - start >= LONGEST:
            return 0, 0, 0
        byte = code[at]
    parts = ONE_BYTE[byte]
    at += 1
    if parts == "special":
        parts, at = _special(code, at - 1, no_vex)
    if parts == NONE:
        return 0, 0, 0
    place = kind = 0
    jump = False
    for part in parts:
        if part == "m":
            mod, rm = code[at] >> 6, code[at] & 7
            at += 1
            base = rm
            if mod != 3 and rm == 4:
                base = code[at] & 7
                at += 1
            if mod == 0 and rm == 5:
                place, kind = at, kinds.RIP32
            if mod == 2 or (mod == 0 and base == 5):
                at += 4
            elif mod == 1:
                at += 1
        elif part == "j":
            jump = True
        elif part != "0":
            if part == "a":
                length = 4 if address else 8
            elif part == "w":
                length = 8 if wide else 2 if size else 4
            elif part == "z":
                length = 2 if size and not wide else 4
            else:
                length = int(part)
            if jump:
                place, kind = at, kinds.REL8 if length == 1 else kinds.REL32
            at += length
    return (at - start, place, kind) if at - start <= LONGEST else (0, 0, 0)


def _sweep(code: bytes, length: int, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field, kind, offset behind) of what references the instructions from `begin` on have."""
    at = begin
    while at < end:
        step, place, kind = decode(code, at)
        if step and at + step <= length:
            if kind:
                yield place, kind, at + step
            at += step
        else:
            at += 1


def find(code: bytes, addr: int, begin: int, end: int) -> list[tuple[int, int, int, int]]:
    """(offset, kind, base, target) of the references whose field begins in [begin, end)."""
    length = len(code)
    around = max(begin - RUN_UP, 0)
    part = code[around : end + 2 * LONGEST] + bytes(4 * LONGEST)
    refs: list[tuple[int, int, int, int]] = []
    again: set[tuple[int, int]] | None = None
    for place, kind, behind in _sweep(part, length - around, 0, end - around):
        field, size = around + place, kinds.SHAPES[kind].size
        if not begin <= field < end:
            continue
        if field + size > end:
            if again is None:
                start = max(end - RUN_UP, 0) - around
                again = {(p, k) for p, k, _ in _sweep(part, length - around, start, end - around)}
            if (place, kind) not in again:
                continue
        base = addr + around + behind & MASK64
        number = sext(int.from_bytes(part[place : place + size], "little"), 8 * size)
        refs.append((field, kind, base, base + number & MASK64))
    return refs
