"""Packed data references: what went in comes out, in order, whatever it was, and is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import file_model as fm
from tests.support import native

NONE = (1 << 64) - 1
OFF_END = 1 << 36
#: bytes of a field, by kind
SIZES = {fm.ABS64: 8, fm.PC32: 4, fm.BASE32: 4, fm.BASE16X4: 2, fm.BASE8X4: 1, fm.BASE24: 3}
AUXES = [0, 1, 2, 0x155555, 0x3FFFFE, 0x3FFFFF]
#: about every limit of a step, and about where a sum of 32 bits would wrap around
GAPS = [0, 1, 2, 4, 8, 245, 246, 247, 250, 253, 254, 255, 256, 257, 65536, 1 << 28, 1 << 33]


def key(off: int, kind: int, aux: int = 0) -> int:
    return off << 28 | kind << 22 | aux


def size_of(packed: int) -> int:
    return SIZES.get(packed >> 22 & 63, 0)


def sound(keys: list[int], begin: int, end: int) -> list[int]:
    """What is kept of `keys`: by the plainest of means."""
    kept, done = [], begin
    for each in sorted(keys):
        off, size = each >> 28, size_of(each)
        if size and off >= done and off + size <= end:
            kept.append(each)
            done = off + size
    return kept


@contextmanager
def packed(keys: list[int], begin: int = 0, end: int = OFF_END) -> Iterator[Any]:
    ffi, lib = fm.library()
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    refs = ffi.new("bspi_data_refs *")
    array = ffi.new("uint64_t[]", keys)
    assert lib.bspi_data_refs_pack(heap, array, len(keys), begin, end, refs)
    yield refs
    lib.bspi_data_refs_free(heap, refs)
    assert heap.in_use == 0


def check_found(refs: Any, kept: list[int], off: int) -> None:
    """bspi_data_find, which walks there by bspi_data_next."""
    _, lib = fm.library()
    index = sum(each >> 28 < off for each in kept)
    at = lib.bspi_data_find(refs, off)
    assert at.index == index
    assert at.key == (kept[index] if index < len(kept) else NONE)
    assert at.before == (kept[index - 1] if index else NONE)


def check(keys: list[int], begin: int = 0, end: int = OFF_END, every: int = 1) -> list[int]:
    kept = sound(keys, begin, end)
    with packed(keys, begin, end) as refs:
        assert refs.count == len(kept)
        assert fm.unpack(refs) == kept
        for each in kept[::every]:
            check_found(refs, kept, each >> 28)
            check_found(refs, kept, (each >> 28) + 1)
        for off in (0, begin, end, OFF_END - 1, OFF_END, NONE):
            check_found(refs, kept, off)
    return kept


def spaced(steps: list[tuple[int, int, int]]) -> list[int]:
    """Disjoint fields: (bytes between it and the one before, kind, aux) each."""
    keys, off = [], 0
    for gap, kind, aux in steps:
        off += gap
        if off + SIZES[kind] > OFF_END:
            break
        keys.append(key(off, kind, aux))
        off += SIZES[kind]
    return keys


@pytest.mark.parametrize("order", ["as is", "down", "shuffled", "teeth"])
@pytest.mark.parametrize("seed", range(12))
def test_every_spacing_and_code_comes_back(order: str, seed: int) -> None:
    rng = random.Random(seed)
    fields: list[tuple[int, int, int]] = []
    while len(fields) < 500:  # more than one block of each taste
        gaps = rng.sample(GAPS[:-2], rng.choice([1, 3, len(GAPS) - 2]))
        codes = [(rng.choice(list(SIZES)), rng.choice(AUXES)) for _ in range(rng.choice([1, 2, 9]))]
        count = rng.randrange(1, 150)
        fields += [(rng.choice(gaps), *rng.choice(codes)) for _ in range(count)]
        fields.append((rng.choice(GAPS), *rng.choice(codes)))
    expected = spaced(fields)
    keys = list(expected)
    if order == "down":
        keys.reverse()
    elif order == "shuffled":
        rng.shuffle(keys)
    elif order == "teeth":
        keys = [each for tooth in range(5) for each in keys[tooth::5]]
    assert check(keys, every=7) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(0, 400), st.sampled_from([*SIZES, 0, 31, 63]), st.sampled_from(AUXES)
        ),
        max_size=300,
    ),
    st.integers(0, 100),
    st.integers(200, 410),
)
def test_what_overlaps_is_unknown_or_lies_outside_is_dropped(
    fields: list[tuple[int, int, int]], begin: int, end: int
) -> None:
    check([key(*each) for each in fields], begin, end)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 640])
def test_lists_that_end_about_a_block(count: int) -> None:
    check([key(8 * i, fm.ABS64) for i in range(count)])
    check([key(8 * i, fm.ABS64, i) for i in range(count)])  # no two alike


@pytest.mark.parametrize("runs", range(1, 14))
def test_any_number_of_tables_is_merged(runs: int) -> None:
    """Few are merged as they are, many sorted first: the same in the end."""
    rng = random.Random(runs)
    keys: list[int] = []
    for _ in range(runs):
        begin = rng.randrange(4000)
        table = {
            key(begin + 2 * rng.randrange(300), rng.choice(list(SIZES)), rng.randrange(4))
            for _ in range(400)
        }
        keys += sorted(table)
    assert len(check(keys, 10, 4500)) > 80


def test_the_last_bytes_of_the_largest_file() -> None:
    last = OFF_END - 1
    assert check([key(last, fm.BASE8X4, 0x3FFFFF)]) == [key(last, fm.BASE8X4, 0x3FFFFF)]
    assert check([key(OFF_END - 8, fm.ABS64), key(0, fm.PC32), NONE, NONE - 1]) == [
        key(0, fm.PC32),
        key(OFF_END - 8, fm.ABS64),
    ]
    assert check([key(last, fm.PC32)]) == []


def size_packed(keys: list[int]) -> float:
    """Bytes for each reference."""
    ffi, lib = fm.library()
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    refs = ffi.new("bspi_data_refs *")
    array = ffi.new("uint64_t[]", keys)
    assert lib.bspi_data_refs_pack(heap, array, len(keys), 0, OFF_END, refs)
    assert refs.count == len(keys)
    size = int(heap.in_use)
    lib.bspi_data_refs_free(heap, refs)
    return size / len(keys)


def test_tables_take_little_memory() -> None:
    count = 20000
    pointers = [key(8 * i, fm.ABS64) for i in range(count)]
    assert size_packed(pointers) < 1.3
    symbols = [key(8 * i, (fm.BASE32, fm.ABS64)[i % 2], 7 * (i % 2)) for i in range(count)]
    assert size_packed(symbols) < 2.5
    worst = [key(300 * i, fm.ABS64, i) for i in range(count)]
    assert size_packed(worst) < 9.3


@pytest.mark.parametrize("ordered", [True, False])
def test_refused_memory_is_told_and_given_back(ordered: bool) -> None:
    ffi, lib = fm.library()
    keys = [key(300 * i, fm.ABS64, i) for i in range(3000)]  # more than is reserved at first
    if not ordered:
        random.Random(1).shuffle(keys)
    fail_at, refused = 1, 0
    while True:
        heap = ffi.new("bspi_heap *")
        lib.bspi_heap_init(heap, 0)
        heap.fail_at = fail_at
        refs = ffi.new("bspi_data_refs *")
        made = lib.bspi_data_refs_pack(
            heap, ffi.new("uint64_t[]", keys), len(keys), 0, OFF_END, refs
        )
        lib.bspi_data_refs_free(heap, refs)
        assert heap.in_use == 0
        if made:
            break
        refused += 1
        fail_at += 1
    assert refused >= 5  # the blocks, steps more than once, and trimming both


def test_no_kind_has_the_number_that_ends_a_list() -> None:
    _, lib = native.load("unsigned bspi_ref_size(uint8_t kind);")
    assert lib.bspi_ref_size(63) == 0
