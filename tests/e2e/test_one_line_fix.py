"""A one-line fix in a program of some thousand lines: what it costs beyond the function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsipatch.delta import diff_bytes, patch_bytes
from tests.support import agreement, programs

pytest.importorskip("ziglang", reason="ziglang is missing: NO one-line fix was measured")

ALLOWANCE = 1024  # bytes beyond the function that was changed


@pytest.mark.parametrize("target", programs.TARGETS)
def test_one_line_fix(target: str, tmp_path: Path) -> None:
    text = [programs.source(fixed) for fixed in (False, True)]
    assert len(text[0].splitlines()) > 2000
    assert len(set(text[1].splitlines()) - set(text[0].splitlines())) == 1
    old, new = (programs.build(target, each, tmp_path) for each in text)
    moved = sum(a != b for a, b in zip(old, new, strict=False))
    patch = diff_bytes(old, new, profile="max")
    assert patch_bytes(old, patch) == new
    function = programs.function_size(new, f"work_{programs.FIXED}")
    assert len(patch) < function + ALLOWANCE
    assert moved > 10 * len(patch), "the fix moved too little to show anything"
    if not os.environ.get("BSIPATCH_SANITIZED"):
        agreement.check_patch(old, patch, new)
