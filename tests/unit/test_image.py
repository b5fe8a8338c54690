"""The image model: order, lookups, and references block by block."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import file_model as fm
from tests.support.toy_macho import ARM64, PURE_INSTRUCTIONS, ToyMacho

SIZES = {fm.ABS64: 8, fm.PC32: 4, fm.BASE32: 4, fm.BASE16X4: 2, fm.BASE8X4: 1, fm.BASE24: 3}


def test_name_hash_is_fnv1a() -> None:
    assert fm.name_hash("") == 0x811C9DC5
    assert fm.name_hash("a") == 0xE40C292C
    assert fm.name_hash("foobar") == 0xBF9CF968


@pytest.mark.parametrize("data", [b"", b"\xcf", b"\xcf\xfa\xed\xfe", b"PK\3\4" + bytes(100)])
def test_unknown_files_have_no_images(data: bytes) -> None:
    assert fm.parse(data) == fm.Model([], [])


class Loose:
    """An image filled by hand."""

    def __init__(self, size: int) -> None:
        self.ffi, self.lib = fm.library()
        self.heap: Any = self.ffi.new("bspi_heap *")
        self.lib.bspi_heap_init(self.heap, 0)
        self.file: Any = self.ffi.new("bspi_file *", {"heap": self.heap, "size": size})
        self.image: Any = self.ffi.new("bspi_image *", {"file_size": size})

    def section(self, off: int, size: int, addr: int, memory: int, mapped: int = 1) -> None:
        section = self.ffi.new("bspi_section *", (off, size, addr, memory, 0, 0, mapped))
        assert self.lib.bspi_image_add_section(self.file, self.image, section)

    def ref(self, off: int, kind: int, aux: int = 0) -> None:
        assert self.lib.bspi_image_add_ref(self.file, self.image, off, kind, aux)

    def finish(self) -> None:
        self.lib.bspi_image_finish(self.image)
        assert self.lib.bspi_image_finish_refs(self.file, self.image)

    def refs(self) -> list[tuple[int, int, int]]:
        return [(key >> 28, key >> 22 & 63, key & 0x3FFFFF) for key in fm.unpack(self.image.data)]

    def close(self) -> None:
        for block in (
            self.image.sections,
            self.image.by_addr,
            self.image.bases,
            self.file.keys,
        ):
            self.lib.bspi_free(self.heap, block)
        self.lib.bspi_data_refs_free(self.heap, self.ffi.addressof(self.image.data))
        assert self.heap.in_use == 0


def expected_refs(refs: list[tuple[int, int, int]], size: int) -> list[tuple[int, int, int]]:
    kept = []
    end = 0
    for off, kind, aux in sorted(refs):
        if off >= end and off + SIZES[kind] <= size:
            kept.append((off, kind, aux))
            end = off + SIZES[kind]
    return kept


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from(sorted(SIZES)), st.integers(0, 3)),
        max_size=300,
    )
)
def test_references_are_sorted_and_disjoint(refs: list[tuple[int, int, int]]) -> None:
    loose = Loose(4000)
    for ref in refs:
        loose.ref(*ref)
    loose.finish()
    assert loose.refs() == expected_refs(refs, 4000)
    loose.finish()
    assert loose.refs() == expected_refs(refs, 4000)
    loose.close()


@pytest.mark.parametrize("shape", ["down", "pipe", "equal", "teeth", "runs"])
def test_sorting_survives_awkward_orders(shape: str) -> None:
    count = 20000
    order = {
        "down": [count - i for i in range(count)],
        "pipe": [min(i, count - i) * 2 + (i * 2 > count) for i in range(count)],
        "equal": [7] * count,
        "teeth": [i % 100 * 200 + i // 100 for i in range(count)],
        "runs": [*range(0, count, 2), *range(1, count, 2)],
    }[shape]
    loose = Loose(8 * (count + 2))
    for place in order:
        loose.ref(place * 8, fm.ABS64)
    loose.finish()
    assert [off for off, _, _ in loose.refs()] == [8 * place for place in sorted(set(order))]
    loose.close()


def test_sections_are_ordered_and_found() -> None:
    loose = Loose(1000)
    loose.section(500, 100, 0x2000, 0x200)
    loose.section(0, 0, 0x9000, 0x1000)
    loose.section(100, 100, 0x8000, 100)
    loose.section(150, 100, 0x7000, 100)  # overlaps the one before in the file
    loose.section(900, 101, 0x6000, 101)  # ends after the file
    loose.section(700, 10, (1 << 64) - 5, 10)  # wraps around
    loose.section(800, 10, 0, 0, mapped=0)
    loose.finish()
    image, lib, null = loose.image, loose.lib, loose.ffi.NULL
    assert [image.sections[i].file_off for i in range(image.section_count)] == [100, 500, 800, 0]
    for off, found in [(99, None), (100, 100), (199, 100), (200, None), (599, 500), (800, 800)]:
        section = lib.bspi_section_at(image, off)
        assert (None if section == null else section.file_off) == found
    for addr, found in [
        (0x1FFF, None),
        (0x2000, 0x2000),
        (0x21FF, 0x2000),
        (0x2200, None),
        (0x8063, 0x8000),
        (0x8064, None),
        (0x9FFF, 0x9000),
        (0xA000, None),
        (0, None),
    ]:
        section = lib.bspi_section_with_addr(image, addr)
        assert (None if section == null else section.addr) == found
    assert (image.addr_low, image.addr_high) == (0x2000, 0xA000)
    loose.close()


def rebase_at(segment: int, offsets: list[int]) -> bytes:
    """Rebase opcodes for pointers at these offsets of a segment."""
    ops = bytearray([0x11])
    for off in offsets:
        ops += bytes([0x20 | segment, off & 0x7F | 0x80, off >> 7 & 0x7F | 0x80, off >> 14, 0x51])
    return bytes(ops + b"\0")


def test_data_wins_over_code() -> None:
    toy = ToyMacho(ARM64)
    segment = toy.segment("__TEXT")
    text = toy.section("__text", 64, flags=PURE_INSTRUCTIONS)
    for at in range(0, 64, 4):
        struct.pack_into("<I", text.data, at, 0x94000001)  # bl .+4
    struct.pack_into("<Q", text.data, 20, text.addr)
    toy.rebase = rebase_at(0, [text.off - segment.off + 20])
    refs = fm.parse(toy.build()).refs
    assert [ref.off - text.off for ref in refs if text.off <= ref.off < text.off + 64] == [
        *range(0, 20, 4),
        20,
        *range(28, 64, 4),
    ]
    pointer = next(ref for ref in refs if ref.off == text.off + 20)
    assert (pointer.kind, pointer.target, pointer.size) == (fm.ABS64, text.addr, 8)


def test_code_that_leads_far_away_is_no_reference() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    text = toy.section("__text", struct.pack("<II", 0x94000001, 0x95000000), flags=1 << 31)
    refs = fm.parse(toy.build()).refs
    assert [ref.off for ref in refs if ref.off >= text.off] == [text.off]


def test_blocks_meet_without_overlap() -> None:
    """A pointer over the edge of a block belongs to the first one and covers code in the next."""
    toy = ToyMacho(ARM64)
    segment = toy.segment("__TEXT")
    text = toy.section("__text", 0x20000, flags=PURE_INSTRUCTIONS)
    for at in range(0, 0x20000, 4):
        struct.pack_into("<I", text.data, at, 0x94000001)
    edge = 0x10000 - text.off
    struct.pack_into("<Q", text.data, edge - 4, text.addr)
    toy.rebase = rebase_at(0, [0x10000 - 4 - segment.off])
    refs = fm.parse(toy.build()).refs
    near = [(ref.off, ref.kind) for ref in refs if abs(ref.off - 0x10000) <= 8]
    assert near == [(0xFFF8, 1), (0xFFFC, fm.ABS64), (0x10004, 1), (0x10008, 1)]


def test_every_refused_request_is_survived() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64, flags=PURE_INSTRUCTIONS)
    toy.section("__init_offsets", struct.pack("<II", 0x800, 0x804))
    toy.segment("__DATA")
    data = toy.section("__data", 256)
    toy.chains(6, {"__DATA": {0: 0x800, 64: 0x804}})
    toy.symbols = [(0x0F, 1, data.addr)] * 40
    raw = toy.build()
    status, model, requests = fm.try_parse(raw)
    assert status == 0
    assert model is not None
    assert requests > 5
    for fail_at in range(1, requests + 1):
        status, _, _ = fm.try_parse(raw, fail_at)
        assert status == -10, fail_at
