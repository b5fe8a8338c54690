"""Writes the seeds of the fuzz targets into tests/fuzz-corpus, one folder a target.

Run ``python -m tests.support.make_fuzz_seeds`` after the format or the readers changed.  The
same files come out every time; names begin with ``seed-``, everything else in a folder
(inputs that once found a defect) is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bsipatch._core import Codec, Diff
from tests.support import patch_forge, toy_elf, toy_macho

CORPUS = Path(__file__).resolve().parents[1] / "fuzz-corpus"
#: bytes of one seed
MOST = 20_000
#: the unit tests whose toy files make good images
IMAGE_TESTS = (
    "chained_fixups",
    "eh_frame",
    "elf",
    "elf_btf",
    "elf_relocations",
    "image",
    "jump_tables",
    "macho",
    "unwind_info",
)
#: images of one container that are kept
IMAGES = 40


def toy_images() -> dict[str, list[bytes]]:
    """What the unit tests of csrc/image parse, by container; Mach-O includes fat files."""
    import pytest

    made: dict[str, dict[str, bytes]] = {"macho": {}, "elf": {}}

    def record(kind: str, data: bytes) -> bytes:
        if len(data) <= MOST:
            made[kind].setdefault(hashlib.sha256(data).hexdigest(), data)
        return data

    real = toy_macho.ToyMacho.build, toy_elf.ToyElf.build, toy_macho.fat

    def macho_build(self: toy_macho.ToyMacho) -> bytes:
        return record("macho", real[0](self))

    def elf_build(self: toy_elf.ToyElf, **options: Any) -> bytes:
        return record("elf", real[1](self, **options))

    def fat(slices: Any, **options: Any) -> bytes:
        return record("macho", real[2](slices, **options))

    patch = pytest.MonkeyPatch()
    with patch.context() as p, contextlib.redirect_stdout(io.StringIO()):
        p.setattr(toy_macho.ToyMacho, "build", macho_build)
        p.setattr(toy_elf.ToyElf, "build", elf_build)
        p.setattr(toy_macho, "fat", fat)
        p.setenv("HYPOTHESIS_PROFILE", "ci")
        unit = CORPUS.parent / "unit"
        tests = [str(unit / f"test_{name}.py") for name in IMAGE_TESTS]
        pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
    return {kind: _spread(list(files.values())) for kind, files in made.items()}


def _spread(files: list[bytes]) -> list[bytes]:
    """At most IMAGES of them, evenly spread over all."""
    if len(files) <= IMAGES:
        return files
    return [files[i * len(files) // IMAGES] for i in range(IMAGES)]


def plain_parts(old: bytes, new: bytes) -> bytes:
    """The input of the targets that take plain streams: see csrc/fuzz/fuzz.h."""
    streams = patch_forge.plain_streams(old, new)
    parts = [streams.get(i, b"") for i in range(1, 7)]
    head = struct.pack("<I6H", len(new), *map(len, parts))
    return head + b"".join(parts) + old


def patches(old: bytes, new: bytes) -> Iterator[bytes]:
    """The pair's patch in each codec, of streams too small to need more than one."""
    for profile in ("fast", "max"):
        with Diff(old, new, profile=profile) as diff:
            yield diff.finish(bytes(8), bytes(8))
    coded = patch_forge.Forged.of(old, new)
    for entry in coded.streams:
        entry.codec = Codec.ZSTD
        entry.encoded = entry.plain[:40]
    yield coded.build()


def code_seeds() -> Iterator[tuple[str, bytes]]:
    """Code bytes for the finders, address and cut in front."""
    rng = random.Random(20261124)
    for name in ("arm64", "x86_64"):
        for index in range(8):
            _, new = patch_forge.toy_pair(name, seed=index)
            start = rng.randrange(0, max(1, len(new) - 3000))
            head = struct.pack("<QH", 0x100000000 + 4096 * index, rng.randrange(4096))
            yield name, head + new[start & ~3 : (start & ~3) + 3000]


def reference_seeds() -> Iterator[bytes]:
    """Tables of references: pointers, rows of two columns, and any disorder."""
    rng = random.Random(1)
    pointers = [(8, 0, 32, 0)] * 150
    symbols = [(8, 0, 35 - i % 2 * 3, i % 2 * 3) for i in range(150)]
    wild = [
        (rng.choice([1, 3, 254, 255, 256]), rng.choice([0, 0, 5, 128, 148]), 32 + i % 9, i % 4)
        for i in range(200)
    ]
    apart = [(255, 0, 32, 0)] * 70  # taken for a step back to the code before
    for fields in (pointers, symbols, pointers + symbols + pointers, wild, symbols[:63] + apart):
        yield bytes([0, 0, 36]) + b"".join(struct.pack("<HBBH", *each) for each in fields)
    yield bytes([4, 3, 20]) + b"".join(struct.pack("<HBBH", *each) for each in wild)


def seeds() -> Iterator[tuple[str, bytes]]:
    """All seeds as (target, bytes)."""
    images = toy_images()
    for data in images["macho"]:
        yield "image_macho", data
    for data in images["elf"]:
        yield "image_elf", data
    yield from code_seeds()
    pairs = [patch_forge.toy_pair(kind, seed=s) for kind in patch_forge.TOYS for s in range(2)]
    for number, (old, new) in enumerate(pairs):
        parts = plain_parts(old, new)
        yield "streams", parts
        yield "apply_executable", parts
        yield "explain", parts
        for patch in patches(old, new):
            yield "patch_reader", patch
            yield "apply", struct.pack("<H", len(old)) + old + patch
        yield "alloc_failure", struct.pack("<HBH", 30 * number + 5, number, len(old)) + old + new
        yield "diff_roundtrip", struct.pack("<BH", 18 * number % 256, len(old)) + old + new
    for data in reference_seeds():
        yield "data_refs", data
    rng = random.Random(1)
    for index in range(6):
        yield "entropy", bytes(rng.randrange(256) for _ in range(4 + 40 * index))


def main() -> None:
    """Replaces every seed."""
    for path in CORPUS.glob("*/seed-*"):
        path.unlink()
    total = 0
    for target, data in seeds():
        if len(data) > MOST:
            continue
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
    for folder in sorted(CORPUS.iterdir()):
        files = [path for path in folder.iterdir() if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        total += size
        print(f"{folder.name:18} {len(files):4} files {size:9,} bytes")
    print(f"{'all':18} {total:,} bytes")


if __name__ == "__main__":
    main()
