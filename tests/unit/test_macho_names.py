"""Names tell rows of Mach-O tables, and what names a row, apart: by what, not by where."""

from __future__ import annotations

from typing import Any

from tests.support import file_model as fm
from tests.support import native
from tests.support.toy_macho import ARM64, X86_64, ToyMacho

CDEF = (
    fm.CDEF
    + """
bool bspi_macho_name(const bspi_file *file, const bspi_image *image, const bspi_ref *ref,
                     uint64_t *label);
"""
)
IMPORTS = [b"_free", b"_malloc", b"_open"]


def labels(raw: bytes) -> dict[tuple[int, int], int]:
    """(offset, kind) -> label of what has a name."""
    ffi, lib = native.load(CDEF)
    heap = ffi.new("bspi_heap *")
    file: Any = ffi.new("bspi_file *")
    lib.bspi_heap_init(heap, 0)
    data = ffi.from_buffer(raw)
    assert lib.bspi_file_parse(heap, data, len(raw), file, ffi.NULL) == 0
    found = {}
    for ref in fm.parse(raw).refs:
        made = ffi.new(
            "bspi_ref *",
            {
                "off": ref.off,
                "target": ref.target,
                "base": ref.base,
                "kind": ref.kind,
                "size": ref.size,
            },
        )
        label = ffi.new("uint64_t *")
        if lib.bspi_macho_name(file, file.images, made, label):
            found[ref.off, ref.kind] = label[0]
    lib.bspi_file_free(file)
    return found


def toy(order: list[int], cpu: int = ARM64, cut: int = 0) -> dict[int, list[int]]:
    """Labels by kind of an image that imports IMPORTS in this order."""
    names, rows, offsets = b"\0", [], []
    for i in order:
        offsets.append(len(names))
        rows.append(len(names) << 9 | 1)
        names += IMPORTS[i] + b"\0"
    made = ToyMacho(cpu)
    made.segment("__TEXT")
    made.section("__const", 64)
    made.segment("__DATA")
    made.section("__got", 64)
    binds = {8 * i: 1 << 63 | i for i in range(3)}
    strings = names[: len(names) - cut]
    made.chains(6, {"__DATA": binds}, imports=rows, import_names=strings)
    made.symbols = [(1, 0, 0)] * 3
    made.names, made.strings = offsets, names
    made.indirect = [0, 1, 2]
    found: dict[int, list[int]] = {}
    for (_, kind), label in sorted(labels(made.build()).items()):
        found.setdefault(kind, []).append(label)
    return found


KINDS = {fm.CHAIN_BIND24, fm.IMPORT23, fm.BASE32, fm.INDEX16}


def test_a_name_has_one_label_wherever_it_stands() -> None:
    plain = toy([0, 1, 2])
    assert set(plain) == KINDS
    for kind in KINDS:
        assert plain[kind] == plain[fm.IMPORT23]
        assert len(set(plain[kind])) == 3
        assert toy([2, 0, 1])[kind] == [plain[kind][i] for i in (2, 0, 1)]


def test_images_of_a_fat_file_have_labels_of_their_own() -> None:
    assert not set(toy([0, 1, 2])[fm.BASE32]) & set(toy([0, 1, 2], X86_64)[fm.BASE32])


def test_names_may_run_into_whatever_follows() -> None:
    assert set(toy([0, 1, 2], cut=3)) == KINDS
