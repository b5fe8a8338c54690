"""Which files are executable images, and whether they and their signatures are whole."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch.errors import CorruptError
from bsipatch.store import codesign, images
from tests.support.code_signature import ENTITLEMENTS, REQUIREMENTS, blob, directory, superblob
from tests.support.toy_elf import ToyElf
from tests.support.toy_macho import LC_CODE_SIGNATURE, PURE_INSTRUCTIONS, ToyMacho

ENTITLED = blob(0xFADE7171, b"<plist/>")


def inspect(tmp_path: Path, data: bytes) -> images.Image | None:
    path = tmp_path / "image"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return images.inspect(fd)
    finally:
        os.close(fd)


def macho(signature: Callable[[bytes], bytes] | None = None) -> bytes:
    """A signed slice; `signature` makes the signature's bytes from what is signed."""
    toy = ToyMacho()
    toy.segment("__TEXT")
    toy.section("__text", bytes(range(256)) * 40, flags=PURE_INSTRUCTIONS)
    if signature is None:
        return toy.build()
    room = len(signature(b"x" * 20000)) + 64
    toy.table(LC_CODE_SIGNATURE, bytes([1]) * (-(-room // 16) * 16))
    made = bytearray(toy.build())
    at = made.index(struct.pack("<II", LC_CODE_SIGNATURE, 16))
    offset, size = struct.unpack_from("<II", made, at + 8)
    data = signature(bytes(made[:offset]))
    assert len(data) <= size
    made[offset : offset + size] = data.ljust(size, b"\0")
    return bytes(made)


def simple(signed: bytes) -> bytes:
    return superblob({0: directory(signed)})


def full(signed: bytes) -> bytes:
    needs = blob(0xFADE0C01, b"none")
    special = {REQUIREMENTS: needs, ENTITLEMENTS: ENTITLED}
    return superblob(
        {
            0: directory(signed, special, sha1=True),
            REQUIREMENTS: needs,
            ENTITLEMENTS: ENTITLED,
            0x1000: directory(signed, special, shift=14, limit64=True),
        }
    )


def fat(*slices: bytes) -> bytes:
    table, body, at = b"", b"", 4096
    for data in slices:
        table += struct.pack(">5I", 0x0100000C, 0, at + len(body), len(data), 12)
        body += data.ljust(-(-len(data) // 4096) * 4096, b"\0")
    return (struct.pack(">II", 0xCAFEBABE, len(slices)) + table).ljust(at, b"\0") + body


# --- sound ones ---


def test_other_files_are_no_images(tmp_path: Path) -> None:
    java = b"\xca\xfe\xba\xbe\x00\x00\x00\x41" + bytes(64)
    for data in (b"", b"\x7f", b"#!/bin/sh\n", b"\x7fprogram", java, b"!<arch>\n"):
        assert inspect(tmp_path, data) is None


def test_a_mach_o_without_signature(tmp_path: Path) -> None:
    assert inspect(tmp_path, macho()) == images.Image("Mach-O", False, 0)


def test_every_page_of_every_directory_is_compared(tmp_path: Path) -> None:
    found = inspect(tmp_path, macho(simple))
    assert found is not None
    assert found.pages > 2
    both = inspect(tmp_path, macho(full))
    assert both is not None
    assert both.pages > found.pages


def test_one_huge_page(tmp_path: Path) -> None:
    found = inspect(tmp_path, macho(lambda data: superblob({0: directory(data, shift=0)})))
    assert found is not None
    assert found.pages == 1


def test_fat_files_are_looked_into(tmp_path: Path) -> None:
    one = inspect(tmp_path, macho(simple))
    two = inspect(tmp_path, fat(macho(simple), macho(simple)))
    assert one is not None
    assert two is not None
    assert two.pages == 2 * one.pages


def test_elf_files(tmp_path: Path) -> None:
    toy = ToyElf()
    toy.add(".text", flags=6, data=bytes(64))
    assert inspect(tmp_path, toy.build()) == images.Image("ELF", False, 0)
    assert inspect(tmp_path, toy.build(section_headers=False)) is not None


def test_this_very_interpreter_is_whole() -> None:
    import sys

    with open(os.path.realpath(sys.executable), "rb") as file:
        found = images.inspect(file.fileno())
    assert found is not None
    assert not found.library, "a program is not loaded"


def test_a_library_of_this_host_is_one() -> None:
    from bsipatch._core import _bsipatch  # type: ignore[attr-defined]

    with open(_bsipatch.__file__, "rb") as file:
        found = images.inspect(file.fileno())
    assert found is not None
    assert found.library


# --- damaged ones ---


@pytest.mark.parametrize("signature", [simple, full], ids=["simple", "full"])
@pytest.mark.parametrize("at", [40, 3000, 9000])
def test_one_wrong_byte_is_found(
    tmp_path: Path, signature: Callable[[bytes], bytes], at: int
) -> None:
    data = bytearray(macho(signature))
    data[at] ^= 1
    with pytest.raises(CorruptError, match=r"page|load command|segment"):
        inspect(tmp_path, bytes(data))


def test_another_entitlement_is_found(tmp_path: Path) -> None:
    data = macho(full).replace(b"<plist/>", b"<PLIST/>")
    with pytest.raises(CorruptError, match="special slot 5"):
        inspect(tmp_path, data)


def test_a_missing_blob_is_found(tmp_path: Path) -> None:
    def without(signed: bytes) -> bytes:
        return superblob({0: directory(signed, {ENTITLEMENTS: ENTITLED})})

    with pytest.raises(CorruptError, match="special slot 5"):
        inspect(tmp_path, macho(without))


_WRONG: dict[str, tuple[dict[str, int], str]] = {
    "hash": ({"kind": 9}, "hash is unknown"),
    "hash size": ({"size": 16}, "hash is unknown"),
    "pages": ({"pages": 1}, "too many or too few"),
    "more pages": ({"pages": 1 << 31}, "too many or too few"),
    "page size": ({"shift": 63}, "page size"),
    "covers itself": ({"limit": 1 << 31}, "covers itself"),
    "outside": ({"hashes": 1 << 31}, "outside"),
    "special": ({"slots": 1 << 31}, "outside"),
    "version": ({"version": 0x20300, "hashes": 44}, "scattered|version|covers|pages|outside"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_lying_directory_is_refused(tmp_path: Path, name: str) -> None:
    changes, why = _WRONG[name]
    with pytest.raises(CorruptError, match=why):
        inspect(tmp_path, macho(lambda data: superblob({0: directory(data, **changes)})))


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (b"\0" * 64, "not a code signature"),
        (struct.pack(">III", 0xFADE0CC0, 1 << 30, 1), "index does not fit"),
        (struct.pack(">III", 0xFADE0CC0, 64, 1 << 30), "index does not fit"),
        (superblob({ENTITLEMENTS: ENTITLED}), "no code directory"),
        (superblob({0: blob(0xFADE0C02, b"short")}), "too short"),
        (superblob({0: blob(0xFADE0C03, bytes(64))}), "not a code directory"),
        (struct.pack(">5I", 0xFADE0CC0, 24, 1, 0, 0xFFFFFFF0) + bytes(8), "outside"),
        (struct.pack(">7I", 0xFADE0CC0, 28, 2, 0, 20, 0, 20), "does not fit|twice"),
        (struct.pack(">5I", 0xFADE0CC0, 28, 1, 0, 20) + struct.pack(">2I", 1, 999), "not fit"),
    ],
)
def test_a_lying_signature_is_refused(signature: bytes, why: str) -> None:
    data = bytes(4096) + signature

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    with pytest.raises(CorruptError, match=why):
        codesign.check(read, 4096, len(signature), len(data))


def test_a_signature_outside_its_file_is_refused() -> None:
    for offset, length in ((100, 1 << 20), (1 << 40, 64), (0, 4)):
        with pytest.raises(CorruptError, match="within the file"):
            codesign.check(lambda offset, length: b"", offset, length, 4096)


def test_lying_slices_are_refused(tmp_path: Path) -> None:
    one = macho()
    good = bytearray(fat(one, one))
    for at, value in ((16, 8), (16, 1 << 31), (20, 1 << 31), (36, 4096)):
        bad = bytearray(good)
        struct.pack_into(">I", bad, at, value)
        with pytest.raises(CorruptError):
            inspect(tmp_path, bytes(bad))


def test_lying_load_commands_are_refused(tmp_path: Path) -> None:
    good = macho()
    for at, value in ((16, 1 << 31), (16, 1000), (20, 1 << 31), (36, 4), (36, 1 << 30), (36, 7)):
        bad = bytearray(good)
        struct.pack_into("<I", bad, at, value)
        with pytest.raises(CorruptError):
            inspect(tmp_path, bytes(bad))
    with pytest.raises(CorruptError, match="outside the file"):
        inspect(tmp_path, good[:3000])


def test_lying_elf_headers_are_refused(tmp_path: Path) -> None:
    toy = ToyElf()
    toy.add(".text", flags=6, data=bytes(64))
    good = toy.build()
    wrong = {4: b"\x09", 5: b"\x00", 32: b"\xff" * 8, 40: b"\xff" * 8, 54: b"\x01", 58: b"\x01"}
    for at, value in wrong.items():
        bad = bytearray(good)
        bad[at : at + len(value)] = value
        with pytest.raises(CorruptError):
            inspect(tmp_path, bytes(bad))
    with pytest.raises(CorruptError):
        inspect(tmp_path, good[:70])
    with pytest.raises(CorruptError):
        inspect(tmp_path, good[:20])


@given(st.data())
def test_no_bytes_make_it_do_anything_but_refuse(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    toy = ToyElf()
    toy.add(".text", flags=6, data=bytes(64))
    seed = data.draw(st.sampled_from([macho(full), fat(macho(simple)), toy.build()]))
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(seed), 4096) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    folder = tmp_path_factory.mktemp("fuzz")
    for bytes_ in (bytes(changed), bytes(changed[:cut])):
        with contextlib.suppress(CorruptError):
            inspect(folder, bytes_)


@pytest.mark.slow
def test_a_real_ad_hoc_signature(tmp_path: Path) -> None:
    from tests.support import programs

    data = programs.build("aarch64-macos", programs.source(False), tmp_path / "zig")
    found = inspect(tmp_path, data)
    assert found is not None
    assert found.pages > 1
    for at in (0x4000, len(data) // 2):
        bad = bytearray(data)
        bad[at] ^= 0x40
        with pytest.raises(CorruptError):
            inspect(tmp_path, bytes(bad))
