"""Call frame records, their index and the exception tables they lead to."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import elf_model as em
from tests.support.toy_elf import (
    ALLOC,
    ET_EXEC,
    EXEC,
    PROGBITS,
    WRITE,
    Section,
    ToyElf,
)

OMIT, PCREL_SDATA4, INDIRECT_PCREL_SDATA4, ABSPTR, PCREL_ABSPTR = 0xFF, 0x1B, 0x9B, 0x00, 0x10
UDATA4 = 0x03


class FrameWriter:
    """Writes records to a section whose address is known."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.data = bytearray()

    def pointer(self, at: int, target: int, encoding: int) -> bytes:
        """The encoded pointer to `target` as it stands at offset `at`."""
        value = target - (self.section.addr + at) if encoding & 0x70 == 0x10 else target
        if encoding & 0x0F == 0:
            return struct.pack("<Q", value & (1 << 64) - 1)
        return struct.pack("<I", value & 0xFFFFFFFF)

    def _close(self, start: int) -> int:
        self.data += bytes(-len(self.data) % 4)
        struct.pack_into("<I", self.data, start, len(self.data) - start - 4)
        return start

    def cie(
        self,
        augmentation: bytes,
        *,
        code: int = PCREL_SDATA4,
        lsda: int = PCREL_SDATA4,
        personality: int = 0,
    ) -> int:
        """Appends a CIE; gives its offset."""
        start = len(self.data)
        self.data += struct.pack("<IIB", 0, 0, 1) + augmentation + b"\0" + b"\x01\x78\x10"
        if augmentation.startswith(b"z"):
            body = bytearray()
            self.data.append(0)
            length_at = len(self.data) - 1
            for letter in augmentation[1:].decode():
                if letter == "P":
                    body.append(INDIRECT_PCREL_SDATA4)
                    at = len(self.data) + len(body)
                    body += self.pointer(at, personality, INDIRECT_PCREL_SDATA4)
                else:
                    body.append({"R": code, "L": lsda}.get(letter, 0))
            self.data[length_at] = len(body)
            self.data += body
        return self._close(start)

    def fde(
        self, cie: int, code: int, *, encoding: int = PCREL_SDATA4, lsda: int | None = None
    ) -> int:
        """Appends an FDE for 16 bytes of code; gives the offset of its CIE pointer."""
        start = len(self.data)
        self.data += struct.pack("<II", 0, start + 4 - cie)
        self.data += self.pointer(len(self.data), code, encoding)
        self.data += struct.pack("<Q" if encoding & 0x0F == 0 else "<I", 16)
        if lsda is None:
            self.data.append(0)
        else:
            self.data.append(4)
            self.data += self.pointer(len(self.data), lsda, PCREL_SDATA4)
        self._close(start)
        return start + 4


def toy(type_: int = 3) -> tuple[ToyElf, Section, Section, FrameWriter]:
    elf = ToyElf(type_)
    text = elf.add(".text", PROGBITS, ALLOC | EXEC, b"\xc3" * 256)
    table = elf.add(".gcc_except_table", PROGBITS, ALLOC, size=256)
    frames = elf.add(".eh_frame", PROGBITS, ALLOC, size=512)
    elf.add(".data", PROGBITS, ALLOC | WRITE, size=64)
    return elf, text, table, FrameWriter(frames)


def found(elf: ToyElf, section: Section, data: bytes | bytearray) -> dict[int, tuple[int, int]]:
    """Kind and target of the references in a section that holds `data`."""
    section.data = bytes(data)
    model = em.parse(elf.build())
    return {
        off - section.off: (ref.kind, ref.target)
        for off, ref in model.refs.items()
        if section.off <= off < section.off + section.size
    }


def test_records_name_code_and_their_common_record() -> None:
    elf, text, _, frames = toy()
    cie = frames.cie(b"zR")
    first = frames.fde(cie, text.addr)
    second = frames.fde(cie, text.addr + 64)
    home = frames.section.addr
    assert found(elf, frames.section, frames.data) == {
        first: (em.BACK32, home + cie),
        first + 4: (em.PC32, text.addr),
        second: (em.BACK32, home + cie),
        second + 4: (em.PC32, text.addr + 64),
    }


def test_records_may_go_back_to_an_earlier_common_record() -> None:
    elf, text, _, frames = toy()
    plain = frames.cie(b"zR")
    other = frames.cie(b"zR", code=PCREL_ABSPTR)
    at = [
        frames.fde(plain, text.addr),
        frames.fde(other, text.addr + 16, encoding=PCREL_ABSPTR),
        frames.fde(plain, text.addr + 32),
    ]
    refs = found(elf, frames.section, frames.data)
    assert [refs[off][1] - frames.section.addr for off in at] == [plain, other, plain]
    assert [refs[off + 4] for off in at] == [(em.PC32, text.addr + 16 * i) for i in range(3)]


@pytest.mark.parametrize(("encoding", "kind"), [(ABSPTR, em.ABS64), (UDATA4, em.ABS32)])
def test_fixed_executables_may_hold_plain_addresses(encoding: int, kind: int) -> None:
    elf, text, _, frames = toy(ET_EXEC)
    fde = frames.fde(frames.cie(b"zR", code=encoding), text.addr + 8, encoding=encoding)
    assert found(elf, frames.section, frames.data)[fde + 4] == (kind, text.addr + 8)


def test_personality_and_exception_table_are_named() -> None:
    elf, text, table, frames = toy()
    slot = elf.sections[-1].addr
    cie = frames.cie(b"zPLR", personality=slot)
    fde = frames.fde(cie, text.addr, lsda=table.addr + 4)
    without = frames.fde(cie, text.addr + 16)
    refs = found(elf, frames.section, frames.data)
    assert refs[cie + 9 + 5 + 3 + 2] == (em.PC32, slot)
    assert refs[fde + 4 + 8 + 1] == (em.PC32, table.addr + 4)
    assert without + 4 + 8 + 1 not in refs


@pytest.mark.parametrize("augmentation", [b"zX", b"eh", b"zRQ"])
def test_an_unknown_augmentation_costs_its_records_only(augmentation: bytes) -> None:
    elf, text, _, frames = toy()
    odd = frames.fde(frames.cie(augmentation), text.addr)
    good = frames.fde(frames.cie(b"zRS"), text.addr + 16)
    refs = found(elf, frames.section, frames.data)
    assert odd + 4 not in refs
    assert refs[good + 4] == (em.PC32, text.addr + 16)


def area(table: Section, at: int, types: list[int], actions: bytes) -> bytes:
    """An exception table at offset `at`: no call sites, the type slots in order."""
    body = b"\x01\x00" + actions  # encoding and length of the call sites
    head_len = 3
    pad = -(at + head_len + len(body)) % 4
    types_end = at + head_len + len(body) + pad + 4 * len(types)
    head = bytes([OMIT, INDIRECT_PCREL_SDATA4, types_end - at - head_len])
    out = head + body + bytes(pad)
    for number in reversed(range(len(types))):
        field = table.addr + at + len(out)
        value = types[number] - field if types[number] else 0
        out += struct.pack("<i", value)
    return out


def test_exception_tables_name_types() -> None:
    elf, text, table, frames = toy()
    slot = elf.sections[-1].addr
    first = area(table, 0, [slot, 0, slot + 8], b"\x01\x00\x02\x7d\x03\x7d")
    start = -(-len(first) // 4) * 4
    second = area(table, start, [slot + 16], b"\x01\x00")
    table.data = first.ljust(start, b"\0") + second
    cie = frames.cie(b"zPLR", personality=slot)
    frames.fde(cie, text.addr, lsda=table.addr + start)  # not in the tables' order
    frames.fde(cie, text.addr + 16, lsda=table.addr)
    frames.section.data = bytes(frames.data)
    refs = found(elf, table, table.data)
    ends = len(first), start + len(second)
    assert refs == {
        ends[0] - 4: (em.PC32, slot),  # type 2 is null: catches everything
        ends[0] - 12: (em.PC32, slot + 8),
        ends[1] - 4: (em.PC32, slot + 16),
    }


def test_the_index_counts_from_itself() -> None:
    elf, text, _, frames = toy()
    fde = frames.fde(frames.cie(b"zR"), text.addr + 32) - 4
    frames.section.data = bytes(frames.data)
    index = elf.add(".eh_frame_hdr", PROGBITS, ALLOC, size=20)
    home = frames.section.addr
    data = struct.pack("<BBBBiI", 1, PCREL_SDATA4, 3, 0x3B, home - index.addr - 4, 1)
    data += struct.pack("<ii", text.addr + 32 - index.addr, home + fde - index.addr)
    assert found(elf, index, data) == {
        4: (em.PC32, home),
        12: (em.BASE32, text.addr + 32),
        16: (em.BASE32, home + fde),
    }


def test_a_count_beyond_the_section_is_cut() -> None:
    elf, _, _, frames = toy()
    index = elf.add(".eh_frame_hdr", PROGBITS, ALLOC, size=20)
    data = struct.pack("<BBBBiIii", 1, PCREL_SDATA4, 3, 0x3B, 16, 0xFFFFFFFF, 4, 8)
    assert found(elf, index, data).keys() == {4, 12, 16}
    assert frames.section.size


def test_mutated_frames_are_survived() -> None:
    rng = random.Random(22)
    elf, text, table, frames = toy()
    slot = elf.sections[-1].addr
    table.data = area(table, 0, [slot, slot + 8], b"\x01\x00\x02\x7d")
    cie = frames.cie(b"zPLR", personality=slot)
    frames.fde(cie, text.addr, lsda=table.addr)
    other = frames.cie(b"zR")
    frames.fde(other, text.addr + 16)
    frames.fde(cie, text.addr + 32, lsda=table.addr + 8)
    frames.section.data = bytes(frames.data)
    good = elf.build()
    places = [
        *range(table.off, table.off + len(table.data)),
        *range(frames.section.off, frames.section.off + len(frames.data)),
    ]
    for _ in range(6000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.choice(places)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        em.parse(bytes(data))


# Needs neither headers nor libraries, which would take minutes to build.
SOURCE = """
struct error { int code = 0; virtual ~error() {} };
struct worse : error { virtual void show() {} };
struct shape { virtual ~shape() {} virtual int area() = 0; };
struct square : shape { int side = 3; int area() override { return side * side; } };
static int risky(int n) { if (n > 3) throw worse(); return n; }
static int tame(int n) { if (n > 9) throw error(); return -n; }
static int (*table[])(int) = {risky, tame};
extern "C" int run(int n) {
    square s;
    try { return table[n & 1](n) + s.area(); }
    catch (const worse &) { return 1; }
    catch (const error &e) { return e.code; }
}
"""


@pytest.mark.parametrize("target", ["x86_64-linux-gnu", "aarch64-linux-gnu"])
def test_a_real_library_agrees_with_its_symbols(target: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="ziglang is missing: NO real library was looked at")
    source, library = tmp_path / "a.cpp", tmp_path / "a.so"
    source.write_text(SOURCE)
    command = [sys.executable, "-m", "ziglang", "c++", "-target", target, "-shared", "-fPIC"]
    options = ["-nostdlib", "-Wl,-z,undefs", "-O1", "-o", str(library)]
    subprocess.run([*command, *options, str(source)], check=True)
    data = library.read_bytes()
    model = em.parse(data)
    frames, code = model.piece(".eh_frame"), model.piece(".text")
    functions = function_addresses(data)
    assert functions
    starts = {
        ref.target
        for off, ref in model.refs.items()
        if frames.off <= off < frames.off + frames.size
        and ref.kind == em.PC32
        and code.addr <= ref.target < code.addr + code.size
    }
    assert len(functions & starts) > 0.9 * len(functions)
    types = model.piece(".gcc_except_table")
    named = [r for o, r in model.refs.items() if types.off <= o < types.off + types.size]
    assert len(named) >= 2
    assert all(r.kind == em.PC32 for r in named)


def function_addresses(data: bytes) -> set[int]:
    """Starts of all functions with a size, read from .symtab."""
    table_off, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    starts: set[int] = set()
    for i in range(count):
        at = table_off + 64 * i
        type_, off, size = (
            struct.unpack_from("<I", data, at + 4)[0],
            *struct.unpack_from("<QQ", data, at + 24),
        )
        if type_ != 2:
            continue
        for entry in range(off, off + size, 24):
            _, info, _, section, value, length = struct.unpack_from("<IBBHQQ", data, entry)
            if info & 15 == 2 and section and length:
                starts.add(value)
    return starts
