"""The whole way on real frameworks; needs BSIPATCH_CORPORA (see bench/corpora.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsipatch.tree import walk

from .journey import run, told

pytestmark = [pytest.mark.corpora, pytest.mark.slow, pytest.mark.timeout(3600)]

#: folder below the corpora, old and new version, what is in it; the small ones first
PAIRS = {
    "QtCore": ("frameworks-macos", "6.9.1", "6.9.2", "QtCore.framework"),
    "QtWebEngineCore": ("frameworks-macos", "6.9.1", "6.9.2", "QtWebEngineCore.framework"),
    "all of Qt": ("frameworks-macos", "6.9.1", "6.9.2", ""),
    "PyQt6-WebEngine": ("pyqt6-webengine-macos-arm64", "6.8.1", "6.8.2", ""),
}


@pytest.mark.parametrize("name", PAIRS)
def test_real_frameworks(name: str, corpora: Path, tmp_path: Path) -> None:
    folder, old_version, new_version, inside = PAIRS[name]
    old, new = (corpora / folder / version / inside for version in (old_version, new_version))
    if not old.is_dir() or not new.is_dir():
        pytest.skip(f"{old} or {new} has not been fetched")
    if os.environ.get("BSIPATCH_CORPORA_SMALL") and name != "QtCore":
        pytest.skip("BSIPATCH_CORPORA_SMALL keeps to the smallest pair")
    release = tmp_path / "release.toml"
    release.write_text('product = "Qt"\nversion = "6.9.1"\nletter = "a"\nbuild = "692"\n')
    run("keygen", tmp_path / "keys", "--no-passphrase")
    update, store = tmp_path / "u.bsi", tmp_path / "store"
    built = told(
        *("build", "--base", old, "--new", new, "--release", release, "-o", update),
        *("--key", tmp_path / "keys/private.pem", "--profile", "fast"),
    )
    told(
        *("init", "--store", store, "--baseline", old, "--product", "Qt", "--version", "6.9.1"),
        *("--build", "691", "--trust", tmp_path / "keys/public.pem"),
    )
    applied = told("apply", update, "--store", store)
    assert walk(store / "current/tree", jobs=2) == walk(new, jobs=2)
    assert applied["tree_digest"] == built["result_digest"]
    reverted = told("revert", "--store", store)
    assert reverted["seconds"] < 0.1
    assert walk(store / "current/tree", jobs=2) == walk(old, jobs=2)
