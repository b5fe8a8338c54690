"""Mach-O files: sections, slices and the small tables; and what damaged ones do not do."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support import file_model as fm
from tests.support.toy_macho import (
    ARM64,
    BASE,
    HEADER_ROOM,
    INIT_OFFSETS,
    LC_CODE_SIGNATURE,
    LC_DATA_IN_CODE,
    LC_EXPORTS_TRIE,
    LC_FUNCTION_STARTS,
    PAGE,
    PURE_INSTRUCTIONS,
    X86_64,
    ToyMacho,
    fat,
)


def sample(cpu: int = ARM64, subtype: int = 0) -> ToyMacho:
    """A toy with a bit of everything."""
    toy = ToyMacho(cpu, subtype)
    toy.segment("__TEXT")
    text = toy.section("__text", 0x101, flags=PURE_INSTRUCTIONS)
    toy.section("__const", 0x40)
    toy.section("__init_offsets", struct.pack("<I", text.off), flags=INIT_OFFSETS)
    toy.segment("__DATA", slide=0x10000)
    data = toy.section("__data", 0x123)
    toy.zerofill("__bss", 0x456)
    toy.chains(6, {"__DATA": {0: text.off, 8: text.off + 4, 64: 1 << 63}})
    toy.table(LC_FUNCTION_STARTS, b"\x80\x10\0")
    toy.table(LC_EXPORTS_TRIE, bytes(20))
    toy.table(LC_DATA_IN_CODE, struct.pack("<IHH", text.off + 8, 4, 1))
    toy.table(LC_CODE_SIGNATURE, bytes(100))
    toy.symbols = [(0x0F, 1, text.addr), (0x01, 0, 0), (0x0E, 2, data.addr)]
    return toy


@pytest.mark.parametrize(("cpu", "arch"), [(ARM64, 1), (X86_64, 2), (7, 0)])
def test_sections(cpu: int, arch: int) -> None:
    toy = sample(cpu, 0x80000002)
    raw = toy.build()
    model = fm.parse(raw)
    (image,) = model.images
    assert (image.off, image.size, image.base) == (0, len(raw), BASE)
    assert (image.format, image.arch, image.subtype) == (1, arch, 2)
    for segment in toy.segments:
        for section in segment.sections:
            got = model.section(f"{segment.name},{section.name}")
            role = fm.CODE if section.name == "__text" else 0
            if section.name == "__bss":
                assert got.role == fm.ZEROFILL
                assert (got.off, got.size, got.memory) == (0, 0, 0x456)
            else:
                assert (got.off, got.size, got.role) == (section.off, section.size, role)
            assert got.addr == section.addr
            assert got.mapped


def test_nothing_mapped_is_left_out() -> None:
    raw = sample().build()
    model = fm.parse(raw)
    covered = {at for s in model.images[0].sections for at in range(s.off, s.off + s.size)}
    for begin, name in [(0, "__TEXT,__init_offsets"), (PAGE, "__DATA,__data")]:
        last = model.section(name)
        assert covered >= set(range(begin, last.off + last.size))
    start = model.section("__TEXT,start")
    assert (start.off, start.size, start.addr) == (0, HEADER_ROOM, BASE)
    gap = model.section("__TEXT,__text+")
    assert (gap.off, gap.size, gap.addr) == (0x901, 15, BASE + 0x901)


def test_linkedit_is_cut_into_its_tables() -> None:
    model = fm.parse(sample().build())
    sizes = {
        "function_starts": 3,
        "function_starts+": 5,
        "exports_trie": 20,
        "data_in_code": 8,
        "code_signature": 100,
        "symtab": 48,
        "strtab": 1,
    }
    for label, size in sizes.items():
        section = model.section(f"__LINKEDIT,{label}")
        assert section.size == size
        assert section.addr == BASE + section.off
        assert section.role == 0


def test_small_tables() -> None:
    toy = sample()
    model = fm.parse(toy.build())
    text, data = model.section("__TEXT,__text"), model.section("__DATA,__data")
    offsets = model.section("__TEXT,__init_offsets")
    symbols = model.section("__LINKEDIT,symtab")
    in_code = model.section("__LINKEDIT,data_in_code")
    got = {(r.off, r.kind, r.target) for r in model.data_refs()}
    assert got == {
        (offsets.off, fm.BASE32, text.addr),
        (data.off, fm.CHAIN64_OFFSET, text.addr),
        (data.off + 8, fm.CHAIN64_OFFSET, text.addr + 4),
        (data.off + 64, fm.CHAIN_BIND, 0),
        (symbols.off + 8, fm.ABS64, text.addr),
        (symbols.off + 40, fm.ABS64, data.addr),
        (in_code.off, fm.BASE32, text.addr + 8),
    }


def test_the_header_repeats_where_sections_are() -> None:
    raw = sample().build()
    model = fm.parse(raw)
    mapped = [s for s in model.images[0].sections if s.mapped]
    found: dict[int, set[int]] = {}
    for ref in model.header_refs():
        found.setdefault(ref.kind, set()).add(ref.target)
        assert ref.kind != fm.FILE32 or ref.target - ref.base == word(raw, ref.off)
    names = [f"__TEXT,{n}" for n in ("__text", "__const", "__init_offsets")]
    named = [model.section(n) for n in [*names, "__DATA,__data", "__DATA,__bss"]]
    starts = {s.addr for s in named}
    linkedit = model.section("__LINKEDIT,chained_fixups")
    assert found[fm.ABS64] == starts | {BASE, named[3].addr, linkedit.addr}
    assert found[fm.BASE64] == {s.addr + s.memory for s in named}
    tables = "function_starts", "exports_trie", "data_in_code", "code_signature", "symtab", "strtab"
    places = [s for s in named if s.size] + [model.section(f"__LINKEDIT,{n}") for n in tables]
    assert found[fm.FILE32] == {s.addr for s in places} | {linkedit.addr}
    assert {s.addr for s in mapped} >= found[fm.FILE32]


def word(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def test_names_of_symbols() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64)
    toy.symbols = [(1, 0, 0)] * 3
    toy.strings = b"\0_one\0_two\0"
    toy.names = [1, 0, 6]
    toy.indirect = [2, 0x80000000, 0x40000001, 0, 7]
    model = fm.parse(toy.build())
    symbols = model.section("__LINKEDIT,symtab")
    strings = model.section("__LINKEDIT,strtab")
    indirect = model.section("__LINKEDIT,indirect_symtab")
    assert [(r.off, r.kind, r.target) for r in model.data_refs()] == [
        (symbols.off, fm.BASE32, strings.addr + 1),
        (symbols.off + 32, fm.BASE32, strings.addr + 6),
        (indirect.off, fm.INDEX16, symbols.addr + 2 * 16),
        (indirect.off + 12, fm.INDEX16, symbols.addr),
        (indirect.off + 16, fm.INDEX16, symbols.addr + 7 * 16),
    ]


def export_trie() -> tuple[bytes, list[tuple[int, int, int, bool]]]:
    """A trie, and (offset, kind, number, whether it counts from the trie) of its numbers."""
    nodes = [
        b"\0\2_a\0\x09_b\0\x95\0",  # the root: two children, the second padded
        b"\3\0\x80\x10\1c\0\x1c",  # an address and a child
        b"\5\x08\1_x\0\0",  # a symbol of another library
        b"\x08\x10\x80\x80\1\x81\x80\x80\1\0",  # a stub and its resolver
        b"\3\2\x80\x10\0",  # an absolute value
        b"\6\0\x80\x80\x80\x80\1\0",  # too long for any kind
    ]
    return b"".join(nodes), [
        (5, fm.ULEB1, 9, True),
        (9, fm.ULEB2, 0x15, True),
        (13, fm.ULEB2, 0x800, False),
        (18, fm.ULEB1, 0x1C, True),
        (28, fm.ULEB3, 0x4000, False),
        (31, fm.ULEB4, 0x200001, False),
    ]


def found_exports(trie: bytes) -> list[tuple[int, int, int]]:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64)
    toy.table(LC_EXPORTS_TRIE, trie)
    model = fm.parse(toy.build())
    start = model.section("__LINKEDIT,exports_trie").off
    return [(r.off - start, r.kind, r.target - BASE) for r in model.data_refs()]


def test_export_trie() -> None:
    trie, numbers = export_trie()
    assert found_exports(trie) == [
        (at, kind, number + (PAGE if in_trie else 0)) for at, kind, number, in_trie in numbers
    ]


def test_damaged_export_tries_name_what_is_sound() -> None:
    trie, _ = export_trie()
    whole = set(found_exports(trie))
    for length in range(1, len(trie)):
        assert set(found_exports(trie[:length])) <= whole
    random_ = random.Random(9)
    for _ in range(500):
        changed = bytearray(trie)
        for _ in range(random_.randint(1, 5)):
            at = random_.randrange(len(changed))
            changed[at] = random_.choice([0, 0xFF, 0x80, random_.randrange(256)])
        found_exports(bytes(changed))


def test_debugger_symbols() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    toy.section("__text", 64)
    stabs = [(0x24, 1), (0x24, 0), (0x26, 2), (0x2E, 1), (0x4E, 1), (0x66, 1), (0x64, 0)]
    toy.symbols = [(kind, section, BASE) for kind, section in stabs]
    model = fm.parse(toy.build())
    start = model.section("__LINKEDIT,symtab").off
    assert [(r.off - start) // 16 for r in model.data_refs()] == [0, 2, 3]


def test_rebase_opcodes() -> None:
    toy = ToyMacho(X86_64)
    toy.segment("__TEXT")
    toy.section("__text", 64)
    toy.segment("__DATA")
    data = toy.section("__data", 0x400)
    for at in range(0, 0x400, 8):
        struct.pack_into("<Q", data.data, at, BASE + at)
    toy.rebase = b"".join(
        [
            bytes([0x11, 0x21, 0x10, 0x52]),  # 10, 18
            bytes([0x30, 0x80, 0x01, 0x60, 0x03]),  # a0, a8, b0
            bytes([0x42, 0x70, 0x08, 0x51]),  # c8, d8
            bytes([0x80, 0x03, 0x10]),  # e0, f8, 110
            bytes([0x12, 0x51, 0x11]),  # of another type: nothing
            bytes([0x21, 0xFC, 0x07, 0x51, 0x51]),  # 3fc does not fit: stop
        ]
    )
    expected = [0x10, 0x18, 0xA0, 0xA8, 0xB0, 0xC8, 0xD8, 0xE0, 0xF8, 0x110]
    refs = fm.parse(toy.build()).data_refs()
    assert [(r.off - data.off, r.kind, r.target - BASE) for r in refs] == [
        (at, fm.ABS64, at) for at in expected
    ]


def test_rebase_opcodes_cannot_run_for_long() -> None:
    """Billions of pointers in a few bytes: the count is bounded by what the file can hold."""
    toy = ToyMacho(X86_64)
    toy.segment("__TEXT")
    data = toy.section("__const", 0x400)
    endless = bytes([0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]) + b"\xf8" + b"\xff" * 8 + b"\1"  # skip -8
    toy.rebase = bytes([0x11, 0x20, 0x80, 0x10]) + endless * 50
    refs = fm.parse(toy.build()).data_refs()
    assert [r.off for r in refs] == [data.off]


def test_relative_method_lists() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    text = toy.section("__text", 64)
    flags = 0x80000000 | 12
    one = struct.pack("<IIiii", flags, 1, -0x100, 0, 0x40)
    bad = struct.pack("<IIiii", flags, 99, 4, 4, 4)
    lists = toy.section("__objc_methlist", one + bytes(4) + one + bad)
    refs = fm.parse(toy.build()).data_refs()
    wanted = [8, 16, 20 + 12, 20 + 20]
    assert [r.off - lists.off for r in refs] == wanted
    assert {r.kind for r in refs} == {fm.PC32}
    assert refs[0].target == lists.addr + 8 - 0x100
    assert text.addr < lists.addr


def test_swift_tables() -> None:
    toy = ToyMacho(ARM64)
    toy.segment("__TEXT")
    types = toy.section("__swift5_types", struct.pack("<iii", 0x100, 0, -0x20))
    fields = struct.pack("<iiHHI", 0x20, 0, 0, 12, 2) + struct.pack("<Iii", 2, 0x30, 0x34) * 2
    metadata = toy.section("__swift5_fieldmd", fields)
    refs = fm.parse(toy.build()).data_refs()
    places = [(r.off, r.target - BASE - r.off) for r in refs]
    assert places == [
        (types.off, 0x100),
        (types.off + 8, -0x20),
        (metadata.off, 0x20),
        (metadata.off + 20, 0x30),
        (metadata.off + 24, 0x34),
        (metadata.off + 32, 0x30),
        (metadata.off + 36, 0x34),
    ]


@pytest.mark.parametrize("wide", [False, True])
def test_fat_files(wide: bool) -> None:
    parts = [(X86_64, 3, sample(X86_64, 3).build()), (ARM64, 0, sample().build())]
    model = fm.parse(fat(parts, wide=wide))
    assert [image.arch for image in model.images] == [2, 1]
    alone = fm.parse(parts[1][2])
    slice_ = model.images[1]
    moved = [(r.off - slice_.off, r.kind, r.target) for r in model.refs if r.off >= slice_.off]
    assert moved == [(r.off, r.kind, r.target) for r in alone.refs]
    assert [s.name for s in slice_.sections] == [s.name for s in alone.images[0].sections]


def test_overlapping_slices_are_left_out() -> None:
    raw = bytearray(fat([(ARM64, 0, sample().build()), (X86_64, 0, sample(X86_64).build())]))
    struct.pack_into(">I", raw, 8 + 20 + 8, PAGE + 16)  # the second begins inside the first
    assert [image.off for image in fm.parse(bytes(raw)).images] == [PAGE]
    struct.pack_into(">I", raw, 8 + 20 + 8, 0xFFFFFFF0)
    assert [image.off for image in fm.parse(bytes(raw)).images] == [PAGE]


def test_a_java_class_is_no_fat_file() -> None:
    assert fm.parse(struct.pack(">III", 0xCAFEBABE, 52, 7) + bytes(range(256)) * 8).images == []


@pytest.mark.parametrize("overlap", ["segment", "section"])
def test_overlaps_are_left_out(overlap: str) -> None:
    toy = sample()
    if overlap == "segment":
        toy.segments[1].off = toy.segments[0].off + 16
    else:
        toy.segments[0].sections[1].off -= 32
    model = fm.parse(toy.build())  # checks that what remains is disjoint
    with pytest.raises(KeyError):
        model.section("__DATA,__data" if overlap == "segment" else "__TEXT,__const")
    assert model.section("__TEXT,__text").role == fm.CODE


def test_every_truncation_is_survived() -> None:
    raw = sample().build()
    command_bytes = struct.unpack_from("<I", raw, 20)[0] + 32
    for length in [*range(command_bytes + 8), *range(command_bytes, len(raw), 7)]:
        fm.parse(raw[:length])


@pytest.mark.parametrize("part", ["thin", "fat"])
def test_mutated_headers_are_survived(part: str) -> None:
    toy = sample()
    toy.rebase = bytes([0x11, 0x21, 0x10, 0x52, 0x60, 0x7F, 0])
    raw = toy.build()
    header_size = struct.unpack_from("<I", raw, 20)[0] + 32
    begin = 0
    if part == "fat":
        raw = fat([(X86_64, 3, sample(X86_64, 3).build()), (ARM64, 0, raw)])
        header_size = 48
    tail = fm.parse(raw).images[-1]
    linkedit = max(s.off for s in tail.sections) - 0x200
    random_ = random.Random(7)
    edges = [0, 1, 0x7F, 0x80, 0xFF]
    for _ in range(3000):
        changed = bytearray(raw)
        for _ in range(random_.randint(1, 8)):
            low, high = random_.choice([(begin, header_size)] * 3 + [(linkedit, len(raw))])
            at = random_.randrange(low, high)
            if random_.random() < 0.5:
                changed[at] = random_.choice(edges)
            else:
                changed[at] = random_.randrange(256)
        fm.parse(bytes(changed))


def test_the_model_is_a_function_of_the_bytes() -> None:
    raw = fat([(X86_64, 3, sample(X86_64, 3).build()), (ARM64, 0, sample().build())])
    assert fm.parse(raw) == fm.parse(raw)
