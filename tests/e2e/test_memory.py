"""Applying takes little memory of its own, however large the file."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bsipatch import delta

MIB = 1 << 20
TABLE = Path(__file__).resolve().parents[2] / "bench" / "corpora.tsv"

# Applies in a process of its own and prints by how much its private memory grew, in KiB.
PROGRAM = textwrap.dedent(
    """
    import sys, threading, time
    from pathlib import Path
    from bsipatch import delta
    import bsipatch._core, bsipatch.delta._codecs, zstandard

    def private():
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))

    before, most, stop = private(), 0, threading.Event()

    def watch():
        global most
        while not stop.wait(0.005):
            most = max(most, private())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        delta.patch(*map(Path, sys.argv[1:4]), jobs=2)
    finally:
        stop.set()
        thread.join()
    print(most - before)
    """
)


def growth(old: Path, patch: Path, made: Path) -> int:
    """Bytes of private memory that applying took beyond the interpreter."""
    command = [sys.executable, "-c", PROGRAM, str(old), str(patch), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


needs_smaps = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup"
)


@needs_smaps
@pytest.mark.slow
def test_apply_of_a_large_file(tmp_path: Path) -> None:
    data = bytearray(random.Random(11).randbytes(96 * MIB))
    (tmp_path / "old").write_bytes(data)
    for at in range(0, len(data), 50_000):
        data[at] ^= 0x55
    data[MIB:MIB] = b"inserted" * 9
    (tmp_path / "new").write_bytes(data)
    del data
    delta.diff(tmp_path / "old", tmp_path / "new", tmp_path / "patch", profile="balanced")
    grown = growth(tmp_path / "old", tmp_path / "patch", tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == (tmp_path / "new").read_bytes()
    assert grown < 32 * MIB


@needs_smaps
@pytest.mark.slow
@pytest.mark.corpora
def test_apply_of_the_large_framework(corpora: Path, tmp_path: Path) -> None:
    """QtWebEngineCore, 192 MB: less than 64 MiB beyond the interpreter."""
    with TABLE.open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    row = rows["QtWebEngineCore-arm64-6.8.2"]
    old, new = corpora / row["old_path"], corpora / row["new_path"]
    if not old.exists() or not new.exists():
        pytest.skip("this pair has not been fetched")
    delta.diff(old, new, tmp_path / "patch")
    assert growth(old, tmp_path / "patch", tmp_path / "made") < 64 * MIB
