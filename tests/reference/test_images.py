"""The reference reads executables as the core does: toys, hostile ones, and real ones.

The fixture in tests/conftest.py lets the reference read every file that a test gives the core,
and apply every patch that a test makes; here they are given much to read.
"""

from __future__ import annotations

import os
import random
import struct
from functools import lru_cache
from pathlib import Path

import pytest

from bsipatch.delta import diff_bytes
from tests.support import agreement, file_model, fuzz_targets, patch_forge, programs, toy_pairs

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("BSIPATCH_SANITIZED")), reason="plain Python, nothing to sanitize"
)

ROUNDS = int(os.environ.get("BSIPATCH_AGREEMENT_ROUNDS", "300"))
NUMBERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 4095, 4096, 1 << 28,
           *(n + k for n in (1 << 31, 1 << 32, 1 << 63, 1 << 64) for k in (-8, -1))]  # fmt: skip
FUNCTIONS = 60  # of programs that are compiled here


def same(data: bytes) -> file_model.Model:
    """The core's model of a file, which the reference must share."""
    model = file_model.parse(data)
    agreement.check_file(data, model)
    return model


@lru_cache(maxsize=1)
def toys() -> list[bytes]:
    files = [make(False) for make in toy_pairs.PAIRS.values()]
    files += [patch_forge.toy_pair(kind, seed)[0] for kind in patch_forge.TOYS for seed in (0, 1)]
    for name in ("image_elf", "image_macho"):
        for path in sorted((fuzz_targets.CORPUS / name).iterdir()):
            data = path.read_bytes()
            files.append(b"\x7fELF" + data[4:] if name == "image_elf" else data)
    return files


def test_toys_and_fuzz_seeds() -> None:
    assert sum(len(same(data).refs) for data in toys()) > 4000


def spoilt(rng: random.Random, good: bytes) -> bytes:
    """A file with some fields changed, mostly in its headers and tables."""
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 3, 5, 12))):
        zone = rng.choice((len(good), min(len(good), 4096), min(len(good), 1024)))
        width = rng.choice((1, 2, 4, 8))
        at = rng.randrange(zone)
        if rng.random() < 0.3:
            at = len(good) - 1 - rng.randrange(min(len(good), 2048))
        at = min(at - at % width, max(len(good) - width, 0))
        mask, was = (1 << 8 * width) - 1, int.from_bytes(data[at : at + width], "little")
        change = rng.randrange(4)
        if change == 0:
            value = rng.choice([*NUMBERS, len(good), len(good) - at, at])
        elif change == 1:
            value = was + rng.choice((-1, 1, 4, -4, 8, 16, -16, 4096, -4096, rng.randrange(256)))
        elif change == 2:
            value = was ^ 1 << rng.randrange(8 * width)
        else:
            other = rng.randrange(len(good))
            value = int.from_bytes(data[other : other + width], "little")
        data[at : at + width] = (value & mask).to_bytes(width, "little")
    if rng.random() < 0.05:
        del data[rng.randrange(16, len(data) + 1) :]
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_spoilt_toys(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        same(spoilt(rng, rng.choice(toys())))


# --- real ones ---


@lru_cache(maxsize=16)
def library(target: str, fixed: bool, folder: Path, *options: str) -> bytes:
    pytest.importorskip("ziglang", reason="ziglang is missing: NO real library was looked at")
    return programs.build(target, programs.source(fixed, FUNCTIONS), folder, *options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("target", programs.TARGETS)
def test_compiled_libraries(target: str, folder: Path) -> None:
    model = same(library(target, False, folder))
    kinds = {ref.kind for ref in model.refs}
    assert len(model.refs) > 1500
    code = {16, 17, 18} if "x86_64" in target else {1, 2, 6, 7}
    assert code <= kinds
    assert file_model.BASE32 in kinds


@pytest.mark.parametrize("target", programs.TARGETS)
@pytest.mark.parametrize("profile", ["fast", "balanced", "max"])
def test_patches_of_compiled_libraries(target: str, profile: str, folder: Path) -> None:
    old, new = (library(target, fixed, folder) for fixed in (False, True))
    patch = diff_bytes(old, new, profile=profile)
    assert agreement.affordable(patch)
    agreement.check_patch(old, patch, new)
    patch = diff_bytes(new, old, profile=profile)
    agreement.check_patch(new, patch, old)


@pytest.mark.parametrize("target", programs.TARGETS)
def test_spoilt_libraries(target: str, folder: Path) -> None:
    rng = random.Random(target)
    good = library(target, False, folder)
    for _ in range(ROUNDS // 20):
        same(spoilt(rng, good))


OTHER_FORMS = {
    "object": ("-c",),
    "fixed": ("-static", "-no-pie", "-Wl,-e,work_0"),
    "stripped": ("-Wl,-s",),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
@pytest.mark.parametrize("target", [target for target in programs.TARGETS if "linux" in target])
def test_other_forms_of_elf(target: str, form: str, folder: Path) -> None:
    model = same(library(target, False, folder, *OTHER_FORMS[form]))
    assert len(model.refs) > 1000


@pytest.mark.parametrize("target", [target for target in programs.TARGETS if "linux" in target])
def test_packed_relocations(target: str, folder: Path) -> None:
    pytest.importorskip("ziglang", reason="ziglang is missing: NO packed library was looked at")
    data = programs.link_packed(target, programs.source(False, FUNCTIONS), folder)
    assert b".relr.dyn" in data
    assert len(same(data).refs) > 1000


@pytest.mark.parametrize("target", [target for target in programs.TARGETS if "linux" in target])
def test_without_section_headers(target: str, folder: Path) -> None:
    data = bytearray(library(target, False, folder))
    struct.pack_into("<Q", data, 40, 0)
    assert len(same(bytes(data)).refs) > 1000


# --- the public corpora ---

PAIRS = {
    "libexpat, arm64": (
        "libexpat1-arm64/2.5.0-1+deb12u2/lib/aarch64-linux-gnu/libexpat.so.1.8.10",
        "libexpat1-arm64/2.5.0-1+deb12u5/lib/aarch64-linux-gnu/libexpat.so.1.8.10",
    ),
    "libssl, x86-64": (
        "libssl3-amd64/3.0.20-1~deb12u2/usr/lib/x86_64-linux-gnu/libssl.so.3",
        "libssl3-amd64/3.0.22-1~deb12u2/usr/lib/x86_64-linux-gnu/libssl.so.3",
    ),
    "libc, x86-64": (
        "libc6-amd64/2.36-9+deb12u7/lib/x86_64-linux-gnu/libc.so.6",
        "libc6-amd64/2.36-9+deb12u14/lib/x86_64-linux-gnu/libc.so.6",
    ),
    "QtQml, fat": (
        "frameworks-macos/6.9.1/QtQml.framework/Versions/A/QtQml",
        "frameworks-macos/6.9.2/QtQml.framework/Versions/A/QtQml",
    ),
}


@pytest.mark.slow
@pytest.mark.corpora
@pytest.mark.parametrize("pair", PAIRS)
def test_corpora(pair: str, corpora: Path) -> None:
    old, new = ((corpora / path).read_bytes() for path in PAIRS[pair])
    same(old)
    agreement.check_patch(old, diff_bytes(old, new, profile="fast"), new)


@pytest.mark.slow
@pytest.mark.corpora
@pytest.mark.parametrize("pair", ["libexpat, arm64", "libssl, x86-64"])
def test_corpora_through_the_models(pair: str, corpora: Path) -> None:
    old, new = ((corpora / path).read_bytes() for path in PAIRS[pair])
    agreement.check_patch(old, diff_bytes(old, new), new)
