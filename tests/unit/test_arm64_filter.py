"""The scan of arm64 code: its kernels agree, and a filter leaves out only what it may."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import pytest

from tests.support import native, refs
from tests.support.refs import ADRP, B14, B19, B26, LIT19, Ref

CDEF = (
    refs.CDEF
    + """
typedef struct { uint64_t run_off, run_len; size_t kept_count; uint64_t kept[64];
} bspi_ref_filter;
typedef struct bspi_arm64_scan bspi_arm64_scan;
typedef void (*bspi_arm64_kernel)(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report);
void bspi_arm64_plainly(bspi_arm64_scan *s, uint64_t at, uint64_t end, bool report);
bspi_arm64_kernel bspi_arm64_avx2(void);
bspi_arm64_kernel bspi_arm64_neon(void);
void bspi_arm64_refs_by(bspi_arm64_kernel kernel, const uint8_t *code, uint64_t code_len,
                        uint64_t begin, uint64_t end, uint64_t addr, uint64_t file_off,
                        const bspi_ref_filter *filter, bspi_ref_list *refs);
"""
)
ADDR = 0x100004000
FILE_OFF = 0x4000
Run = tuple[int, int, list[int]]  # file offset, length, offsets that are kept


@lru_cache(maxsize=1)
def core() -> tuple[Any, Any]:
    return native.load(CDEF)


def kernels() -> list[Any]:
    ffi, lib = core()
    quick = [kernel for kernel in (lib.bspi_arm64_avx2(), lib.bspi_arm64_neon()) if kernel]
    return [ffi.addressof(lib, "bspi_arm64_plainly"), *quick]


def scan(
    kernel: Any, code: bytes, begin: int, end: int, addr: int = ADDR, run: Run | None = None
) -> list[Ref]:
    ffi, lib = core()
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    found = ffi.new("bspi_ref_list *", {"heap": heap})
    exact = ffi.new("uint8_t[]", len(code))  # no byte more, for sanitizers
    ffi.memmove(exact, code, len(code))
    limits = ffi.NULL
    if run is not None:
        limits = ffi.new(
            "bspi_ref_filter *",
            {"run_off": run[0], "run_len": run[1], "kept_count": len(run[2]), "kept": run[2]},
        )
    lib.bspi_arm64_refs_by(kernel, exact, len(code), begin, end, addr, FILE_OFF, limits, found)
    assert not found.failed
    result = [
        Ref(int(r.off), int(r.kind), int(r.target), int(r.base), int(r.size))
        for r in (found.items[i] for i in range(found.count))
    ]
    lib.bspi_ref_list_free(found)
    assert heap.in_use == 0
    return result


def some_code(rng: random.Random, count: int) -> bytes:
    """Instructions of every class, with pages that live for long and for short."""
    busy = [0, 8, 9, 19, 20, 30]
    words = []
    for _ in range(count):
        reg, other = rng.choice([*busy, rng.randrange(32)]), rng.choice(busy)
        words.append(
            rng.choice(
                [
                    rng.randrange(1 << 32),
                    rng.choice([0xD503201F, 0xD65F03C0, 0xD63F0100, 0x00000000]),
                    rng.choice([0x14000000, 0x94000000]) | rng.randrange(-900, 900) & 0x3FFFFFF,
                    rng.choice([0x14000000, 0x94000000]) | rng.randrange(1 << 26),
                    0x54000000 | rng.randrange(1 << 24),
                    rng.choice([0x34000000, 0xB5000000]) | rng.randrange(-300, 300) % 2**19 << 5,
                    rng.choice([0x36000000, 0xB7000000]) | rng.randrange(1 << 24),
                    0x58000000 | rng.randrange(1 << 24),
                    rng.randrange(4) << 29 | 0x10000000 | rng.randrange(1 << 10) << 5 | reg,
                    0x90000000 | rng.randrange(4) << 29 | rng.randrange(8) << 5 | reg,
                    0x90000000 | rng.randrange(4) << 29 | rng.randrange(8) << 5 | other,
                    0x91000000 | rng.randrange(1 << 12) << 10 | other << 5 | reg,
                    rng.choice([0xF9400000, 0xB9000000, 0x3DC00000, 0xF9800000])
                    | rng.randrange(1 << 9) << 10 | other << 5 | reg,
                    rng.choice([0xA9400000, 0xA8C00000, 0x6CC00000, 0x28C00000])
                    | rng.randrange(1 << 22),
                    rng.choice([0x08000000, 0xC8400000, 0x88E00000]) | rng.randrange(1 << 22),
                    0x8B000000 | rng.randrange(1 << 21) & ~31 | rng.choice([1, 2, 3, reg]),
                ]
            )
        )  # fmt: skip
        if rng.random() < 0.01:
            words += [0xD503201F] * rng.choice([7, 8, 9, 300, 510])
    return b"".join(word.to_bytes(4, "little") for word in words)


def test_every_word_alone_is_the_same_to_all() -> None:
    """Every top byte and register, before and behind which pages are in use."""
    rng = random.Random(5)
    words = []
    for top in range(256):
        for _ in range(24):
            words += [0x90000000 | rng.randrange(32) for _ in range(2)]
            words += [top << 24 | rng.randrange(1 << 24)]
            words += [0xF9400000 | rng.choice([0, 1, 8, 19, 30]) << 5 for _ in range(2)]
    code = b"".join(word.to_bytes(4, "little") for word in words)
    plain, *others = (scan(kernel, code, 0, len(code)) for kernel in kernels())
    assert len(plain) > 256 * 24
    assert all(other == plain for other in others)


@pytest.mark.parametrize("seed", range(12))
def test_kernels_agree(seed: int) -> None:
    rng = random.Random(seed)
    code = some_code(rng, rng.choice([3, 20, 700, 4000]))
    for skew in (0, rng.randrange(4)):
        begin = rng.randrange(len(code))
        end = rng.randrange(begin, len(code) + 1)
        for run in (None, some_run(rng, code, begin, end)):
            plain, *others = (
                scan(kernel, code, begin, end, ADDR + skew, run) for kernel in kernels()
            )
            assert all(other == plain for other in others)


def some_run(rng: random.Random, code: bytes, begin: int, end: int) -> Run:
    """A run that holds [begin, end) and a few places in it to keep."""
    first = max(begin - rng.choice([0, 1, 4, 3000]), 0)
    last = min(end + rng.choice([0, 2, 4, 3000]), len(code))
    kept = sorted(rng.sample(range(begin, end), min(end - begin, rng.choice([0, 5, 64]))))
    return FILE_OFF + first, last - first, [FILE_OFF + off for off in kept]


@pytest.mark.parametrize("seed", range(8))
def test_a_filter_leaves_out_branches_within_the_run(seed: int) -> None:
    rng = random.Random(100 + seed)
    code = some_code(rng, 4000)
    begin = rng.randrange(len(code) // 2) & ~3
    end = rng.randrange(begin + 6000, len(code)) & ~3
    run_off, run_len, _ = some_run(rng, code, begin, end)
    whole = scan(kernels()[0], code, begin, end)
    start = ADDR + run_off - FILE_OFF
    local = [
        ref
        for ref in whole
        if ref.kind in (B26, B19, B14, LIT19) and start <= ref.target < start + run_len
    ]
    assert len(local) > 50
    kept = sorted(ref.off for ref in rng.sample(local, 40))
    # Where no reference is, inside of one, and outside of the range.
    kept = sorted({*kept, kept[0] + 1, FILE_OFF + begin + 8, FILE_OFF, FILE_OFF + end})
    for kernel in kernels():
        found = scan(kernel, code, begin, end, run=(run_off, run_len, kept))
        assert found == [ref for ref in whole if ref not in local or ref.off in kept]


def test_the_borders_of_a_run() -> None:
    """The first and the last byte of a run are in it; what leads beside them is wanted."""
    nop, branches = 0xD503201F, [(3, -3), (3, -4), (4, 11), (4, 12)]
    for kernel in kernels():
        for at, by in branches:
            words = [nop] * 4 + [nop] * 16 + [nop] * 4
            words[4 + at] = 0x14000000 | by & 0x3FFFFFF
            code = b"".join(word.to_bytes(4, "little") for word in words)
            run = (FILE_OFF + 16, 64, [])
            inside = 0 <= at + by < 16
            assert len(scan(kernel, code, 16, 80, run=run)) == (0 if inside else 1)


def test_code_at_the_end_of_the_address_space() -> None:
    code = some_code(random.Random(9), 900)
    for addr in (0, 4, 2**64 - 4, 2**64 - 2048, 2**63):
        run = (FILE_OFF, len(code), [])
        for limits in (None, run):
            plain, *others = (
                scan(kernel, code, 0, len(code), addr, limits) for kernel in kernels()
            )
            assert all(other == plain for other in others)
    assert any(ref.kind == ADRP for ref in plain)
