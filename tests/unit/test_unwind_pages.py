"""Where the pages of the new unwind index begin, read from the index in front of them."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from tests.support import native
from tests.support.toy_macho import ARM64, ToyMacho

CDEF = """
typedef struct { uint64_t budget, in_use, peak, requests, fail_at; } bspi_heap;
typedef struct { uint64_t begin, end, base; } bspi_unwind_page;
const bspi_unwind_page *bspi_unwind_page_at(const bspi_unwind_page *items, size_t count,
                                            uint64_t off);
typedef struct { uint32_t profile, jobs; uint64_t memory_budget; uint32_t flags; } bsp_diff_options;
int bsp_diff_new(const uint8_t *old, size_t old_len, const uint8_t *new_, size_t new_len,
                 const bsp_diff_options *options, void *control, void **diff, void *fault);
int bsp_diff_finish(void *diff, const uint8_t old_check[8], const uint8_t new_check[8],
                    const uint8_t **patch, size_t *patch_len, void *fault);
void bsp_diff_free(void *diff);
int bsp_patch_open(const uint8_t *bytes, size_t len, uint64_t max_plain, uint64_t memory_budget,
                   void **patch, void *fault);
int bsp_patch_prepare(void *patch, const uint8_t *old, size_t old_len, void *control, void *fault);
int bsp_patch_window(void *patch, uint64_t new_off, uint8_t *out, size_t len, void *fault);
void bsp_patch_close(void *patch);
"""

ENTRIES = 150  # of a page
HEADER, INDEX_ENTRY, PAGE_HEADER = 28, 12, 12


def functions(count: int) -> list[bytes]:
    """Bodies of random sizes and bytes."""
    random_ = random.Random(1)
    return [random_.randbytes(random_.randrange(4, 400, 4)) for _ in range(count)]


def unwind_info(bodies: list[bytes], at: int) -> bytes:
    """Compact unwind info of functions that stand one after the other from `at` on."""
    first_level, pages = b"", b""
    count = -(-len(bodies) // ENTRIES)
    index = HEADER + 4
    page = lsdas = index + (count + 1) * INDEX_ENTRY
    for group in (bodies[i : i + ENTRIES] for i in range(0, len(bodies), ENTRIES)):
        first_level += struct.pack("<3I", at, page + len(pages), lsdas)
        pages += struct.pack("<I4H", 3, PAGE_HEADER, len(group), 4 * len(group) + 12, 0)
        first = at
        for body in group:
            pages += struct.pack("<I", at - first | (body[0] & 3) << 24)
            at += len(body)
    first_level += struct.pack("<3I", at, 0, lsdas)
    header = struct.pack("<7I", 1, HEADER, 1, HEADER + 4, 0, index, count + 1)
    return header + struct.pack("<I", 0x4000) + first_level + pages


def toy(bodies: list[bytes]) -> bytes:
    """An image of these functions."""
    made = ToyMacho(ARM64)
    made.segment("__TEXT")
    text = made.section("__text", b"".join(bodies), flags=0x80000000)
    made.section("__unwind_info", unwind_info(bodies, text.off))
    return made.build()


def test_lookup() -> None:
    ffi, lib = native.load(CDEF)
    pages: Any = ffi.new(
        "bspi_unwind_page[]",
        [{"begin": 10, "end": 20, "base": 1}, {"begin": 30, "end": 40, "base": 2}],
    )
    found = {}
    for off in range(50):
        page = lib.bspi_unwind_page_at(pages, 2, off)
        found[off] = page.base if page != ffi.NULL else 0
    assert found == {off: {1: 1, 3: 2}.get(off // 10, 0) for off in range(50)}
    assert lib.bspi_unwind_page_at(ffi.NULL, 0, 5) == ffi.NULL


def diff(old: bytes, new: bytes) -> bytes:
    """A patch, made without leaving the core."""
    ffi, lib = native.load(CDEF)
    options = ffi.new("bsp_diff_options *", {"profile": 2, "jobs": 1})
    made, patch, length = ffi.new("void **"), ffi.new("const uint8_t **"), ffi.new("size_t *")
    assert not lib.bsp_diff_new(old, len(old), new, len(new), options, ffi.NULL, made, ffi.NULL)
    check = bytes(8)
    assert lib.bsp_diff_finish(made[0], check, check, patch, length, ffi.NULL) == 0
    result = bytes(ffi.buffer(patch[0], length[0]))
    lib.bsp_diff_free(made[0])
    return result


def apply(old: bytes, patch: bytes, size: int) -> bytes:
    ffi, lib = native.load(CDEF)
    opened, out = ffi.new("void **"), ffi.new("uint8_t[]", size)
    assert lib.bsp_patch_open(patch, len(patch), 2**64 - 1, 0, opened, ffi.NULL) == 0
    assert lib.bsp_patch_prepare(opened[0], old, len(old), ffi.NULL, ffi.NULL) == 0
    assert lib.bsp_patch_window(opened[0], 0, out, size, ffi.NULL) == 0
    lib.bsp_patch_close(opened[0])
    return bytes(ffi.buffer(out))


@pytest.mark.parametrize(("place", "most"), [(0, 350), (7, 400), (300, 700)])
def test_one_more_function_moves_every_page_border(place: int, most: int) -> None:
    """Each entry behind the new function counts from another place: it must cost little."""
    bodies = functions(1200)
    more = random.Random(3).randbytes(52)
    old, new = toy(bodies), toy([*bodies[:place], more, *bodies[place:]])
    patch = diff(old, new)
    assert apply(old, patch, len(new)) == new
    assert len(patch) < most


def test_damaged_indexes_cost_bytes_alone() -> None:
    random_ = random.Random(2)
    bodies = functions(200)
    old, new = toy(bodies), toy([bytes(52), *bodies])
    section = new.index(struct.pack("<3I", 1, HEADER, 1))
    for _ in range(40):
        changed = bytearray(new)
        for _ in range(random_.randint(1, 4)):
            at = section + random_.randrange(HEADER + 4 + 6 * INDEX_ENTRY)
            changed[at] = random_.choice([0, 0xFF, random_.randrange(256)])
        patch = diff(old, bytes(changed))
        assert apply(old, patch, len(changed)) == changed
