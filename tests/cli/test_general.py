"""What all commands have in common: help, errors, JSON, settings, speed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bsipatch import __version__
from bsipatch.cli._app import COMMANDS
from bsipatch.errors import error_classes

from .conftest import Cli

COMMAND = [sys.executable, "-m", "bsipatch"]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_version(cli: Cli) -> None:
    for option in ("--version", "-V"):
        assert cli(option).out == f"bsipatch {__version__}\n"


def test_the_help_lists_every_command(cli: Cli) -> None:
    out = plain(cli("--help").out)
    for name in COMMANDS:
        assert name in out
    assert "exit-codes" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(cli: Cli, name: str) -> None:
    out = plain(cli(name, "--help").out)
    assert "Example" in out
    assert f"bsipatch {name}" in out
    assert "--json" in out
    assert out == plain(cli(name, "-h").out)


def test_no_command_is_an_error_that_helps(cli: Cli) -> None:
    ended = cli(code=2)
    assert "--help" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["diff"],
        ["diff", "a", "b"],
        ["status", "--nonsense"],
        ["diff", "a", "b", "-o", "c", "--jobs", "0"],
        ["diff", "a", "b", "-o", "c", "--jobs", "many"],
        ["diff", "a", "b", "-o", "c", "--profile", "huge"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli: Cli, arguments: list[str]) -> None:
    ended = cli(*arguments, code=2)
    assert ended.out == ""
    assert ended.err.startswith("bsipatch: ")
    assert ended.err.count("\n") == 1
    told = cli(*arguments, "--json", code=2).told
    assert (told["ok"], told["error"], told["class"]) == (False, "usage", "UsageError")


def test_errors_are_one_object_under_json(cli: Cli, folder: Path) -> None:
    ended = cli("inspect", "nothing", "--json", code=4)
    assert ended.err == ""
    told = ended.told
    assert told["class"] == "NotFoundError"
    assert told["error"] == "not-found"
    assert told["exit_code"] == 4
    assert "nothing" in told["message"]


def test_exit_codes_are_one_table(cli: Cli) -> None:
    rows = {
        row["exit_code"]: row["error"] for row in cli("exit-codes", "--json").told["exit_codes"]
    }
    assert rows[0] == ""
    assert {cls.exit_code for cls in error_classes().values()} | {0} == set(rows)
    assert " 61  store-busy" in cli("exit-codes").out


def test_a_defect_is_reported_without_a_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    from bsipatch import delta

    def broken(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(delta, "inspect", broken)
    (folder / "file").write_bytes(b"x")
    ended = cli("inspect", "file", code=99)
    assert "ZeroDivisionError: oops" in ended.err
    assert "BSIPATCH_TRACEBACK" in ended.err


# --- settings ---


@pytest.fixture
def config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = folder / "config.toml"
    monkeypatch.setenv("BSIPATCH_CONFIG", str(file))
    return file


def test_the_store_comes_from_variable_or_config(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('store = "from-config"\n[history]\nstore = "from-table"\n')
    assert cli("status", "--json", code=4).told["file"] == "from-config"
    assert cli("history", "--json", code=4).told["file"] == "from-table"
    monkeypatch.setenv("BSIPATCH_STORE", "from-variable")
    assert cli("status", "--json", code=4).told["file"] == "from-variable"
    assert cli("status", "--store", "given", "--json", code=4).told["file"] == "given"


def test_the_config_file_sets_options(cli: Cli, config: Path, folder: Path) -> None:
    config.write_text('profile = "fast"\n')
    (folder / "a").write_bytes(b"a" * 100)
    (folder / "b").write_bytes(b"b" * 100)
    assert cli("diff", "a", "b", "-o", "p", "--json").told["profile"] == "fast"
    told = cli("diff", "a", "b", "-o", "p", "--json", "--profile", "balanced").told
    assert told["profile"] == "balanced"
    config.write_text('profile = "huge"\n')
    cli("diff", "a", "b", "-o", "p", code=2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stoer = 1\n", "stoer"),
        ("[stats]\nstore = 'x'\n", "stats"),
        ("not toml", "TOML"),
        ("x = \xff", "TOML"),
    ],
)
def test_a_wrong_config_file_is_named(cli: Cli, config: Path, text: str, named: str) -> None:
    config.write_bytes(text.encode("latin-1"))
    ended = cli("status", "--store", "x", code=3)
    assert named in ended.err
    assert str(config) in ended.err


def test_a_named_config_file_must_exist(cli: Cli, config: Path) -> None:
    assert "BSIPATCH_CONFIG" in cli("status", "--store", "x", code=3).err


# --- the process ---


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "BSIPATCH_CONFIG": os.devnull, **more}


def test_a_closed_pipe_is_no_error() -> None:
    line = " ".join([*COMMAND, "exit-codes", "|", "true"])
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True)
    assert done.stderr == ""


def test_completion_knows_commands_and_options() -> None:
    def complete(words: str, count: int) -> str:
        return subprocess.run(
            COMMAND,
            env=environment(
                _BSIPATCH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count)
            ),
            capture_output=True,
            text=True,
        ).stdout

    assert {"check-store", "convert"} <= set(complete("bsipatch c", 1).split())
    assert "--store" in complete("bsipatch status --s", 2).split()


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_bars_are_drawn_on_a_terminal_only(json_option: list[str], tmp_path: Path) -> None:
    """A slow piece of work, stderr once a terminal and once not."""
    code = (
        "import sys, time\n"
        "from bsipatch.cli import _output\n"
        "with _output.progress(json='--json' in sys.argv) as bar:\n"
        "    for step in range(16):\n"
        "        bar('building', step << 20, 16 << 20)\n"
        "        time.sleep(0.1)\n"
    )
    arguments = [sys.executable, "-c", code, *json_option]
    quiet = subprocess.run(arguments, env=environment(TERM="xterm"), capture_output=True, text=True)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", COLUMNS="120")
    child = subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        drawn += data
    child.communicate()
    os.close(ours)
    if json_option:
        assert drawn == b""
    else:
        assert b"building" in drawn
        assert b"/16.0" in drawn or b"16.0 MiB" in drawn


def test_heavy_modules_are_not_loaded_for_light_work() -> None:
    code = (
        "import sys\n"
        "from bsipatch.cli import main\n"
        "try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "import json\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )

    def loaded(arguments: list[str]) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments=arguments)],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return set(json.loads(done.stdout.splitlines()[-1]))

    version = loaded(["--version"])
    assert not version & {"typer", "rich", "bsipatch.errors", "bsipatch.delta", "msgspec"}
    patch = loaded(["patch", "a", "b", "-o", "c"])
    assert not patch & {"rich", "cryptography", "msgspec", "bsdiff4", "bsipatch.publish"}
    assert "bsipatch.cli.build" not in patch


@pytest.mark.slow
def test_short_commands_are_quick(tmp_path: Path) -> None:
    """The least of several runs, against that of an interpreter that does nothing."""

    def least(*command: str) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run(command, env=environment(), capture_output=True)
            times.append(time.perf_counter() - began)
        return min(times)

    (tmp_path / "old").write_bytes(os.urandom(1024))
    (tmp_path / "new").write_bytes((tmp_path / "old").read_bytes()[:1000] + b"new")
    old, new, patch = (str(tmp_path / name) for name in ("old", "new", "patch"))
    subprocess.run([*COMMAND, "diff", old, new, "-o", patch], env=environment(), check=True)
    bare = least(sys.executable, "-c", "pass")
    assert least(*COMMAND, "--version") < bare * 4 + 0.05
    assert least(*COMMAND, "patch", old, patch, "-o", new) < bare * 14 + 0.12
