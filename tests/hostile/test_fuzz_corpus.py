"""Every input of the fuzz corpora, seeds and one-time crashes alike, replayed (THREATS 1, 2, 7)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fuzz_targets

ROOT = Path(__file__).resolve().parents[2]
#: one input may not be larger, nor all of them together
MOST, MOST_OF_ALL = 20_000, 2_000_000


def corpus(name: str) -> list[Path]:
    return sorted(p for p in (fuzz_targets.CORPUS / name).iterdir() if p.is_file())


@pytest.mark.parametrize("name", fuzz_targets.names())
def test_replay(name: str) -> None:
    fuzz_targets.library()  # so that a failing compiler shows here
    files = [str(path) for path in corpus(name)]
    assert files, f"no corpus for {name}: run python -m tests.support.make_fuzz_seeds"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fuzz_targets", name, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{name} died of {last}: {done.stderr[-3000:]}"
    assert done.stdout.split() == files


def test_corpora_are_small() -> None:
    sizes = [path.stat().st_size for name in fuzz_targets.names() for path in corpus(name)]
    assert max(sizes) <= MOST
    assert sum(sizes) <= MOST_OF_ALL
