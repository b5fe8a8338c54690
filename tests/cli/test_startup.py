"""What a start does not load: checked by the modules that a process ends with, never by time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsipatch import delta
from bsipatch.cli import _app, _quick, patch
from tests.cli.conftest import Cli

#: no short command may load these, nor anything below them
NEVER = {"rich", "pydantic", "cryptography", "bsdiff4", "zstandard", "bsipatch.report", "asyncio"}
#: what takes a plain `patch` longer to load than a small patch to apply
SLOW = {"typing", "dataclasses", "inspect", "pathlib", "re", "json", "urllib", "platformdirs"}
#: what a plain `patch` can do without as well
PARSER = {"typer", "click", "msgspec", "bsipatch.cli._options", "bsipatch.store", "bsipatch.trust"}

_PROBE = """
import sys
before = set(sys.modules)
from bsipatch.cli import main
sys.argv[0] = "bsipatch"
try:
    main()
finally:
    print("\\n".join(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def loaded(folder: Path, *arguments: str, code: int = 0) -> set[str]:
    """Every module that a command line loads, beside those of a bare start."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments],
        cwd=folder,
        env={**os.environ, "BSIPATCH_CONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    names = set(ended.stderr.split("\n"))
    assert "bsipatch.cli" in names
    return names


@pytest.fixture
def pair(folder: Path) -> Path:
    (folder / "old").write_bytes(bytes(range(256)) * 4)
    (folder / "new").write_bytes(bytes(range(256)) * 4 + b"more")
    delta.diff(Path("old"), Path("new"), Path("p"), profile="fast")
    return folder


def test_the_version_loads_next_to_nothing(folder: Path) -> None:
    names = loaded(folder, "--version")
    assert {name for name in names if name.startswith("bsipatch")} == {"bsipatch", "bsipatch.cli"}
    assert not names & (NEVER | PARSER | {"typing", "json", "re", "enum", "pathlib"})


def test_a_plain_patch_loads_no_option_parser(pair: Path) -> None:
    names = loaded(pair, "patch", "old", "p", "-o", "made")
    assert (pair / "made").read_bytes() == (pair / "new").read_bytes()
    assert not names & (NEVER | PARSER | SLOW | {"bsipatch.publish", "bsipatch.cli.build"})
    outside = {name.partition(".")[0] for name in names if name} - sys.stdlib_module_names
    assert outside == {"bsipatch", "_cffi_backend"}
    assert "typer" in loaded(pair, "patch", "old", "p", "--out=made")  # the probe can tell


@pytest.mark.parametrize(
    "line",
    [
        ("patch", "old", "p", "--out=made"),
        ("diff", "old", "new", "-o", "q", "-p", "fast", "-j", "1"),
        ("exit-codes", "--json"),
    ],
)
def test_commands_load_only_what_they_use(pair: Path, line: tuple[str, ...]) -> None:
    names = loaded(pair, *line)
    if line[0] == "diff":  # codes streams with it
        names.discard("zstandard")
    assert not names & (NEVER | {"bsipatch.store", "bsipatch.publish", "bsipatch.package"})


# --- the quick reader -----------------------------------------------------------------------------

PLAIN = [
    "patch old p -o made",
    "patch -o made old p",
    "patch old -o made p --json",
    "patch --json --out made -j 1 old p",
    "patch old p --jobs 256 --out made",
    "patch old p -o made --jobs 007",
]
LEFT = [
    "",
    "diff old new -o p",
    "patch",
    "patch --help",
    "patch old p",
    "patch old -o made",
    "patch old p extra -o made",
    "patch old p -o",
    "patch old p -o made -o other",
    "patch old p -o made --json --json",
    "patch old p -o made -j 0",
    "patch old p -o made -j 257",
    "patch old p -o made -j 1000",
    "patch old p -o made -j ٣",
    "patch old p -o made -j -1",
    "patch old p -o -x",
    "patch old p --out=made",
    "patch old p -omade",
    "patch -- old p -o made",
    "patch old p -o made --store x",
    "--json patch old p -o made",
]


@pytest.mark.parametrize("line", PLAIN)
def test_plain_lines_mean_what_the_parser_says(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(old: Path, patch: Path, out: Path, *, jobs: int | None, json: bool) -> None:
        seen.append((str(old), str(patch), str(out), jobs, json))

    monkeypatch.setattr(patch._patching, "run", run)
    quick = _quick.read(line.split())
    assert quick is not None
    _app._parsed(line.split(), {})
    _app.run(line.split())
    assert seen == [(quick.old, quick.patch, quick.out, quick.jobs, quick.json)] * 2


@pytest.mark.parametrize("line", LEFT)
def test_everything_else_is_left_to_the_parser(line: str) -> None:
    assert _quick.read(line.split()) is None


def test_an_empty_argument_is_left_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ([], ["patch", "", "p", "-o", "made"], ["patch", "old", "p", "-o", ""]):
        assert _quick.read(empty) is None
    monkeypatch.setenv("_BSIPATCH_COMPLETE", "complete_bash")
    assert _quick.read(["patch", "old", "p", "-o", "made"]) is None


def test_a_config_file_still_counts(pair: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pair / "config.toml"
    monkeypatch.setenv("BSIPATCH_CONFIG", str(config))
    config.write_text("[patch]\njson = true\n")
    assert cli("patch", "old", "p", "-o", "made").told["ok"]
    config.write_text("nonsense = 1\n")
    assert "nonsense" in cli("patch", "old", "p", "-o", "made", code=3).err


def test_errors_of_a_quick_line_are_those_of_the_parser(pair: Path, cli: Cli) -> None:
    quick = cli("patch", "missing", "p", "-o", "made", code=4)
    parsed = cli("patch", "missing", "p", "--out=made", code=4)
    assert quick.err == parsed.err
