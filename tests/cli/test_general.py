"""What all commands have in common: help, errors, JSON, settings."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bsipatch import __version__
from bsipatch.cli import _app, _config, _output
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


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("follow file:///feed --root root.json --store s", "feed"),
        ("check --store s", "feed"),
        ("install --store s", "feed"),
        ("ticket --store s", "feed"),
        ("feed status --feed f --keys k", "feed"),
        ("settings --store s", "settings"),
        ("serve --store s", "settings"),
        ("diff a b -o c --format bsdiff4", "interop"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(tmp_path: Path, line: str, extra: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(_app.EXTRAS)}))\n"
        "from bsipatch.cli import main\n"
        f"main({line.split()})\n"
    )
    for name in "ab":
        (tmp_path / name).write_bytes(b"")
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert f"bsipatch[{extra}]" in ended.stderr
    assert ended.returncode == 6


def test_nothing_that_is_shown_reaches_the_terminal_as_a_command(cli: Cli, folder: Path) -> None:
    name = "\x1b[2J\u202egnp.exe\x9b"
    shown = r"\x1b[2J\u202egnp.exe\x9b"
    assert shown in cli("inspect", name, code=4).err
    (folder / "a").write_bytes(b"a" * 100)
    ended = cli("diff", "a", "a", "-o", name)
    assert shown in ended.out
    assert not {"\x1b", "\u202e", "\x9b"} & set(ended.out)
    assert cli("diff", "a", "a", "-o", name, "--json").told["patch"] == name


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "latin-1:strict"])
def test_a_name_that_is_no_text_is_no_defect(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_bytes(b"a" * 100)
    name = os.fsdecode(b"q\xff\xc3\xa9")
    for more in ([], ["--json"]):
        ended = subprocess.run(
            [*COMMAND, "diff", "a", "a", "-o", name, *more],
            cwd=tmp_path,
            env=environment(PYTHONIOENCODING=encoding),
            capture_output=True,
        )
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / name).exists()
    assert json.loads(ended.stdout)["patch"] == name


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


def test_every_command_with_a_shared_option_takes_it_from_the_config_file() -> None:
    # what these options mean here is another thing
    others = {"jobs": {"bench"}, "trust": {"inspect"}, "threshold": {"inspect"}, "key": {"ticket"}}
    having: dict[str, set[str]] = {}
    for name, command in typer.main.get_command(_app.build_app()).commands.items():
        for option in command.params:
            having.setdefault(option.name, set()).add(name)
    for option, commands in _config.SHARED.items():
        assert set(commands) == having[option] - others.get(option, set()), option


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


def test_a_patch_that_saves_nothing_is_not_called_smaller() -> None:
    assert _output.ratio(20, 1000) == "2.00 % of the new one, 50 times smaller"
    assert _output.ratio(1001, 1000) == "100.10 % of the new one"


def test_errors_name_what_they_are_about(folder: Path, cli: Cli) -> None:
    (folder / "old").write_bytes(b"old")
    (folder / "new").write_bytes(b"something new")
    (folder / "bad.bsdiff").write_bytes(b"BSDIFF40 and no more")
    no_patch = cli("patch", "old", "new", "-o", "made", code=21).err
    assert "expected 'BSIP', found 'some'" in no_patch
    assert no_patch.startswith("bsipatch: new: ")
    assert "bad.bsdiff: " in cli("patch", "old", "bad.bsdiff", "-o", "made", code=24).err
    assert "no such folder" in cli("diff", "old", "new", "-o", "nowhere/p", code=4).err
    assert "`bsipatch feed --help`" in cli("feed", code=2).err
