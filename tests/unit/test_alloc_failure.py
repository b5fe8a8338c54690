"""Out of memory at the Nth allocation, for every N: a clean status, and everything is given back.

csrc/fuzz/fuzz_alloc_failure.c runs both verbs with a heap that refuses one request, and traps
when a status, a result or the heap's balance is wrong (THREATS 16).
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import fuzz_targets, patch_forge

ROOT = Path(__file__).resolve().parents[2]

#: runs in a process of its own, as a trap ends it; refuses every request in turn
SWEEP = textwrap.dedent(
    """
    import ctypes, sys
    from pathlib import Path
    library, profile, old, new = sys.argv[1:]
    old, new = Path(old).read_bytes(), Path(new).read_bytes()
    run = ctypes.CDLL(library).fuzz_alloc_run
    run.restype = ctypes.c_size_t
    run.argtypes = [ctypes.c_uint32, *[ctypes.c_char_p, ctypes.c_size_t] * 2, ctypes.c_size_t]
    total = run(int(profile), old, len(old), new, len(new), 0)
    for number in range(1, total + 1):
        print(number, flush=True)
        assert run(int(profile), old, len(old), new, len(new), number) == number
    assert run(int(profile), old, len(old), new, len(new), total + 1) == total
    print("of", total)
    """
)


@pytest.mark.parametrize("profile", [0, 2])
@pytest.mark.parametrize("kind", patch_forge.TOYS)
def test_every_allocation_may_be_refused(kind: str, profile: int, tmp_path: Path) -> None:
    old, new = patch_forge.toy_pair(kind)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    arguments = [str(fuzz_targets.library()), str(profile)]
    arguments += [str(tmp_path / "old"), str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, *arguments], capture_output=True, text=True, timeout=280
    )
    lines = done.stdout.split()
    assert done.returncode == 0, f"request {lines[-1:]}: {done.stderr[-3000:]}"
    assert int(lines[-1]) > 20
