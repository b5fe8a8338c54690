"""The core on arm64: its kernels agree, its fuzz targets hold, and its patches are the same.

`make test-arm64` runs this and fails where a tool is missing; the other tests then skip it.
Times under an emulator say nothing, so none is taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cross, fuzz_targets, patch_forge, programs, toy_pairs
from tests.support.native import CSRC

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(os.environ.get("BSIPATCH_SANITIZED")), reason="sanitizers are for this machine's core"
    ),
]

#: its property is of memory, and it brings parts of the core along
LEFT_OUT = "alloc_failure"
TARGETS = [name for name in fuzz_targets.names() if name != LEFT_OUT]
SUPPORT = CSRC / "fuzz" / "support.c"


@pytest.fixture(scope="module")
def arm64() -> cross.Machine:
    try:
        return cross.arm64()
    except cross.MissingError as missing:
        if os.environ.get("BSIPATCH_ARM64"):
            pytest.fail(f"missing: {missing}")
        pytest.skip(f"missing: {missing}")


def finished(machine: cross.Machine, program: Path, *arguments: str | Path) -> str:
    """What a program printed; it must have ended well."""
    done = machine.run(program, *arguments)
    assert done.returncode == 0, f"{program.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_kernels_agree_with_the_portable_ones(arm64: cross.Machine, tmp_path: Path) -> None:
    checks = sorted(cross.NATIVE.glob("agree*.c"))
    said = finished(arm64, cross.build(arm64, tmp_path / "agree", checks))
    print(said)
    # Every one was there to be compared, and not left out at compile time.
    assert "pieces of code" in said
    assert "sums and steps" in said
    assert "SHA-256: one message, two" in said


def test_fuzz_corpora_replayed(arm64: cross.Machine, tmp_path: Path) -> None:
    files = [
        cross.NATIVE / "replay.c",
        SUPPORT,
        *(CSRC / "fuzz" / f"fuzz_{name}.c" for name in TARGETS),
    ]
    named = "-DTARGETS=" + " ".join(f"X({name})" for name in TARGETS)
    replay = cross.build(arm64, tmp_path / "replay", files, named)
    for name in TARGETS:
        inputs = sorted((fuzz_targets.CORPUS / name).iterdir())
        assert finished(arm64, replay, name, *inputs).split() == [str(path) for path in inputs]


def pairs(folder: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, old, new) of executables for every processor and container, small and whole."""
    for name, make in toy_pairs.PAIRS.items():
        yield name, make(False), make(True)
    for kind in patch_forge.TOYS:
        yield f"toy-{kind}", *patch_forge.toy_pair(kind)
    for target in ("aarch64-macos", "aarch64-linux"):
        texts = programs.source(False), programs.source(True)
        old, new = (programs.build(target, text, folder) for text in texts)
        yield target, old, new


@pytest.mark.skipif(cross.is_arm64(), reason="needs a processor of another kind beside it")
def test_patches_are_the_same_as_on_this_machine(arm64: cross.Machine, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    arguments: list[Path] = []
    for name, old, new in pairs(tmp_path / "programs"):
        for data, which in ((old, "old"), (new, "new")):
            path = tmp_path / f"{name}.{which}"
            path.write_bytes(data)
            arguments.append(path)
    files = [cross.NATIVE / "patches.c", SUPPORT]
    here, there = (
        finished(machine, cross.build(machine, tmp_path / f"patches{i}", files), *arguments)
        for i, machine in enumerate((cross.host(), arm64))
    )
    print(there, file=sys.stderr)
    assert there == here
    # 2 files and a patch for each profile, with and without understanding them
    assert len(here.splitlines()) == len(arguments) // 2 * 7
