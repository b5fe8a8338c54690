"""Man pages, systemd units and the launchd job: complete, sound, and what they promise."""

from __future__ import annotations

import importlib.util
import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALL_UNITS = sorted((ROOT / "packaging" / "systemd").iterdir())
UNITS = sorted((ROOT / "packaging" / "systemd").glob("bsipatch-agent*"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_man() -> ModuleType:
    return script("make_man")


@pytest.fixture(scope="module")
def pages(make_man: ModuleType) -> dict[str, str]:
    return dict(make_man.make())


def test_there_is_a_page_for_every_command(pages: dict[str, str]) -> None:
    from bsipatch.cli._app import COMMANDS

    assert {"bsipatch.1", *(f"bsipatch-{name}.1" for name in COMMANDS)} <= set(pages)
    assert "bsipatch-fleet-report.1" in pages
    for name in COMMANDS:
        assert f"bsipatch\\-{name}".replace("-", "\\-").replace("\\\\", "\\") in pages["bsipatch.1"]


def test_every_page_has_its_parts(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        for part in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"):
            assert f"\n.SH {part}\n" in text, name
        assert text.splitlines()[1].startswith(f'.TH "{name[:-2].upper()}'.replace("-", "\\-")), (
            name
        )
        assert "[bold]" not in text
        assert re.search(r"\\\-h\\fR, \\fB\\-\\-help", text) or r"\fB\-h\fR" in text, name
        requests = {line.split()[0] for line in text.splitlines() if line.startswith(".")}
        assert requests <= {
            '.\\"', ".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I", ".nf", ".fi", ".RS",
            ".RE", ".nh", ".ad",
        }, name  # fmt: skip


def test_examples_and_environment_are_there(pages: dict[str, str]) -> None:
    assert "bsipatch policy \\-\\-check managed.toml" in pages["bsipatch-policy.1"]
    assert "BSIPATCH_STORE" in pages["bsipatch.1"]
    assert "\\fB\\-\\-store\\fR" in pages["bsipatch-auto.1"]


def test_text_cannot_become_a_request(make_man: ModuleType) -> None:
    assert make_man._escape(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert make_man._escape("'x") == "\\(aqx"
    assert make_man._escape("a\\fBb") == "a\\(rsfBb"


def test_the_pages_are_the_same_each_time(
    make_man: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    (tmp_path / "bsipatch-gone.1").write_text("stale")
    assert make_man.main([str(tmp_path)]) == 0
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert "bsipatch-gone.1" not in first
    assert '"2027-01-15"' in first["bsipatch.1"]
    make_man.main([str(tmp_path)])
    assert first == {path.name: path.read_text() for path in tmp_path.iterdir()}


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_finds_nothing_wrong(pages: dict[str, str]) -> None:
    some = ["bsipatch.1", "bsipatch-policy.1", "bsipatch-fleet-report.1", "bsipatch-diff.1"]
    for name in some:
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-Kutf8"],
            input=pages[name], capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == "", name
        assert "NAME" in re.sub(".\x08", "", done.stdout)


# --- completion ---


def test_completion_scripts_ask_the_program(tmp_path: Path) -> None:
    assert script("make_completions").main([str(tmp_path)]) == 0
    for path, call in (
        ("bash/bsipatch", "_BSIPATCH_COMPLETE=complete_bash"),
        ("zsh/_bsipatch", "_BSIPATCH_COMPLETE=complete_zsh"),
        ("fish/bsipatch.fish", "_BSIPATCH_COMPLETE=complete_fish"),
    ):
        assert call in (tmp_path / path).read_text()
    for shell, name in (("bash", "bash/bsipatch"), ("zsh", "zsh/_bsipatch")):
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(tmp_path / name)], check=True)


def test_groups_values_and_options_are_completed() -> None:
    def complete(words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "bsipatch"],
            env={
                **os.environ,
                "BSIPATCH_CONFIG": os.devnull,
                "_BSIPATCH_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
            },
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert complete("bsipatch fleet ") == ["collect", "report"]
    assert complete("bsipatch auto o") == ["on", "off"]
    assert "--explain" in complete("bsipatch policy --e")


# --- units ---


def test_the_units_are_there() -> None:
    names = {path.name for path in UNITS}
    assert names >= {
        "bsipatch-agent.service",
        "bsipatch-agent-once.service",
        "bsipatch-agent.timer",
        "bsipatch-agent.socket",
    }


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="THE SYSTEMD UNITS ARE NOT VERIFIED: systemd-analyze is not installed",
)


def verified(folder: Path, **wrong: str) -> list[str]:
    """What systemd says against our units, each with its template's %i filled in.

    wrong: what else is written into the unit of that name.
    """
    names = []
    for unit in ALL_UNITS:
        text = re.sub(r"(?m)^Documentation=.*\n", "", unit.read_text())
        text = text.replace("/usr/bin/bsipatch", "/bin/true").replace("env bsipatch", "env true")
        (folder / unit.name).write_text(text + wrong.get(unit.stem, ""))
        names.append(str(folder / unit.name.replace("@.", "@srv-store.")))
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if "bsipatch-" in line]


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert {unit.suffix for unit in ALL_UNITS} == {".service", ".timer", ".socket"}
    assert verified(tmp_path) == []


@needs_systemd
def test_systemd_would_say_what_is_wrong(tmp_path: Path) -> None:
    said = verified(tmp_path, **{"bsipatch-collect": "\n[Service]\nNoSuchSetting=yes\n"})
    assert any("NoSuchSetting" in line for line in said)


@pytest.mark.parametrize("unit", [u for u in UNITS if u.suffix == ".service"], ids=lambda u: u.name)
def test_services_are_hardened(unit: Path) -> None:
    lines = set(unit.read_text().splitlines())
    for setting in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/bsipatch",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "RestrictNamespaces=yes",
        "SystemCallFilter=@system-service",
        "Nice=10",
    ):
        assert setting in lines
    kinds = {"bsipatch-agent.service": "notify", "bsipatch-agent-once.service": "oneshot"}
    assert f"Type={kinds[unit.name]}" in lines


def test_the_launchd_job_is_a_background_one() -> None:
    file = ROOT / "packaging" / "launchd" / "org.bsipatch.agent.plist"
    job = plistlib.loads(file.read_bytes())
    assert job["Label"] == file.stem
    assert job["ProgramArguments"][1:] == ["agent", "--once"]
    assert (job["ProcessType"], job["LowPriorityIO"]) == ("Background", True)
    assert job["StartInterval"] >= 600
