"""What hostile executables cost to understand: no more than in proportion to their size.

Each family is made to visit the same bytes again and again, or to lead a search astray; it is
measured at one size and at four times that size (THREATS 7).
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import time
from collections.abc import Callable

import pytest

from bsipatch._core import Diff, Patch
from tests.support import fuzz_targets
from tests.support import toy_macho as macho
from tests.support.patch_forge import COVER, LAYOUT, Entry, Forged, cover, layout, section

#: seconds that understanding a megabyte may take, tests' machines being slow; heap bytes a byte
SECONDS_PER_MB, HEAP_PER_BYTE = 1.5, 64
SMALL = 1 << 20
SLOW = 20 if os.environ.get("BSIPATCH_SANITIZED") else 1


def parse_cost(data: bytes) -> tuple[float, int]:
    """CPU seconds and the most heap in use."""
    run = ctypes.CDLL(str(fuzz_targets.library())).fuzz_parse_all
    run.restype, run.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    started = time.process_time()
    peak = run(data, len(data))
    return time.process_time() - started, peak


def elf_raw(sections: list[tuple[int, int, int, int, int]], body: bytes, machine: int) -> bytes:
    """An ELF file of raw headers (type, flags, address, offset, size), all over one body."""
    count = len(sections) + 1
    rows = [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, count, 0, 0, 0, 0)]
    for type_, flags, addr, off, size in sections:
        rows.append(struct.pack("<IIQQQQIIQQ", 1, type_, flags, addr, off, size, 1, 1, 8, 24))
    table = b"".join(rows)
    off = 120 + len(body)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, machine, 1, 0, 64, off, 0, 64, 56,
                       1, 64, count if count < 0xFF00 else 0, 0)  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, 0x40000, 0, 120 + len(body), off, 4096)
    return head + segment + body + table


def overlapping(size: int) -> bytes:
    count = size // 128
    body = random.Random(1).randbytes(size // 2)
    kinds = [1, 2, 4, 5, 6, 14, 19, 0x6FFFFFF6]
    return elf_raw(
        [(kinds[i % 8], 6, 0x40000 + 120 + i % 64 * 8, 120 + i % 64 * 8, len(body) - 512)
         for i in range(count)], body, 62,
    )  # fmt: skip


def tiny(size: int) -> bytes:
    count = size // 80
    body = random.Random(2).randbytes(16 * count)
    return elf_raw(
        [(1, 6, 0x40000 + 120 + 16 * i, 120 + 16 * i, 16) for i in range(count)], body, 183
    )


def same_address(size: int) -> bytes:
    count = size // 80
    body = bytes(range(256)) * (16 * count // 256)
    return elf_raw([(1, 6, 0x40000, 120 + 16 * i, 16) for i in range(count)], body, 62)


def code_file(arm: bool, code: bytes, data: bytes = bytes(64)) -> bytes:
    toy = macho.ToyMacho(macho.ARM64 if arm else macho.X86_64)
    toy.segment("__TEXT")
    toy.section("__text", code, flags=macho.PURE_INSTRUCTIONS)
    toy.section("__const", data)
    return toy.build()


def arm_switches(size: int) -> bytes:
    """Switches whose tables begin one byte apart, each as long as any may be."""
    toy = macho.ToyMacho(macho.ARM64)
    toy.segment("__TEXT")
    text = toy.section("__text", size, flags=macho.PURE_INSTRUCTIONS)
    const = toy.section("__const", b"\1" * size)
    for at in range(0, size - 32, 32):
        here, table = text.addr + at, const.addr + at // 32 * 1023 % (size - 2048)
        page = (table >> 12) - (here + 8 >> 12)
        words = [
            0xD503201F, 0xD503201F,
            0x90000000 | (page & 3) << 29 | (page >> 2 & 0x7FFFF) << 5 | 10,
            0x91000000 | (table & 0xFFF) << 10 | 10 << 5 | 10,
            0x10000000 | 4 << 5 | 11, 0x38696940 | 12, 0x8B0C0960 | 11, 0xD61F0000 | 11 << 5,
        ]  # fmt: skip
        struct.pack_into("<8I", text.data, at, *words)
    return toy.build()


def x86_switches(size: int) -> bytes:
    switch = b"\x4c\x8d\x0d%s\x49\x63\x04\x81\x4c\x01\xc8\xff\xe0" + b"\x90" * 4
    code = bytearray()
    for at in range(0, size - 20, 20):
        code += switch.replace(b"%s", struct.pack("<i", size - at - 7 + at // 20 % 61 * 4))
    return code_file(False, bytes(code), struct.pack("<i", -9) * (size // 4))


def arm_jumps(size: int) -> bytes:
    """Nothing but jumps through registers, each of which is searched for backwards."""
    return code_file(True, struct.pack("<2I", 0x38696940 | 12, 0xD61F0000 | 11 << 5) * (size // 8))


def x86_jumps(size: int) -> bytes:
    return code_file(False, b"\xff\xe0" * (size // 2))


def arm_pages(size: int) -> bytes:
    words = [0x90000000 | i % 31 for i in range(size // 4)]
    return code_file(True, struct.pack(f"<{len(words)}I", *words))


def arm_adds(size: int) -> bytes:
    words = [0x90000000 if i % 256 == 0 else 0x91000000 | i % 32 for i in range(size // 4)]
    return code_file(True, struct.pack(f"<{len(words)}I", *words))


def x86_prefixes(size: int) -> bytes:
    return code_file(False, b"\x66\x67\xf3\x2e" * (size // 4))


def x86_noise(size: int) -> bytes:
    return code_file(False, random.Random(3).randbytes(size))


def unwind_pages(size: int) -> bytes:
    """An unwind index whose every entry names one and the same page of 64 Ki entries."""
    toy = macho.ToyMacho(macho.ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64, flags=macho.PURE_INSTRUCTIONS)
    count = size // 12
    index = struct.pack("<7I", 1, 28, 0, 28, 0, 28, count)
    rows = struct.pack("<3I", 4, 28 + 12 * count, 0) * count
    page = struct.pack("<IHH", 3, 8, 0xFFFF) + bytes(4 * 0xFFFF)
    toy.section("__unwind_info", index + rows + page)
    return toy.build()


def frames(size: int) -> bytes:
    """Frame records that ask for two common records by turns, and for one LSDA each."""
    toy = macho.ToyMacho(macho.X86_64)
    toy.segment("__TEXT")
    toy.section("__text", 64, flags=macho.PURE_INSTRUCTIONS)
    common = struct.pack("<IIB", 124, 0, 1) + b"zPLR\0" + b"\1\1\1\7\x9b\0\0\0\0\x1b\x1b"
    common = common.ljust(128, b"\0")
    body = bytearray(common * 2)
    while len(body) < size:
        at = len(body)
        back = at + 4 - (128 if at // 32 % 2 else 0)
        body += struct.pack("<IIiiBi", 28, back, -at, 64, 4, size - at).ljust(32, b"\0")
    toy.section("__eh_frame", bytes(body))
    toy.section("__gcc_except_tab", b"\xff\x9b\x7f\1\0\1" * (size // 6))
    return toy.build()


def chains(size: int) -> bytes:
    """Pages of pointers that all start anywhere and go on to the next."""
    toy = macho.ToyMacho(macho.ARM64)
    toy.segment("__TEXT")
    data = toy.segment("__DATA")
    toy.section("__data", struct.pack("<Q", 2 << 51 | 8) * (size // 8))
    pages = size // 4096
    info = struct.pack("<IHHQIH", 22, 4096, 6, data.addr - toy.base, 0, pages) + bytes(2 * pages)
    starts = struct.pack("<3I", 2, 0, 16) + bytes(4) + info
    toy.table(macho.LC_CHAINED_FIXUPS, struct.pack("<7I", 0, 28, 0, 0, 0, 1, 0) + starts)
    return toy.build()


def rebases(size: int) -> bytes:
    toy = macho.ToyMacho(macho.X86_64)
    toy.segment("__TEXT")
    toy.segment("__DATA")
    toy.section("__data", size)
    toy.rebase = b"\x11" + b"\x21\0\x60\xff\xff\xff\x7f" * (size // 8)
    return toy.build()


def exports(size: int) -> bytes:
    """A trie whose nodes all lead to one another."""
    toy = macho.ToyMacho(macho.ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64, flags=macho.PURE_INSTRUCTIONS)
    node = b"\0\x08" + b"".join(bytes([97 + i, 0, 0x80 | 34 * i & 0x7F, 1]) for i in range(8))
    toy.table(macho.LC_EXPORTS_TRIE, node * (size // len(node)))
    return toy.build()


def symbols(size: int) -> bytes:
    """Symbols that all share one endless name."""
    toy = macho.ToyMacho(macho.ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64, flags=macho.PURE_INSTRUCTIONS)
    toy.symbols = [(0x0F, 1, toy.base + 0x800)] * (size // 32)
    toy.strings = b"\0" + b"a" * (size // 2)
    return toy.build()


FAMILIES: list[Callable[[int], bytes]] = [
    overlapping, tiny, same_address, arm_switches, x86_switches, arm_jumps, x86_jumps, arm_pages,
    arm_adds, x86_prefixes, x86_noise, unwind_pages, frames, chains, rebases, exports, symbols,
]  # fmt: skip


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_7_parsing_costs_in_proportion(make: Callable[[int], bytes]) -> None:
    small, large = make(SMALL), make(4 * SMALL)
    once, _ = parse_cost(small)
    again, peak = parse_cost(large)
    assert again <= 10 * once + 0.5 * SLOW, f"{once:.3f} s, then {again:.3f} s"
    assert again <= SECONDS_PER_MB * SLOW * len(large) / 1e6
    assert peak <= HEAP_PER_BYTE * len(large)


def apply_cost(old: bytes, runs: list[int], length: int, told: bytes = b"") -> float:
    """CPU seconds to apply a cover of runs of `length` bytes at these old offsets."""
    entries, end = [], 0
    for off in runs:
        entries.append((0, length, 0, off - end))
        end = off + length
    new_size = length * len(runs)
    forged = Forged(len(old), new_size, [Entry(COVER, cover(entries))])
    patch = forged.put(LAYOUT, told).build()
    out = bytearray(65536)
    started = time.process_time()
    with Patch(patch, max_plain=1 << 30) as handle, memoryview(out) as view:
        handle.prepare(old)
        for at in range(0, new_size, len(out)):
            handle.window(at, view[: new_size - at])
    return time.process_time() - started


@pytest.mark.parametrize("make", [arm_pages, x86_noise, x86_prefixes], ids=lambda m: m.__name__)
def test_2_scattered_runs_cost_no_more_than_their_number(make: Callable[[int], bytes]) -> None:
    old = make(4 * SMALL)
    runs = [4096 + i * (8192 * 37 + 64) % (len(old) - 8192) for i in range(5000)]
    assert apply_cost(old, runs, 8) < 5000 * 1e-3 * SLOW


def test_7_runs_outside_every_section() -> None:
    """A run that no section holds must not search them all for the next."""
    sections = layout([(0, [section(0, 0, 1, 0, 0, 0)] * 60_000)])
    assert apply_cost(tiny(SMALL), [0] * 160_000, 8, sections) < 3 * SLOW


def test_7_sections_without_partners() -> None:
    """Pairing the sections of two builds must not compare each with each."""
    old = tiny(8 * SMALL)
    new = bytearray(old)
    count = len(old) // 80
    for at in range(len(old) - 64 * count, len(old), 64):
        struct.pack_into("<Q", new, at + 8, 2)  # no code: another role for the same name
    started = time.process_time()
    with Diff(old, new, profile="fast") as diff:
        assert diff.finish(bytes(8), bytes(8))
    assert time.process_time() - started < 12 * SLOW
