"""A kernel module's .BTF: its type numbers and string offsets move together."""

from __future__ import annotations

import random
import struct

from tests.support import elf_model as em
from tests.support.toy_elf import ALLOC, ET_DYN, ET_REL, EXEC, PROGBITS, ToyElf

SPACE = 1 << 24


def kind(number: int, length: int = 0) -> int:
    """The info word of a type."""
    return number << 24 | length


def btf(*words: int) -> bytes:
    """A BTF section with the types that `words` spell, and one string."""
    types = struct.pack(f"<{len(words)}I", *words)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), 4)
    return head + types + b"\0abc"


# String offsets are in the 900s, type numbers in the 100s, all else in the 700s.
TYPES = [
    *(901, kind(1), 700, 701),  # int
    *(0, kind(2), 102),  # pointer
    *(0, kind(3), 700, 103, 104, 702),  # array
    *(902, kind(4, 2), 700, 903, 105, 701, 904, 106, 702),  # struct
    *(905, kind(6, 1), 700, 906, 701),  # enum
    *(0, kind(10), 107),  # const
    *(907, kind(12), 108),  # function
    *(0, kind(13, 2), 109, 908, 110, 0, 0),  # its prototype, variadic
    *(909, kind(14), 111, 701),  # variable
    *(910, kind(15, 1), 700, 112, 701, 702),  # section
    *(911, kind(17), 113, 0xFFFFFFFF),  # tag
    *(912, kind(19, 1), 700, 913, 701, 702),  # 64-bit enum
]


def references(elf: ToyElf, data: bytes) -> dict[int, int]:
    """What the .BTF section `data` refers to, by 4-byte word of its types."""
    elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 16)
    section = elf.add(".BTF", PROGBITS, 0, data)
    model = em.parse(elf.build())
    return {
        (off - section.off - 24) // 4: ref.target
        for off, ref in model.refs.items()
        if section.off <= off < section.off + section.size
    }


def test_types_and_strings_are_referred_to() -> None:
    elf = ToyElf(ET_REL)
    found = references(elf, btf(*TYPES))
    model = em.parse(elf.build())
    types, strings = model.piece("BTF types"), model.piece("BTF strings")
    assert (types.role, types.memory) == (em.ZEROFILL, SPACE)
    assert (strings.role, strings.memory) == (em.ZEROFILL, SPACE)
    wanted = {
        i: (strings.addr if word >= 900 else types.addr) + word
        for i, word in enumerate(TYPES)
        if 100 <= word < 200 or 900 <= word < 1000
    }
    assert found == wanted


def test_an_unknown_kind_ends_the_walk() -> None:
    found = references(ToyElf(ET_REL), btf(901, kind(8), 101, 902, kind(30), 102, 903))
    assert found.keys() == {0, 2}


def test_numbers_beyond_the_space_are_left_out() -> None:
    found = references(ToyElf(ET_REL), btf(SPACE, kind(8), SPACE - 1, 1, kind(8), 2))
    assert found.keys() == {2, 3, 5}


def test_linked_files_keep_their_addresses_to_themselves() -> None:
    assert references(ToyElf(ET_DYN), btf(*TYPES)) == {}


def test_mutations_are_survived() -> None:
    rng = random.Random(23)
    for _ in range(3000):
        data = bytearray(btf(*TYPES))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        references(ToyElf(ET_REL), bytes(data[: rng.choice([len(data), rng.randrange(200)])]))
