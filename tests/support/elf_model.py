"""What the core understands of a file, as plain Python values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.support import native

CDEF = """
typedef struct { uint64_t budget, in_use, peak, requests, fail_at; } bspi_heap;
typedef struct {
    uint64_t file_off, file_size, addr, mem_size;
    uint32_t name; uint8_t role, mapped;
} bspi_section;
typedef struct {
    uint64_t *keys; uint32_t *aux; size_t count, key_capacity, aux_capacity;
} bspi_data_refs;
typedef struct {
    uint64_t file_off, file_size, base_addr;
    uint8_t format, arch; uint32_t subtype;
    bspi_section *sections; size_t section_count, section_capacity;
    bspi_data_refs data;
    uint64_t *bases; size_t base_count, base_capacity; /* and more behind */
} bspi_image;
typedef struct {
    bspi_heap *heap; const uint8_t *data; uint64_t size;
    bspi_image *images; size_t image_count, image_capacity;
} bspi_file;
typedef struct { uint64_t off, target, base; uint8_t kind, size; } bspi_ref;
typedef struct {
    bspi_heap *heap; bspi_ref *items; size_t count, capacity; bool failed;
} bspi_ref_list;
void bspi_heap_init(bspi_heap *heap, uint64_t budget);
int bspi_file_parse(bspi_heap *heap, const uint8_t *data, uint64_t size, bspi_file *file,
                    void *fault);
void bspi_file_free(bspi_file *file);
uint32_t bspi_name_hash(const void *name, size_t len);
void bspi_block_refs(const bspi_file *file, uint64_t block, bspi_ref_list *refs);
void bspi_ref_list_free(bspi_ref_list *list);
"""

FORMAT_ELF = 2
OTHER, CODE, ZEROFILL = 0, 1, 2
ABS64, ABS32, PC32, BASE32, BACK32 = 32, 33, 34, 35, 40
FIRST_DATA_KIND = 32
BLOCK_BITS = 16


def library() -> tuple[Any, Any]:
    """The FFI and the test library, opened once."""
    return _library()


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    return native.load(CDEF)


def name_hash(name: str) -> int:
    """What the core calls a section of this name."""
    ffi, lib = library()
    return int(lib.bspi_name_hash(name.encode(), len(name.encode())))


@dataclass(frozen=True)
class Piece:
    """One section of an image; offsets, addresses and sizes in bytes."""

    off: int
    size: int
    addr: int
    mem_size: int
    name: int
    role: int
    mapped: bool


@dataclass(frozen=True)
class Ref:
    """One reference that a table names, resolved."""

    off: int
    kind: int
    target: int
    base: int


@dataclass(frozen=True)
class Model:
    """The first image of a file; without sections when there is no image."""

    format: int
    subtype: int
    pieces: list[Piece]
    refs: dict[int, Ref]

    def piece(self, name: str) -> Piece:
        """The one piece of that name."""
        (found,) = [p for p in self.pieces if p.name == name_hash(name)]
        return found


def parse(data: bytes, *, fail_at: int = 0) -> Model | None:
    """Parses `data`; None when the core ran out of memory.

    `fail_at` refuses that allocation, counted from 1. Raises AssertionError when memory is
    lost.
    """
    ffi, lib = library()
    heap, file = ffi.new("bspi_heap *"), ffi.new("bspi_file *")
    lib.bspi_heap_init(heap, 0)
    heap.fail_at = fail_at
    # An allocation of its own, so that a sanitizer sees every step past its end.
    held = ffi.new("uint8_t[]", len(data))
    ffi.memmove(held, data, len(data))
    status = lib.bspi_file_parse(heap, held, len(data), file, ffi.NULL)
    if status != 0:
        assert heap.in_use == 0
        return None
    heap.fail_at = 0
    model = _read(ffi, lib, heap, file)
    lib.bspi_file_free(file)
    assert heap.in_use == 0
    return model


def _read(ffi: Any, lib: Any, heap: Any, file: Any) -> Model:
    if file.image_count == 0:
        return Model(0, 0, [], {})
    image = file.images[0]
    pieces = [
        Piece(s.file_off, s.file_size, s.addr, s.mem_size, s.name, s.role, bool(s.mapped))
        for s in image.sections[0 : image.section_count]
    ]
    refs = ffi.new("bspi_ref_list *", {"heap": heap})
    for block in range((file.size >> BLOCK_BITS) + 1):
        lib.bspi_block_refs(file, block, refs)
    assert not refs.failed
    found = {
        r.off: Ref(r.off, r.kind, r.target, r.base)
        for r in refs.items[0 : refs.count]
        if r.kind >= FIRST_DATA_KIND
    }
    lib.bspi_ref_list_free(refs)
    return Model(image.format, image.subtype, pieces, found)
