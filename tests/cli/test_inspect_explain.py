"""`bsipatch inspect --explain`: options, exit codes, what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsipatch.package import MAGIC
from tests.support.toy_pairs import arm64

from .conftest import Cli

pytest.importorskip("bsipatch._core._bsipatch")


@pytest.fixture
def pair(folder: Path, cli: Cli) -> Path:
    """old, new and the patch p between them."""
    (folder / "old").write_bytes(arm64(False))
    (folder / "new").write_bytes(arm64(True))
    cli("diff", "old", "new", "-o", "p")
    return folder


def test_tables(cli: Cli, pair: Path) -> None:
    out = cli("inspect", "p", "--explain", "--old", "old").out
    assert "__TEXT,__text" in out
    assert "arm64 branch" in out
    assert f"{(pair / 'p').stat().st_size:,}" in out
    by_stream = cli("inspect", "p", "--explain").out
    assert "--old" in by_stream
    assert "arm64 branch" not in by_stream


def test_json(cli: Cli, pair: Path) -> None:
    told = cli("inspect", "p", "--explain", "--old", "old", "--json").told
    assert (told["ok"], told["kind"], told["schema"]) == (True, "explanation", 1)
    spent = sum(stream["patch_bytes"] for stream in told["streams"])
    assert told["header_bytes"] + spent == told["patch_size"] == (pair / "p").stat().st_size
    assert len(told["stretches"]) == 1000
    assert cli("inspect", "p", "--explain", "--json").told["rows"] == []


def test_page(cli: Cli, pair: Path) -> None:
    assert "why.html" in cli("inspect", "p", "--old", "old", "--html", "why.html").out
    page = (pair / "why.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "__text" in page


def test_what_goes_wrong(cli: Cli, pair: Path) -> None:
    cli("inspect", "p", "--explain", "--old", "new", code=31)
    cli("inspect", "p", "--explain", "--old", "none", code=4)
    cli("inspect", "p", "--explain", "--html", "none/why.html", code=4)
    (pair / "junk").write_bytes(b"junk and more of it")
    cli("inspect", "junk", "--explain", code=21)
    (pair / "short").write_bytes((pair / "p").read_bytes()[:30])
    cli("inspect", "short", "--explain", "--old", "old", code={23, 24})
    (pair / "update").write_bytes(MAGIC + bytes(100))
    cli("inspect", "update", "--explain", code=2)
    assert not list(pair.glob("*.html"))
