"""What the core's image model says of a file, as plain Python values."""

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
typedef struct { uint64_t key, pos; } bspi_data_block;
typedef struct { bspi_data_block *blocks; uint8_t *steps; size_t count; } bspi_data_refs;
typedef struct {
    const bspi_data_refs *refs; const uint8_t *step; uint64_t key, before; size_t index;
    uint32_t other;
} bspi_data_cursor;
typedef struct {
    uint64_t file_off, file_size, base_addr;
    uint8_t format, arch; uint32_t subtype;
    bspi_section *sections; size_t section_count, section_capacity;
    bspi_data_refs data;
    uint64_t *bases; size_t base_count, base_capacity;
    uint32_t *by_addr; size_t by_addr_count, by_addr_capacity;
    uint64_t addr_low, addr_high;
} bspi_image;
typedef struct {
    bspi_heap *heap; const uint8_t *data; uint64_t size;
    bspi_image *images; size_t image_count, image_capacity;
    uint64_t *keys; size_t key_count, key_capacity;
} bspi_file;
typedef struct { uint64_t off, target, base; uint8_t kind, size; } bspi_ref;
typedef struct {
    bspi_heap *heap; bspi_ref *items; size_t count, capacity; bool failed;
} bspi_ref_list;
void bspi_heap_init(bspi_heap *heap, uint64_t budget);
void *bspi_alloc(bspi_heap *heap, size_t count, size_t size, bool zero);
void bspi_free(bspi_heap *heap, void *block);
int bspi_file_parse(bspi_heap *heap, const uint8_t *data, uint64_t size, bspi_file *file,
                    void *fault);
void bspi_file_free(bspi_file *file);
uint32_t bspi_name_hash(const void *name, size_t len);
bool bspi_image_add_section(bspi_file *file, bspi_image *image, const bspi_section *section);
bool bspi_image_add_ref(bspi_file *file, bspi_image *image, uint64_t off, uint8_t kind,
                        uint32_t aux);
bool bspi_image_add_base(bspi_file *file, bspi_image *image, uint64_t addr, uint32_t *aux);
void bspi_image_finish(bspi_image *image);
bool bspi_image_finish_refs(bspi_file *file, bspi_image *image);
bool bspi_data_refs_pack(bspi_heap *heap, uint64_t *keys, size_t count, uint64_t begin,
                         uint64_t end, bspi_data_refs *refs);
void bspi_data_refs_free(bspi_heap *heap, bspi_data_refs *refs);
bspi_data_cursor bspi_data_find(const bspi_data_refs *refs, uint64_t off);
const bspi_section *bspi_section_at(const bspi_image *image, uint64_t off);
const bspi_section *bspi_section_with_addr(const bspi_image *image, uint64_t addr);
void bspi_block_refs(const bspi_file *file, uint64_t block, bspi_ref_list *refs);
void bspi_ref_list_free(bspi_ref_list *list);
"""

BLOCK_BITS = 13
CODE_MASK = (1 << 28) - 1
CODE, ZEROFILL = 1, 2
ABS64, PC32, BASE32, BASE16X4, BASE8X4, BASE24 = 32, 34, 35, 36, 37, 38
CHAIN64, CHAIN64_OFFSET, CHAIN_ARM64E, CHAIN_ARM64E_AUTH, CHAIN_BIND = 48, 49, 50, 51, 52
CHAIN_ARM64E_OFFSET = 53
CHAIN_BIND24, CHAIN_BIND16, IMPORT23 = 54, 55, 56
INDEX16, FILE32, BASE64 = 42, 43, 44
ULEB1, ULEB2, ULEB3, ULEB4 = 57, 58, 59, 60


@dataclass(frozen=True)
class Section:
    """Offsets in bytes from the start of the file; `name` is a hash."""

    off: int
    size: int
    addr: int
    memory: int
    name: int
    role: int
    mapped: bool


@dataclass(frozen=True)
class Ref:
    """A resolved reference: the field at file offset `off` names address `target`."""

    off: int
    kind: int
    target: int
    base: int
    size: int


@dataclass(frozen=True)
class Image:
    """One executable of a file; `data` are its tables' references as (offset, kind)."""

    off: int
    size: int
    base: int
    format: int
    arch: int
    subtype: int
    sections: list[Section]
    data: list[tuple[int, int]]


@dataclass(frozen=True)
class Model:
    """A parsed file: its images, and all references of all its blocks."""

    images: list[Image]
    refs: list[Ref]

    def section(self, name: str, image: int = 0) -> Section:
        """The section called "SEGMENT,name"; KeyError when there is none."""
        wanted = name_hash(name)
        for section in self.images[image].sections:
            if section.name == wanted:
                return section
        raise KeyError(name)

    def data_refs(self) -> list[Ref]:
        """The references in data alone, without those of Mach-O headers."""
        header = self.header_refs()
        return [ref for ref in self.refs if ref.kind >= ABS64 and ref not in header]

    def header_refs(self) -> set[Ref]:
        """The references in the load commands of Mach-O images."""
        wanted = name_hash("__TEXT,start")
        starts = [s for image in self.images for s in image.sections if s.name == wanted]
        return {ref for ref in self.refs for s in starts if s.off <= ref.off < s.off + s.size}


@lru_cache(maxsize=1)
def library() -> tuple[Any, Any]:
    """ffi and lib with the image model declared."""
    return native.load(CDEF)


def name_hash(name: str) -> int:
    """The core's hash of a section's full name."""
    _, lib = library()
    raw = name.encode()
    return int(lib.bspi_name_hash(raw, len(raw)))


def try_parse(data: bytes, fail_at: int = 0) -> tuple[int, Model | None, int]:
    """Status, model and number of memory requests; request `fail_at` is refused.

    Checks what must hold for any input: order, disjointness, and that all memory comes back.
    """
    ffi, lib = library()
    input_heap, heap = ffi.new("bspi_heap *"), ffi.new("bspi_heap *")
    lib.bspi_heap_init(input_heap, 0)
    lib.bspi_heap_init(heap, 0)
    heap.fail_at = fail_at
    file = ffi.new("bspi_file *")
    # In a block of its own, so that a sanitizer sees a read past the end.
    raw = lib.bspi_alloc(input_heap, len(data), 1, False)
    ffi.memmove(raw, data, len(data))
    try:
        status = lib.bspi_file_parse(heap, ffi.cast("uint8_t *", raw), len(data), file, ffi.NULL)
        if status != 0:
            assert heap.in_use == 0
            return status, None, heap.requests
        requests = heap.requests
        heap.fail_at = 0
        images = [_image(file.images[i]) for i in range(file.image_count)]
        blocks = range((len(data) >> BLOCK_BITS) + 1)
        refs = [ref for block in blocks for ref in _block(file, block)]
        lib.bspi_file_free(file)
        assert heap.in_use == 0
        _check(images, refs, len(data))
        return 0, Model(images, refs), requests
    finally:
        lib.bspi_free(input_heap, raw)


def parse(data: bytes) -> Model:
    """The model of `data`, which must be understood."""
    status, model, _ = try_parse(data)
    assert status == 0
    assert model is not None
    return model


def unpack(refs: Any) -> list[int]:
    """The keys of a bspi_data_refs, read as csrc/image/data_refs.h says."""
    keys: list[int] = []
    pos = other = 0
    steps = refs.steps
    for index in range(refs.count):
        if index % 64 == 0:
            block = refs.blocks[index // 64]
            assert pos in (0, block.pos)
            keys.append(block.key)
            pos, other = block.pos, block.key & CODE_MASK
            continue
        last, step = keys[-1], steps[pos]
        pos += 1
        if 0 < step < 255:
            keys.append(last + (step << 28))
            continue
        if step == 0:
            keys.append(int.from_bytes(bytes(steps[pos : pos + 8]), "little"))
            pos += 8
        else:
            keys.append(((last >> 28) + steps[pos]) << 28 | other)
            pos += 1
        other = last & CODE_MASK
    return keys


def finish_refs(ffi: Any, lib: Any, file: Any, image: Any) -> None:
    """Puts references that were added to an image later among those it has."""
    for key in unpack(image.data):
        assert lib.bspi_image_add_ref(file, image, key >> 28, key >> 22 & 63, key & 0x3FFFFF)
    lib.bspi_data_refs_free(file.heap, ffi.addressof(image.data))
    assert lib.bspi_image_finish_refs(file, image)
    lib.bspi_free(file.heap, file.keys)
    file.keys, file.key_count, file.key_capacity = ffi.NULL, 0, 0


def _image(image: Any) -> Image:
    sections = [
        Section(s.file_off, s.file_size, s.addr, s.mem_size, s.name, s.role, bool(s.mapped))
        for s in (image.sections[i] for i in range(image.section_count))
    ]
    data = [(key >> 28, key >> 22 & 63) for key in unpack(image.data)]
    return Image(
        image.file_off,
        image.file_size,
        image.base_addr,
        image.format,
        image.arch,
        image.subtype,
        sections,
        data,
    )


def _block(file: Any, block: int) -> list[Ref]:
    ffi, lib = library()
    refs = ffi.new("bspi_ref_list *", {"heap": file.heap})
    lib.bspi_block_refs(file, block, refs)
    assert not refs.failed
    found = [
        Ref(r.off, r.kind, r.target, r.base, r.size)
        for r in (refs.items[i] for i in range(refs.count))
    ]
    assert all(ref.off >> BLOCK_BITS == block for ref in found)
    lib.bspi_ref_list_free(refs)
    return found


def _check(images: list[Image], refs: list[Ref], size: int) -> None:
    end = 0
    for image in images:
        assert image.off >= end
        end = image.off + image.size
        at, backed = image.off, True
        for section in image.sections:
            backed = backed and section.size != 0
            if backed:
                assert at <= section.off
                at = section.off + section.size
            else:
                assert section.size == 0
            assert not section.mapped or section.size <= section.memory
        assert at <= end <= size
    end = 0
    for ref in refs:
        assert ref.off >= end
        end = ref.off + ref.size
    assert end <= size
