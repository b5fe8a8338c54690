"""Power cuts on real file systems, some hundred of them; `make crash-full` looks at thousands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .machine import KINDS

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(
        bool(os.environ.get("BSIPATCH_SANITIZED")), reason="no native code of ours is looked at"
    ),
]

_OPERATIONS = (
    *("init", "apply", "revert", "collect", "unhealthy"),
    *("recover-finish", "repair", "exchange-apply", "group-apply"),
)


def crash(*arguments: str, code: int = 0) -> Any:
    """Runs `python -m tests.crash` and gives its summary; skips, aloud, what cannot run here."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=1200,  # a few seconds on a machine that has nothing else to do
    )
    if done.returncode == 2 and "SKIPPED" in done.stderr:
        pytest.skip(f"POWER CUTS NOT TESTED: {done.stderr.strip()}")
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_after_every_power_cut(kind: str, tmp_path: Path) -> None:
    summary = crash(
        *("run", "--fs", kind, "--op", *_OPERATIONS, "--states", "8", "--recoveries", "1"),
        *("--save", str(tmp_path)),
    )
    assert summary["failed"] == summary["file_system_damaged"] == 0
    assert summary["states"] >= 100
    # it would prove nothing if recovery never had to do anything, or success was never reported
    assert summary["recovered"]
    assert summary["after_success"]


def test_a_dropped_sync_is_noticed_on_a_real_file_system() -> None:
    summary = crash(
        *("planted", "--fs", "btrfs", "--op", "apply", "--states", "60", "--only", "make_durable")
    )
    assert summary["missed"] == []
    assert summary["bugs"]
