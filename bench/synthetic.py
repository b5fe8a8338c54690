"""Generated pairs of any size: executables of which a chosen share is new in the newer build.

A file is an ELF shared object for arm64 made of blocks of 64 KiB.  One word in eight of a
block is a call to one of eight other blocks; the rest looks like instructions without
references.  The newer build replaces a share of the blocks, and has one more block at a third
of its length: everything behind it moves, and with it what every call across that place
says.  The same arguments give the same bytes on every machine.
"""

from __future__ import annotations

import random
import struct
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16
_WORDS = BLOCK // 4
_LANES = 8  # calls in 64 words; lane n is the call at word 8 n of each
_TEXT = 0x1000
_CALL = 0x94000000  # bl
#: the highest byte of an instruction: add, orr, ldr, str, sub, mov, movk, stp, ldp
_TOPS = bytes((0x91, 0xAA, 0xF9, 0xB9, 0xD1, 0x52, 0x72, 0xA9)[i * 8 >> 8] for i in range(256))
#: the other bytes: few values are frequent, as in code
_BYTES = bytes((i * i >> 8) if i % 3 else i >> 4 for i in range(256))


@dataclass(frozen=True)
class Plan:
    """Which blocks a file is made of: the seed of each, in order, and what each calls."""

    seeds: list[int]
    targets: list[list[int]]  # of each block, the seeds of the blocks it calls


def plans(size: int, share: float, seed: int = 1) -> tuple[Plan, Plan]:
    """The older and the newer build of about `size` bytes."""
    draw = random.Random(seed)
    count = max(2, size // BLOCK)
    old = list(range(count))
    targets = [[draw.randrange(count) for _ in range(_LANES)] for _ in old]
    changed = set(draw.sample(old, round(count * share)))
    new = [number + (1 << 32) if number in changed else number for number in old]
    at = count // 3
    extra = [draw.randrange(count) for _ in range(_LANES)]
    newer = Plan([*new[:at], 1 << 33, *new[at:]], [*targets[:at], extra, *targets[at:]])
    return Plan(old, targets), newer


def _block(number: int, place: int, targets: list[int]) -> bytes:
    """One block: `place` is its index in the file, `targets` the indices of those it calls."""
    draw = random.Random(number)
    code = bytearray(draw.randbytes(BLOCK).translate(_BYTES))
    code[3::4] = draw.randbytes(_WORDS).translate(_TOPS)
    words = array("I")
    words.frombytes(bytes(code))
    if sys.byteorder == "big":
        words.byteswap()
    for lane, target in enumerate(targets):
        first = (target - place) * _WORDS - lane * 8
        count = _WORDS // 64
        if target == place:
            continue
        base = _CALL + (first & 0x3FFFFFF)
        words[lane * 8 :: 64] = array("I", range(base, base - 64 * count, -64))
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def write(plan: Plan, out: BinaryIO) -> int:
    """Writes the file; its size in bytes."""
    places: dict[int, int] = {}
    for index, number in enumerate(plan.seeds):
        places[number & 0xFFFFFFFF if number < 1 << 33 else -1] = index
    length = len(plan.seeds) * BLOCK
    out.write(_head(length))
    for index, number in enumerate(plan.seeds):
        # Calls reach 128 MiB; those that would not are calls to a neighbour instead.
        targets = [places[target] for target in plan.targets[index]]
        near = [t if abs(t - index) < 2000 else max(index - 1, 0) for t in targets]
        out.write(_block(number, index, near))
    tail = _tail(length)
    out.write(tail)
    return _TEXT + length + len(tail)


_NAMES = b"\0.text\0.shstrtab\0"


def _head(length: int) -> bytes:
    """ELF header and one loaded segment."""
    sections = _TEXT + length + len(_NAMES)
    sections += -sections % 8
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, sections, 0, 64, 56, 1, 64, 3, 2
    )
    whole = _TEXT + length
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, whole, whole, 0x1000)
    return (header + segment).ljust(_TEXT, b"\0")


def _tail(length: int) -> bytes:
    """Section names and the table of sections."""
    at = _TEXT + length
    text = struct.pack("<IIQQQQIIQQ", 1, 1, 6, _TEXT, _TEXT, length, 0, 0, 4, 0)
    names = struct.pack("<IIQQQQIIQQ", 7, 3, 0, 0, at, len(_NAMES), 0, 0, 1, 0)
    padding = bytes(-(at + len(_NAMES)) % 8)
    return _NAMES + padding + bytes(64) + text + names


def generate(size: int, share: float, folder: Path) -> tuple[Path, Path]:
    """Writes both builds into a folder, unless they are there already."""
    made = []
    for plan, name in zip(plans(size, share), ("old", "new"), strict=True):
        path = folder / f"generated-{size}-{share:g}-{name}.so"
        if not path.exists():
            temporary = path.with_name(path.name + ".part")
            with temporary.open("wb") as out:
                write(plan, out)
            temporary.replace(path)
        made.append(path)
    return made[0], made[1]
