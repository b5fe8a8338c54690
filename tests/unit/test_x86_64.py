"""References in x86-64 code: lengths of instructions, what is found, and how pieces join."""

from __future__ import annotations

import importlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import refs
from tests.support.refs import REL8, REL32, RIP32, Ref

ADDR = 0x100001000
PROBE = bytes.fromhex("e800000000")  # call to the instruction behind it


def found(text: str) -> list[tuple[int, int, int]]:
    """(offset of the field, kind, target less the code's address) of each reference."""
    return [(r.off, r.kind, r.target - ADDR) for r in refs.find("x86_64", code(text), ADDR)]


def code(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    "text",
    [
        # one byte and prefixes
        "90", "c3", "cc", "55", "4155", "f390", "6690", "c9", "f4", "98", "4898", "f3a4", "f348a5",
        # register and memory forms
        "4889e5", "8b00", "8b0424", "8b4508", "8b442408", "8b8500010000", "8b842400010000",
        "8b042500010000", "8b04c500010000", "8b0425ffffff7f", "678b00", "4c8d8c2488000000",
        "ff30", "ffd0", "ffe0", "ff10", "ff6008", "8f00", "8fc0",
        # immediates and what operand size does to them
        "04ff", "0501000000", "660501 00", "480501000000", "66480501000000", "6aff", "6801000000",
        "666801 00", "83c001", "81c001000000", "6681c00100", "4881c001000000", "6bc001",
        "69c001000000", "6669c00100", "c00801", "c1e005", "c60001", "c70001000000", "66c7000100",
        "48c7c001000000", "b001", "b801000000", "66b80100", "48b80102030405060708",
        "49bf0102030405060708", "a00102030405060708", "48a10102030405060708", "67a001020304",
        "c21000", "ca1000", "c8100001", "a801", "a901000000", "66a90100", "cd80", "e460",
        "f60001", "f6c001", "f6d8", "f70001000000", "66f7c00100", "f7d8", "f7e0", "48f7f1",
        "fec0", "ffc0", "d1e0", "d3e0", "d9c0", "dd4508", "c6f801",
        # two bytes
        "0f05", "0fa2", "0f0b", "0f31", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000",
        "0f1f8000000000", "662e0f1f840000000000", "0f94c0", "0f44c1", "0fafc1", "0fb6c0", "0fb701",
        "0fa3c1", "0fbae005", "0fa4c105", "0fc1c1", "0fc8", "0f70c101", "0fc6c101", "0fc2c101",
        "660f73d901", "0f77", "0fae38", "0f18 08", "0f0dc8", "f20f10442408", "f30f1efa",
        "670fb94001", "480fc708",
        # three bytes
        "660f3800c1", "660f38f0c1", "f20f38f1c1", "660f3a0fc108", "660f3a0b442408 01",
        # VEX, XOP and EVEX
        "c5f877", "c5f858c1", "c5fc104500", "c5f9700001", "c5f8c2c101", "c4e27118c1",
        "c4e2f1f7c1", "c4e37d19c001", "c4e3710f442408 01", "c5f890c1", "c5fb93c1",
        "8fe878a3c110", "8fe97801c1", "62f17c4858c1", "62f17c48104001",
        "62f17c4810842400010000", "62f37d4819c001", "62f27d4818c1", "62f57c4858c1",
    ],
)  # fmt: skip
def test_length(text: str) -> None:
    """An instruction is measured right when the probe behind it, and only that, is found."""
    instruction = code(text)
    names = refs.find("x86_64", instruction * 3 + PROBE, ADDR)
    end = 3 * len(instruction)
    assert names == [Ref(end + 1, REL32, ADDR + end + 5, ADDR + end + 5, 4)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("e8fbffffff", [(1, REL32, 0)]),
        ("e900010000", [(1, REL32, 0x105)]),
        ("0f8400010000", [(2, REL32, 0x106)]),
        ("66e900010000", [(2, REL32, 0x106)]),
        ("666648e800010000", [(4, REL32, 0x108)]),
        ("2e0f8500010000", [(3, REL32, 0x107)]),
        ("c7f800010000", [(2, REL32, 0x106)]),  # xbegin
        ("ebfe", [(1, REL8, 0)]),
        ("7f10", [(1, REL8, 0x12)]),
        ("e080", [(1, REL8, -0x7E)]),
        ("e310", [(1, REL8, 0x12)]),
        ("67e310", [(2, REL8, 0x13)]),
        ("f2e800010000", [(2, REL32, 0x106)]),
        ("488b0500010000", [(3, RIP32, 0x107)]),  # mov rax, [rip]
        ("8d0500010000", [(2, RIP32, 0x106)]),
        ("488d3dfffeffff", [(3, RIP32, -0xFA)]),
        ("ff1500010000", [(2, RIP32, 0x106)]),
        ("ff2500010000", [(2, RIP32, 0x106)]),
        ("678d0500010000", [(3, RIP32, 0x107)]),
        # an immediate behind the displacement moves the base
        ("833d0001000005", [(2, RIP32, 0x107)]),
        ("c7050001000005000000", [(2, RIP32, 0x10A)]),
        ("66c705000100000500", [(3, RIP32, 0x109)]),
        ("48c7050001000005000000", [(3, RIP32, 0x10B)]),
        ("f6050001000001", [(2, RIP32, 0x107)]),
        ("f7050001000001000000", [(2, RIP32, 0x10A)]),
        ("f71500010000", [(2, RIP32, 0x106)]),  # not has no immediate
        ("69050001000005000000", [(2, RIP32, 0x10A)]),
        ("0f100500010000", [(3, RIP32, 0x107)]),
        ("f30f100500010000", [(4, RIP32, 0x108)]),
        ("f2440f100500010000", [(5, RIP32, 0x109)]),
        ("0fba250001000003", [(3, RIP32, 0x108)]),
        ("660f38000500010000", [(5, RIP32, 0x109)]),
        ("660f3a0f050001000008", [(5, RIP32, 0x10A)]),
        ("c5f8580500010000", [(4, RIP32, 0x108)]),
        ("c4e271180500010000", [(5, RIP32, 0x109)]),
        ("c4e37d19050001000001", [(5, RIP32, 0x10A)]),
        ("62f17c48580500010000", [(6, RIP32, 0x10A)]),
        ("62f37d4819050001000001", [(6, RIP32, 0x10B)]),
        ("8fe878a3050001000010", [(5, RIP32, 0x10A)]),
        ("f0ff0500010000", [(3, RIP32, 0x107)]),
        ("64488b0500010000", [(4, RIP32, 0x108)]),
        # near misses
        ("8b442505", []),
        ("8b042500010000", []),  # absolute by way of SIB
        ("8b8500010000", []),
        ("8bc5", []),
    ],
)
def test_references(text: str, names: list[tuple[int, int, int]]) -> None:
    assert found(text + "90" * 20) == names
    assert found(text) == names  # with nothing behind
    assert found("06" + text)[:1] == [(off + 1, kind, to + 1) for off, kind, to in names]


@pytest.mark.parametrize(
    "text",
    ["06", "0e", "1f", "27", "60", "82", "9a", "ce", "d4", "d6", "ea", "0f04", "0f0a", "0f24",
     "0f36", "0f3b", "0fa6", "c4e0", "62f8", "62f178", "fed0", "ffff", "8fc8", "c608", "66" * 15],
)  # fmt: skip
def test_what_is_no_instruction_is_skipped_bytewise(text: str) -> None:
    """Enough one-byte instructions later the sweep is in step again."""
    names = found(text + "90" * 20 + PROBE.hex())
    assert names[-1] == (len(text) // 2 + 21, REL32, len(text) // 2 + 25)


@pytest.mark.parametrize("text", ["e8fbffffff", "488b0500010000", "c7050001000005000000", "eb00"])
def test_cut_instructions_are_no_references(text: str) -> None:
    whole = code(text)
    for length in range(len(whole)):
        for ref in refs.find("x86_64", whole[:length], ADDR):
            assert ref.off + ref.size <= length
            assert ref.kind == REL8


def test_a_field_belongs_to_the_piece_it_starts_in() -> None:
    data = b"\x90" * 100 + code("488b0500010000") + b"\x90" * 100
    field = Ref(103, RIP32, ADDR + 107 + 0x100, ADDR + 107, 4)
    for cut in range(90, 120):
        before = refs.find("x86_64", data, ADDR, 0, cut)
        after = refs.find("x86_64", data, ADDR, cut, len(data))
        assert (before, after) == (([field], []) if cut > 103 else ([], [field]))


def test_offsets_are_the_files() -> None:
    assert refs.find("x86_64", PROBE, ADDR, file_off=0x4000) == refs.find("x86_64", PROBE, ADDR)


INSTRUCTIONS = [
    "90", "55", "4889e5", "e8fbffffff", "e900010000", "0f8400010000", "7510", "ebf0",
    "488b0500010000", "488d3dfffeffff", "c7050001000005000000", "f30f100500010000",
    "48b80102030405060708", "0f1f8000000000", "c5f8580500010000", "660f3a0f050001000008",
    "8b842400010000", "4883ec28", "c3", "cc",
]  # fmt: skip


def test_pieces_agree_with_the_whole() -> None:
    rng = random.Random(1)
    data = b"".join(code(rng.choice(INSTRUCTIONS)) for _ in range(6000))
    whole = refs.find("x86_64", data, ADDR)
    assert len(whole) > 2500
    for step in (50, 997, 4096, 65536):
        assert refs.find_in_pieces("x86_64", data, step, ADDR) == whole


@given(st.binary(max_size=400), st.integers(0, 2**64 - 1), st.integers(1, 60))
def test_random_bytes(data: bytes, addr: int, step: int) -> None:
    """Fields of all pieces together are sorted and disjoint, and read as reported."""
    end = 0
    for ref in refs.find_in_pieces("x86_64", data, step, addr):
        assert ref.off >= end
        end = ref.off + ref.size
        assert end <= len(data)
        assert refs.read(ref.kind, data[ref.off : end], 0, ref.base) == ref.target


@given(st.randoms(use_true_random=False), st.integers(1, 30), st.integers(1, 4))
def test_hostile_cuts(rng: random.Random, step: int, dirt: int) -> None:
    """The same far from the start of the code, where each piece warms up on its own."""
    parts = [code(rng.choice(INSTRUCTIONS)) for _ in range(500)]
    parts += [rng.randbytes(dirt) + code(rng.choice(INSTRUCTIONS)) for _ in range(300)]
    data = b"".join(parts)
    end = 0
    for begin in range(len(data) - 40 * step, len(data), step):
        if begin < 0:
            continue
        for ref in refs.find("x86_64", data, ADDR, begin, min(begin + step, len(data))):
            assert begin <= ref.off < begin + step
            assert ref.off >= end
            end = ref.off + ref.size


def test_against_another_disassembler(tmp_path: Path) -> None:
    """Every relative operand that capstone sees in compiled code is found, and no other."""
    if reason := refs.cross_check_reason():
        pytest.skip(reason)
    capstone = importlib.import_module("capstone")
    x86 = importlib.import_module("capstone.x86")
    data = elf_text(refs.compiled("x86_64-linux-gnu", tmp_path))
    ours = {r.off: (r.kind, r.target) for r in refs.find("x86_64", data, ADDR)}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    decoder.detail = True
    theirs = {}
    for insn in decoder.disasm(data, ADDR):
        if insn.id == 0:
            continue
        at, layout = insn.address - ADDR, insn.encoding
        branch = insn.group(capstone.CS_GRP_JUMP) or insn.group(capstone.CS_GRP_CALL)
        for operand in insn.operands:
            if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
                target = (insn.address + insn.size + operand.mem.disp) % 2**64
                theirs[at + layout.disp_offset] = (RIP32, target)
            elif operand.type == x86.X86_OP_IMM and branch:
                kind = REL8 if layout.imm_size == 1 else REL32
                theirs[at + layout.imm_offset] = (kind, operand.imm % 2**64)
    assert len(theirs) > 30
    assert ours == theirs


def elf_text(file: bytes) -> bytes:
    """The .text section of a 64-bit ELF file: the largest one that holds code."""
    (table,) = struct.unpack_from("<Q", file, 40)
    size, count = struct.unpack_from("<2H", file, 58)
    sections = [struct.unpack_from("<2I4Q", file, table + i * size) for i in range(count)]
    _, _, _, _, offset, length = max((s for s in sections if s[2] & 4), key=lambda s: s[5])
    return file[offset : offset + length]
