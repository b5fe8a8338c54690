"""What the kernel benchmarks share: a generated pair and a prepared patch.

They run on generated files, so that two commits on any two machines measure the same work.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import synthetic  # noqa: E402

SIZE = 4_000_000


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A generated executable of 4 MB and its newer build, 5 % new."""
    old, new = synthetic.generate(SIZE, 0.05, tmp_path_factory.mktemp("pair"))
    return old.read_bytes(), new.read_bytes()
