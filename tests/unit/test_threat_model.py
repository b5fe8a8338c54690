"""The threat model names a test for each row, and each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/threat-model.md").read_text()))
    there: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.M))
    assert len(named) > 40
    assert named <= there, named - there


def test_every_row_has_a_test() -> None:
    text = (ROOT / "docs/threat-model.md").read_text()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("attack", "fault") and set(line) - set("|- "):
            assert "`test_" in cells[-1], line
