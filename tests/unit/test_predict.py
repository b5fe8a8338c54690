"""The predictor: the fast way says what the plain way says, and maps say what they promise."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import file_model, native, patch_forge
from tests.support.toy_macho import ARM64, PURE_INSTRUCTIONS, X86_64, ToyMacho

CDEF = (
    file_model.CDEF
    + """
typedef struct {
    uint64_t file_off, file_size, addr, mem_size; uint32_t pair; uint8_t role, mapped;
} bspi_layout_section;
typedef struct {
    uint32_t old_image; bspi_layout_section *sections; size_t section_count;
} bspi_layout_image;
typedef struct { bspi_heap *heap; bspi_layout_image *images; size_t image_count; } bspi_layout;
typedef struct { uint64_t new_off, old_off, len; } bspi_cover;
typedef struct { uint64_t old_addr, new_addr, reach; } bspi_override;
typedef struct { void *steps; size_t count; uint64_t below; uint32_t *pages; size_t page_count;
                 unsigned page_bits; } bspi_shifts;
typedef struct { bspi_heap *heap; bspi_shifts by_span, by_target; bool overridden;
} bspi_address_map;
typedef struct { uint64_t from_, len, shift; } bspi_near;
typedef struct { uint64_t new_off; int64_t delta; } bspi_ref_fix;
typedef struct { uint64_t begin, end, base; } bspi_unwind_page;
typedef struct {
    bspi_heap *heap; const bspi_file *old; const bspi_layout *layout; const bspi_cover *cover;
    size_t cover_count; bspi_address_map *maps; const bspi_ref_fix *fixes; size_t fix_count;
    const bspi_unwind_page *pages; size_t page_count;
} bspi_predictor;
typedef struct {
    uint64_t new_off, old_off, old_target, old_base, new_site, new_base, predicted;
    uint32_t image; uint8_t kind, size; bool local;
} bspi_ref_site;
int bspi_layout_pair(bspi_heap *heap, const bspi_file *old, const bspi_file *new_,
                     bspi_layout *layout, void *fault);
void bspi_layout_free(bspi_layout *layout);
int bspi_address_map_build(bspi_address_map *map, bspi_heap *heap, const bspi_image *old,
                           const bspi_layout_image *new_, const bspi_cover *cover,
                           size_t cover_count, void *fault);
int bspi_address_map_override(bspi_address_map *map, const bspi_override *overrides,
                              size_t count, void *fault);
void bspi_address_map_free(bspi_address_map *map);
uint64_t bspi_map_address(const bspi_address_map *map, uint64_t addr);
uint64_t bspi_map_target(const bspi_address_map *map, uint64_t addr);
void bspi_map_find(const bspi_address_map *map, uint64_t addr, bspi_near *near);
int bspi_predictor_init(bspi_predictor *predictor, bspi_heap *heap, const bspi_file *old,
                        const bspi_layout *layout, const bspi_cover *cover, size_t cover_count,
                        void *fault);
void bspi_predictor_free(bspi_predictor *predictor);
void bspi_walker_init(void *walker, const bspi_predictor *predictor);
void bspi_walker_free(void *walker);
unsigned bspi_ref_unit_bits(uint8_t kind);
bool bspi_ref_write(uint8_t kind, uint8_t *bytes, uint64_t site, uint64_t base, uint64_t target);
bool bspi_walk(void *walker, uint64_t begin, uint64_t end,
               void (*visit)(void *, const bspi_ref_site *), void *context);
bool bspi_predict(void *walker, uint64_t begin, uint8_t *out, size_t len);
void bspi_range_refs(const bspi_file *file, uint64_t begin, uint64_t end, bspi_ref_list *refs);
"""
)

WALKER_ROOM = 1 << 16  # more than a bspi_walker
UNTOUCHED = 0xA5
DATA_KINDS = [32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, *range(48, 61)]
MASK = (1 << 64) - 1


@lru_cache(maxsize=1)
def library() -> tuple[Any, Any]:
    return native.load(CDEF)


@dataclass
class Setting:
    """Everything a predictor needs, kept alive together."""

    old: bytes
    heap: Any
    file: Any
    layout: Any
    predictor: Any
    cover: list[tuple[int, int, int]]
    fixes: dict[int, int]
    new_size: int
    keep: list[Any] = field(default_factory=list)

    @contextmanager
    def walker(self) -> Iterator[Any]:
        ffi, lib = library()
        room = ffi.new("uint64_t[]", WALKER_ROOM // 8)
        lib.bspi_walker_init(room, self.predictor)
        try:
            yield room
        finally:
            lib.bspi_walker_free(room)

    def plainly(self, begin: int, length: int) -> tuple[bytes, int]:
        """What bspi_walk's answers make of a window, and how many references it visited."""
        ffi, lib = library()
        out = bytearray([UNTOUCHED]) * length
        for new_off, old_off, size in self.cover:
            first, last = max(new_off, begin), min(new_off + size, begin + length)
            if first < last:
                shift = old_off - new_off
                out[first - begin : last - begin] = self.old[first + shift : last + shift]
        visited = 0

        def visit(_: Any, site: Any) -> None:
            nonlocal visited
            visited += 1
            target, base = site.predicted, site.new_base
            if site.new_off in self.fixes:
                delta = self.fixes[site.new_off] << lib.bspi_ref_unit_bits(site.kind)
                target = (target + delta) & MASK
                if site.kind in (7, 8):
                    base = target & ~0xFFF
            bytes_ = ffi.new("uint8_t[8]", list(self.old[site.old_off : site.old_off + site.size]))
            lib.bspi_ref_write(site.kind, bytes_, site.new_site, base, target)
            for i in range(site.size):
                if 0 <= site.new_off + i - begin < length:
                    out[site.new_off + i - begin] = bytes_[i]

        callback = ffi.callback("void(void *, const bspi_ref_site *)", visit)
        with self.walker() as walker:
            assert lib.bspi_walk(walker, max(begin - 7, 0), begin + length, callback, ffi.NULL)
        return bytes(out), visited

    def quickly(self, begin: int, length: int, walker: Any) -> bytes:
        ffi, lib = library()
        out = bytearray([UNTOUCHED]) * length
        assert lib.bspi_predict(walker, begin, ffi.from_buffer("uint8_t[]", out), length)
        return bytes(out)


def random_cover(rng: random.Random, old_size: int, new_size: int) -> list[tuple[int, int, int]]:
    """Runs that lie apart in the new file and anywhere in the old one, mostly in step."""
    cover, at, shift = [], 0, 0
    while at < new_size:
        at += rng.choice([0, 0, 0, 1, 4, rng.randrange(64)])
        size = rng.choice([rng.randrange(1, 12), rng.randrange(4, 400), rng.randrange(4, 9000)])
        if rng.random() < 0.5:
            shift = rng.choice([0, 4, -4, 3, 4096, rng.randrange(-old_size, old_size)])
        old_off = at + shift if rng.random() < 0.9 else rng.randrange(old_size)
        size = min(size, new_size - at, old_size - old_off)
        if size > 0 and old_off >= 0:
            cover.append((at, old_off, size))
        at += max(size, 1)
    return cover


@contextmanager
def setting(
    old: bytes, new: bytes, rng: random.Random, mess: Callable[[Any, Any], None] | None = None
) -> Iterator[Setting]:
    """A predictor from old to new over a random cover, with random overrides and fixes.

    `mess` may add references to the old image before they are put in order.
    """
    ffi, lib = library()
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    file, new_file = ffi.new("bspi_file *"), ffi.new("bspi_file *")
    old_bytes, new_bytes = ffi.from_buffer(old), ffi.from_buffer(new)
    assert lib.bspi_file_parse(heap, old_bytes, len(old), file, ffi.NULL) == 0
    assert lib.bspi_file_parse(heap, new_bytes, len(new), new_file, ffi.NULL) == 0
    if mess is not None:
        for i in range(file.image_count):
            mess(file, file.images + i)
            file_model.finish_refs(ffi, lib, file, file.images + i)
    layout, predictor = ffi.new("bspi_layout *"), ffi.new("bspi_predictor *")
    assert lib.bspi_layout_pair(heap, file, new_file, layout, ffi.NULL) == 0
    cover = random_cover(rng, len(old), len(new))
    entries = ffi.new("bspi_cover[]", cover)
    assert (
        lib.bspi_predictor_init(predictor, heap, file, layout, entries, len(cover), ffi.NULL) == 0
    )
    made = Setting(old, heap, file, layout, predictor, cover, {}, len(new))
    made.keep += [old_bytes, new_bytes, new_file, entries]
    for i in range(layout.image_count):
        image = file.images[layout.images[i].old_image]
        overrides = ffi.new("bspi_override[]", random_overrides(rng, image))
        made.keep.append(overrides)
        assert (
            lib.bspi_address_map_override(predictor.maps + i, overrides, len(overrides), ffi.NULL)
            == 0
        )
    sites = rng.sample(range(len(new)), min(len(new), 3000))
    made.fixes = {off: rng.choice([1, -1, rng.randrange(-5000, 5000)]) for off in sorted(sites)}
    fixes = ffi.new("bspi_ref_fix[]", list(made.fixes.items()))
    pages = ffi.new("bspi_unwind_page[]", [(8192, 12288, image_base(file) + 0x900)])
    made.keep += [fixes, pages]
    predictor.fixes, predictor.fix_count = fixes, len(fixes)
    predictor.pages, predictor.page_count = pages, 1
    try:
        yield made
    finally:
        lib.bspi_predictor_free(predictor)
        lib.bspi_layout_free(layout)
        lib.bspi_file_free(file)
        lib.bspi_file_free(new_file)
        assert heap.in_use == 0


def image_base(file: Any) -> int:
    return int(file.images[0].base_addr) if file.image_count else 0


def random_overrides(rng: random.Random, image: Any) -> list[tuple[int, int, int]]:
    """Ascending and disjoint: old address, new address, reach."""
    overrides, at = [], int(image.addr_low)
    for _ in range(rng.choice([0, 1, 40])):
        at += rng.randrange(1, 1200)
        reach = rng.choice([0, 0, 7, rng.randrange(300)])
        overrides.append((at, (at + rng.choice([4, -4, 4096, 123456])) & MASK, reach))
        at += reach
    return overrides


def agree(made: Setting, rng: random.Random) -> int:
    """Compares the two ways on the whole and on windows; how many references there were."""
    visited = 0
    with made.walker() as walker:
        spans = [(0, made.new_size)]
        for _ in range(12):
            begin = rng.randrange(made.new_size)
            spans.append((begin, min(rng.randrange(1, 20000), made.new_size - begin)))
        for begin, length in spans:
            expected, count = made.plainly(begin, length)
            assert made.quickly(begin, length, walker) == expected
            visited += count
    return visited


@pytest.mark.parametrize("kind", patch_forge.TOYS)
@pytest.mark.parametrize("seed", range(4))
def test_both_ways_agree_on_toys(kind: str, seed: int) -> None:
    rng = random.Random(f"{kind} {seed}")
    old, new = patch_forge.toy_pair(kind, seed)
    with setting(old, new, rng) as made:
        visited = agree(made, rng)
    assert visited > 50 or kind == "raw"


def arm64_code(rng: random.Random, size: int) -> bytes:
    """Words that look like code, with many pages formed and used."""
    words = []
    for _ in range(size // 4):
        reg = rng.choice([0, 8, 8, 19, rng.randrange(32)])
        words.append(
            rng.choice(
                [
                    rng.randrange(1 << 32),
                    0x94000000 | rng.randrange(1 << 26) & 0x3FFF,
                    0x54000000 | (rng.randrange(1 << 19) & 0x7FF) << 5 | rng.randrange(16),
                    0x90000000 | rng.randrange(4) << 29 | rng.randrange(3) << 5 | reg,
                    0x91000000 | rng.randrange(1 << 12) << 10 | reg << 5 | rng.randrange(32),
                    0xF9400000 | rng.randrange(1 << 9) << 10 | reg << 5 | rng.randrange(32),
                    0xA9400000 | rng.randrange(1 << 21),
                ]
            )
        )
    return b"".join(word.to_bytes(4, "little") for word in words)


def x86_64_code(rng: random.Random, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        out += rng.choice(
            [
                b"\xe8" + rng.randrange(-9000, 9000).to_bytes(4, "little", signed=True),
                b"\x48\x8d\x05" + rng.randrange(-9000, 9000).to_bytes(4, "little", signed=True),
                b"\x75" + rng.randbytes(1),
                b"\x48\x89\xc3",
                rng.randbytes(3),
            ]
        )
    return bytes(out[:size])


def wild_image(rng: random.Random, cpu: int, code: bytes) -> bytes:
    toy = ToyMacho(cpu)
    toy.segment("__TEXT")
    toy.section("__text", code[: rng.randrange(9000, 30000) & ~3], flags=PURE_INSTRUCTIONS)
    toy.section("__stubs", code[-4000:], flags=PURE_INSTRUCTIONS)
    toy.section("__const", rng.randbytes(3000))
    toy.segment("__DATA")
    toy.section("__data", rng.randbytes(9000))
    toy.zerofill("__bss", 6000)
    return toy.build()


@pytest.mark.parametrize("cpu", [ARM64, X86_64])
@pytest.mark.parametrize("seed", range(6))
def test_both_ways_agree_on_wild_images(cpu: int, seed: int) -> None:
    """Every kind of field anywhere, over code and over the borders of blocks."""
    _, lib = library()
    rng = random.Random(f"{cpu} {seed}")
    code = (arm64_code if cpu == ARM64 else x86_64_code)(rng, 40000)
    old, new = wild_image(rng, cpu, code), wild_image(rng, cpu, code)
    ffi, _ = library()

    def mess(file: Any, image: Any) -> None:
        aux = ffi.new("uint32_t *")
        for _ in range(4000):
            kind = rng.choice(DATA_KINDS)
            base = image.base_addr + rng.choice([0, 16, 0x4000])
            assert lib.bspi_image_add_base(file, image, base, aux)
            off = rng.randrange(image.file_off, image.file_off + image.file_size)
            assert lib.bspi_image_add_ref(file, image, off, kind, aux[0])

    with setting(old, new, rng, mess) as made:
        assert agree(made, rng) > 5000


def fix_only(made: Setting, rng: random.Random, local: bool, count: int) -> None:
    """Puts fixes on so many fields, local branches or others, and on nothing else."""
    ffi, lib = library()
    offsets = []

    def visit(_: Any, site: Any) -> None:
        if bool(site.local) is local:
            offsets.append(int(site.new_off))

    callback = ffi.callback("void(void *, const bspi_ref_site *)", visit)
    with made.walker() as walker:
        assert lib.bspi_walk(walker, 0, made.new_size, callback, ffi.NULL)
    chosen = sorted(rng.sample(offsets, min(count, len(offsets))))
    assert len(chosen) == count
    made.fixes = {off: rng.choice([1, -1, rng.randrange(-5000, 5000)]) for off in chosen}
    fixes = ffi.new("bspi_ref_fix[]", list(made.fixes.items()))
    made.keep.append(fixes)
    made.predictor.fixes, made.predictor.fix_count = fixes, len(fixes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("local", [True, False])
def test_both_ways_agree_on_long_runs(seed: int, local: bool) -> None:
    """Of long runs only what may change is looked at: few fixes, exactly on branches within."""
    _, lib = library()
    rng = random.Random(f"long {seed} {local}")
    old, new = (wild_image(rng, ARM64, arm64_code(rng, 40000)) for _ in range(2))

    def mess(file: Any, image: Any) -> None:
        for _ in range(rng.choice([0, 0, 30])):
            off = rng.randrange(image.file_off, image.file_off + image.file_size)
            assert lib.bspi_image_add_ref(file, image, off, 33, 0)

    with setting(old, new, rng, mess) as made:
        fix_only(made, rng, local, rng.choice([1, 20, 60, 200]))
        with made.walker() as walker:
            for begin in range(0, made.new_size, 16384):
                length = min(rng.choice([16384, 9001]), made.new_size - begin)
                expected, _ = made.plainly(begin, length)
                assert made.quickly(begin, length, walker) == expected


@pytest.mark.parametrize("by", range(-9, 5))
def test_a_range_beside_a_data_field(by: int) -> None:
    """A field of 8 bytes in code, over or near either border of a range."""
    ffi, lib = library()
    rng = random.Random(by)
    image = wild_image(rng, ARM64, b"\x00\x00\x00\x94" * 10000)
    field = 0x5002  # in the middle of an instruction

    def mess(file: Any, image: Any) -> None:
        assert lib.bspi_image_add_ref(file, image, field, 32, 0)

    with setting(image, image, rng, mess) as made:
        refs = ffi.new("bspi_ref_list *", {"heap": made.heap})

        def found(begin: int, end: int) -> list[tuple[int, int]]:
            refs.count = 0
            lib.bspi_range_refs(made.file, begin, end, refs)
            return [(int(refs.items[i].off), int(refs.items[i].kind)) for i in range(refs.count)]

        whole = found(0x4800, 0x6000)
        assert (field, 32) in whole
        border = field - by
        assert found(0x4800, border) == [ref for ref in whole if ref[0] < border]
        assert found(border, 0x6000) == [ref for ref in whole if ref[0] >= border]
        lib.bspi_ref_list_free(refs)


@pytest.mark.parametrize("cpu", [ARM64, X86_64])
def test_a_range_holds_what_its_blocks_hold(cpu: int) -> None:
    ffi, lib = library()
    rng = random.Random(cpu)
    code = (arm64_code if cpu == ARM64 else x86_64_code)(rng, 40000)
    image = wild_image(rng, cpu, code)
    with setting(image, image, rng) as made:
        refs = ffi.new("bspi_ref_list *", {"heap": made.heap})

        def found() -> list[tuple[int, int, int, int]]:
            items = [refs.items[i] for i in range(refs.count)]
            refs.count = 0
            return [(ref.off, ref.target, ref.base, ref.kind) for ref in items]

        for block in range((len(image) >> file_model.BLOCK_BITS) + 1):
            lib.bspi_block_refs(made.file, block, refs)
        blocks = found()
        assert len(blocks) > 2000
        for _ in range(300):
            begin = rng.randrange(len(image))
            end = begin + rng.choice([1, 5, 300, 20000])
            lib.bspi_range_refs(made.file, begin, end, refs)
            assert found() == [ref for ref in blocks if begin <= ref[0] < end]
        lib.bspi_ref_list_free(refs)


def expected_address(cover: list[tuple[int, int, int]], addr: int) -> int:
    """Of runs in ascending order of both builds: the nearer one's shift, the lower when even."""

    def distance(run: tuple[int, int, int]) -> tuple[int, int]:
        _, old, size = run
        return max(old - addr, addr - (old + size), 0), old

    inside = [run for run in cover if run[1] <= addr < run[1] + run[2]]
    new, old, _ = inside[0] if inside else min(cover, key=distance)
    return addr + new - old


@pytest.mark.parametrize("seed", range(5))
def test_addresses_between_runs_go_with_the_nearer(seed: int) -> None:
    ffi, lib = library()
    rng = random.Random(seed)
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    size, base = 3000, rng.choice([0, 0x100000000, MASK - 5000])
    section = {"file_size": size, "mem_size": size, "addr": base, "mapped": 1}
    old_sections = ffi.new("bspi_section[]", [section])
    new_sections = ffi.new("bspi_layout_section[]", [{**section, "pair": 0xFFFFFFFF}])
    old = ffi.new("bspi_image *", {"file_size": size, "sections": old_sections, "section_count": 1})
    new = ffi.new("bspi_layout_image *", {"sections": new_sections, "section_count": 1})
    cover, old_at, new_at = [], rng.randrange(50), 0
    while old_at < size - 200 and new_at < size - 200:
        run = rng.randrange(1, 90)
        cover.append((new_at, old_at, run))
        old_at += run + rng.choice([1, 2, 3, rng.randrange(60)])
        new_at += run + rng.choice([0, 1, rng.randrange(60)])
    map_ = ffi.new("bspi_address_map *")
    entries = ffi.new("bspi_cover[]", cover)
    assert lib.bspi_address_map_build(map_, heap, old, new, entries, len(cover), ffi.NULL) == 0
    for addr in range(size):
        wanted = expected_address(cover, addr)
        assert lib.bspi_map_address(map_, base + addr) == (base + wanted) & MASK
        assert lib.bspi_map_target(map_, base + addr) == (base + wanted) & MASK

    fake = ffi.new("bspi_image *", {"addr_low": base})
    overrides = random_overrides(rng, fake) or [(base + 10, 77, MASK - base - 10)]
    table = ffi.new("bspi_override[]", overrides)
    assert lib.bspi_address_map_override(map_, table, len(overrides), ffi.NULL) == 0
    near = ffi.new("bspi_near *")
    for addr in [*range(size), *(rng.randrange(1 << 64) for _ in range(200)), 0, MASK]:
        at = base + addr if addr < size else addr
        wanted = lib.bspi_map_address(map_, at)
        for old_addr, new_addr, reach in overrides:
            if 0 <= at - old_addr <= reach:
                wanted = (new_addr + at - old_addr) & MASK
        assert lib.bspi_map_target(map_, at) == wanted
        lib.bspi_map_find(map_, at, near)
        assert (at + near.shift) & MASK == wanted
        assert 0 <= at - near.from_ < near.len or at == MASK
    lib.bspi_address_map_free(map_)
    assert heap.in_use == 0


C_SOURCE = """
#include <stdio.h>
int table[64]; int *slots[] = {table, table + 5};
int f(int x) { switch (x) { case 0: return puts("a"); case 1: return puts("b");
  case 2: return x + table[x]; case 3: return *slots[1]; case 4: return 9; default: return 4; } }
#define G(n) int g##n(int x) { return f(x + n) + table[n] + (x > n ? f(n) : *slots[n & 1]); }
"""


@pytest.mark.parametrize("target", ["aarch64-macos", "x86_64-macos", "aarch64-linux-gnu"])
def test_both_ways_agree_on_real_libraries(target: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="ziglang is missing: NO real library was looked at")
    built = []
    for name, last in (("old", 40), ("new", 44)):
        source = tmp_path / f"{name}.c"
        lines = [f"G({n})" for n in range(60) if n != last]
        source.write_text(C_SOURCE + "\n".join(lines))
        out = tmp_path / f"lib{name}"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC"]
        subprocess.run([*command, "-O1", "-o", str(out), str(source)], check=True, timeout=300)
        built.append(out.read_bytes())
    shutil.rmtree(tmp_path)
    for seed in range(5):
        rng = random.Random(seed)
        with setting(built[0], built[1], rng) as made:
            assert agree(made, rng) > 100
