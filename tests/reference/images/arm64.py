"""References in arm64 code (format-images-code.md, "arm64")."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64, access_bits, sext

REACH = 2048  # bytes between an ADRP and what completes it
SP = 31

DIRECT = {
    **dict.fromkeys([*range(0x14, 0x18), *range(0x94, 0x98)], kinds.B26),
    **dict.fromkeys([0x34, 0x35, 0x54, 0xB4, 0xB5], kinds.B19),
    **dict.fromkeys([0x36, 0x37, 0xB6, 0xB7], kinds.B14),
    **dict.fromkeys([0x18, 0x1C, 0x58, 0x5C, 0x98, 0x9C, 0xD8], kinds.LIT19),
    **dict.fromkeys([0x10, 0x30, 0x50, 0x70], kinds.ADR),
}
BRANCH_LINK = range(0x94, 0x98)
LITERAL = {top for top, kind in DIRECT.items() if kind == kinds.LIT19}
ADR = {top for top, kind in DIRECT.items() if kind == kinds.ADR}
ADD = 0x91
ADRP = {0x90, 0xB0, 0xD0, 0xF0}
UNSIGNED = {0x39, 0x3D, 0x79, 0x7D, 0xB9, 0xBD, 0xF9, 0xFD}


def _tops(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return found


PAIR = _tops("28 29 2C 2D 68 69 6C 6D A8 A9 AC AD E8 E9 EC ED")
OTHERS = _tops("19 38 3C 59 78 7C 99 B8 BC D9 F8 FC")
EXCLUSIVE = _tops("08 09 48 49 88 89 C8 C9")
STRUCTURES = _tops("0C 0D 4C 4D 8C 8D CC CD")
INDIRECT = _tops("D6 D7")
SYSTEM = {0xD5}
SIMD = _tops("0E 1E 4E 9E")
CARRY = _tops("3A 7A BA FA")
DATA = _tops(
    "0A 0B 11-13 1A 1B 2A 2B 31-33 3B 4A 4B 51-53 5A 5B 6A 6B 71-73 7B 8A 8B 92 93 9A 9B AA AB "
    "B1-B3 BB CA CB D1-D3 DA DB EA EB F1-F3 FB"
)


def adr_number(word: int) -> int:
    """The number in an ADR or ADRP, sign extended."""
    return sext((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)


def _loads(word: int) -> bool:
    opc = word >> 22 & 3
    return not word >> 26 & 1 and opc != 0 and not (opc == 2 and word >> 30 == 3)


def _restores(word: int) -> bool:
    return word >> 5 & 31 == SP and 19 <= word & 31 <= 28


def _forget_unsigned(word: int) -> list[int]:
    return [word & 31] if access_bits(word) is not None and _loads(word) else []


def _forget_literal(word: int) -> list[int]:
    return [] if word >> 26 & 1 or word >> 30 == 3 else [word & 31]


def _forget_pair(word: int) -> list[int]:
    lost = []
    if not word >> 26 & 1 and word >> 22 & 1 and not _restores(word):
        lost = [word & 31, word >> 10 & 31]
    return [*lost, word >> 5 & 31] if word >> 23 & 1 else lost


def _forget_others(word: int) -> list[int]:
    mode, rd, rn = word >> 10 & 3, word & 31, word >> 5 & 31
    lost = []
    if word >> 28 & 3 != 3:
        return [rd] if _loads(word) else []
    if word >> 21 & 1:
        if (mode == 2 and _loads(word)) or (mode != 2 and not word >> 26 & 1):
            lost.append(rd)
        if mode == 3:
            lost.append(rn)
    else:
        if _loads(word) and not (mode == 1 and _restores(word)):
            lost.append(rd)
        if mode in (1, 3):
            lost.append(rn)
    return lost


def _forget_exclusive(word: int) -> list[int]:
    return [*([word & 31] if word >> 22 & 1 else []), word >> 16 & 31, word >> 10 & 31]


def _forget_simd(word: int) -> list[int]:
    if word & 0x5F20FC00 == 0x1E200000:
        writes = not word >> 17 & 1 or word >> 16 & 7 == 6
    elif word & 0x5F200000 == 0x1E000000:
        writes = word >> 17 & 3 == 0
    else:
        writes = word & 0xBFE0FC00 in (0x0E003C00, 0x0E002C00)
    return [word & 31] if writes else []


def _table() -> list[Callable[[int], list[int]] | None]:
    def rd(word: int) -> list[int]:
        return [word & 31]

    table: list[Callable[[int], list[int]] | None] = [None] * 256
    rules: list[tuple[set[int], Callable[[int], list[int]]]] = [
        (DATA | ADR | {ADD}, rd),
        (LITERAL, _forget_literal),
        (UNSIGNED, _forget_unsigned),
        (PAIR, _forget_pair),
        (OTHERS, _forget_others),
        (EXCLUSIVE, _forget_exclusive),
        (STRUCTURES, lambda word: [word >> 5 & 31] if word >> 23 & 1 else []),
        (SYSTEM, lambda word: [word & 31] if word >> 21 & 1 else []),
        (SIMD, _forget_simd),
        (CARRY, lambda word: [] if word >> 22 & 1 else [word & 31]),
    ]
    for tops, rule in rules:
        for top in tops:
            table[top] = rule
    return table


FORGETS = _table()


def _direct(kind: int, word: int, pc: int) -> int:
    if kind == kinds.B26:
        return pc + 4 * sext(word, 26)
    if kind == kinds.B14:
        return pc + 4 * sext(word >> 5, 14)
    if kind == kinds.ADR:
        return pc + adr_number(word)
    return pc + 4 * sext(word >> 5, 19)


def find(code: bytes, addr: int) -> list[tuple[int, int, int, int]]:
    """(offset, kind, base, target) of each reference, ascending by offset."""
    refs: list[tuple[int, int, int, int]] = []
    page = [0] * 32
    made: list[int | None] = [None] * 32
    waits: list[int | None] = [None] * 32  # index into refs
    call: int | None = None
    first = -addr & 3
    count = max(len(code) - first, 0) // 4
    for index, word in enumerate(struct.unpack_from(f"<{count}I", code, first)):
        top = word >> 24
        at = first + 4 * index
        # 1. a consumer is weighed
        if top == ADD or top in UNSIGNED:
            rn = word >> 5 & 31
            since = made[rn]
            if since is not None and at - since <= REACH:
                shift = access_bits(word)
                if top == ADD:
                    low = word >> 10 & 0xFFF if word >> 22 & 3 == 0 else None
                else:
                    low = (word >> 10 & 0xFFF) << shift if shift is not None else None
                clobbered = (rn <= 17 or rn == 30) and call is not None and call > since
                if low is not None and low <= 4095 and not clobbered:
                    target = page[rn] + low & MASK64
                    kind = kinds.ADD12 if top == ADD else kinds.LDST12
                    refs.append((at, kind, page[rn], target))
                    waiting = waits[rn]
                    if waiting is not None:
                        refs[waiting] = (*refs[waiting][:3], target)
                        waits[rn] = None
        # 2. and 5. what is forgotten
        rule = FORGETS[top]
        if rule is not None:
            for register in rule(word):
                made[register] = None
        # 3. direct references
        direct = DIRECT.get(top)
        if direct is not None:
            refs.append((at, direct, 0, _direct(direct, word, addr + at) & MASK64))
        # 4. calls
        if top in BRANCH_LINK or (top in INDIRECT and word >> 21 & 3 == 1):
            call = at
        if top in ADRP:
            rd = word & 31
            page[rd] = (addr + at & ~0xFFF) + 4096 * adr_number(word) & MASK64
            waits[rd] = len(refs)
            made[rd] = at if rd != SP else None
            refs.append((at, kinds.ADRP, 0, page[rd]))
    return refs
