"""`--memory`: sizes as people write them, and a word when less effort was made."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bsipatch import delta
from bsipatch.delta import Profile, _budget, _make
from bsipatch.errors import MemoryLimitError
from bsipatch.limits import GIB, MIB
from tests.cli.conftest import Cli
from tests.support import toy_pairs

Way = _budget.Way


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("old").write_bytes(noise(3000))
    Path("new").write_bytes(noise(3000) + b"more")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32M", 32 * MIB),
        ("512m", 512 * MIB),
        ("1.5G", 3 * GIB // 2),
        ("2GiB", 2 * GIB),
        ("1T", 1024 * GIB),
        ("33554432", 32 * MIB),
        ("65536KB", 64 * MIB),
    ],
)
def test_sizes_are_read(
    text: str,
    size: int,
    files: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    real = delta.diff

    def diff(*args: Any, **named: Any) -> Any:
        seen.append(named["memory_budget"])
        return real(*args, **named)

    monkeypatch.setattr(delta, "diff", diff)
    cli("diff", "old", "new", "-o", "p", "-p", "fast", "--memory", text)
    assert seen == [size]


@pytest.mark.parametrize("text", ["", "M", "12X", "1.5", "-1M", "1e9", "5M", "0", "1.2345G"])
def test_what_is_no_size_is_refused(text: str, files: Path, cli: Cli) -> None:
    ended = cli("diff", "old", "new", "-o", "p", f"--memory={text}", code=2)
    assert "--memory" in ended.err
    assert not Path("p").exists()


def test_a_cheaper_way_is_named(
    files: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "note" not in cli("diff", "old", "new", "-o", "p", "-m", "64M").out
    real = _make._make

    def make(old: Any, new: Any, way: Way, *rest: Any) -> bytes:
        if way.profile is not Profile.FAST:
            raise MemoryLimitError("x")
        return real(old, new, way, *rest)

    monkeypatch.setattr(_make, "_make", make)
    assert (
        "profile fast, for want of memory" in cli("diff", "old", "new", "-o", "p", "-m", "64M").out
    )
    told = cli("diff", "old", "new", "-o", "p", "-m", "64M", "--json").told
    assert (told["profile"], told["raw"], told["short_of_memory"]) == ("fast", False, True)


def test_bytes_alone_that_are_smaller_are_no_want_of_memory(folder: Path, cli: Cli) -> None:
    old = toy_pairs.x86_64(False)
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(old[:-5])
    ended = cli("diff", "old", "new", "-o", "p", "--json")
    assert (ended.told["raw"], ended.told["short_of_memory"]) == (True, False)
    for more in ([], ["-m", "64M"]):
        assert "note" not in cli("diff", "old", "new", "-o", "p", *more).out


def test_foreign_formats_cannot_be_bounded(files: Path, cli: Cli) -> None:
    ended = cli("diff", "old", "new", "-o", "p", "--format", "bsdiff4", "-m", "64M", code=2)
    assert "only our own format" in ended.err


def test_a_config_file_may_set_it(files: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    config = files / "config.toml"
    monkeypatch.setenv("BSIPATCH_CONFIG", str(config))
    config.write_text('[diff]\nmemory = "5M"\n')
    assert "too little" in cli("diff", "old", "new", "-o", "p", code=2).err
    config.write_text('[diff]\nmemory = "64M"\n')
    cli("diff", "old", "new", "-o", "p")
