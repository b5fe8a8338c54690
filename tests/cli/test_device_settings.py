"""`bsipatch auto`, `policy`, `log`, `telemetry` and `fleet report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import policy_files
from bsipatch.device.logs import Log
from bsipatch.device.policy import Wait
from bsipatch.device.telemetry import record
from bsipatch.fleet import model
from tests.support.stores import new_store, update
from tests.support.trees import OLD_FRAMEWORK, write_tree
from tests.support.updates import key
from tests.unit.test_telemetry_fleet import outcome, reported

from .conftest import Cli

__all__ = ["update"]

pytest.importorskip("bsipatch._core._bsipatch")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store, named by the environment; nothing is managed."""
    root = tmp_path / "store"
    with new_store(root, write_tree(tmp_path / "base", OLD_FRAMEWORK)):
        pass
    monkeypatch.setenv("BSIPATCH_STORE", str(root))
    monkeypatch.setattr(policy_files, "MANAGED", tmp_path / "etc")
    return root


@pytest.fixture
def manage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a managed file; the tests' user is its administrator."""
    monkeypatch.setattr(policy_files, "_trusted", lambda fd, path, owner: None)

    def put(**values: object) -> Path:
        (tmp_path / "etc").mkdir(exist_ok=True)
        file = tmp_path / "etc" / "managed.json"
        file.write_text(json.dumps({"format": 1, **values}))
        return file

    return put


def test_the_switch(cli: Cli, store: Path) -> None:
    assert cli("auto").out == "Automatic installation is on\n"
    told = cli("auto", "off", "--json").told
    assert (told["automatic"], told["managed"]) == (False, False)
    assert (store / "settings.toml").read_text() == "automatic = false\n"
    assert cli("auto", "on").out == "Automatic installation is on\n"
    cli("auto", "maybe", code=2)


def test_a_managed_switch_cannot_be_moved(cli: Cli, store: Path, manage: Any) -> None:
    file = manage(automatic="off", organization="Example University")
    assert "off, set by Example University" in cli("auto").out
    told = cli("auto", "on", "--json", code=54).told
    assert (told["class"], told["file"]) == ("PolicyError", str(file))
    assert not (store / "settings.toml").exists()


def test_what_is_forbidden_is_so_without_a_feed(cli: Cli, store: Path, manage: Any) -> None:
    assert cli("install", "--json", code=4).told["class"] == "NotFoundError"
    file = manage(install="forbidden", organization="Example University")
    for line in (("install",), ("install", "WebKit-1-a-0123456789ab"), ("install", "--offline")):
        told = cli(*line, "--json", code=54).told
        assert (told["class"], told["file"]) == ("PolicyError", str(file))
        assert "Example University" in told["message"]


def test_no_store_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BSIPATCH_STORE", raising=False)
    for name in ("auto", "log", "telemetry"):
        cli(name, "--store", tmp_path / "none", code=4)
        assert "--store" in cli(name, code=2).err
    assert "--store" in cli("policy", code=2).err
    cli("policy", "--store", tmp_path / "none", code=4)


def test_policy_explains(cli: Cli, store: Path, manage: Any) -> None:
    file = manage(channel="release", deferral_days=2)
    cli("policy", "--set", "only-idle=true", "--set", "metered=allow")
    told = cli("policy", "--json").told
    assert (told["policy"]["only_idle"], told["policy"]["metered"]) == (True, "allow")
    assert told["managed"] == ["channel", "deferral_days"]
    assert told["origins"]["channel"]["origins"] == [str(file)]
    out = cli("policy", "--explain").out
    assert f"managed-wins: {file}" in out
    assert "deferral_days: 2" in out
    assert "default: nobody says anything" in out
    assert "this is the owner's choice" in out
    assert not [line for line in out.splitlines() if len(set(line.split(": "))) == 1]
    assert "[managed by the administrator]" in cli("policy").out


def test_settings_are_set_and_taken_away(cli: Cli, store: Path, manage: Any) -> None:
    hours = 'quiet_hours=[{from = "22:00", to = "06:00"}]'
    told = cli("policy", "--set", hours, "--set", "channel=beta", "--json").told
    assert told["policy"]["quiet_hours"] == [{"from": "22:00", "to": "06:00"}]
    assert told["policy"]["channel"] == "beta"
    assert cli("policy", "--set", "channel=", "--json").told["policy"]["channel"] == "release"
    manage(channel="release")
    cli("policy", "--set", "channel=beta", code=54)
    manage()
    for wrong in ("channel=nightly", "bandwidth=-1", "bandwidth=many"):
        before = (store / "settings.toml").read_bytes()
        assert "settings.toml" in cli("policy", "--set", wrong, code=3).err
        assert (store / "settings.toml").read_bytes() == before
    for wrong in ("nonsense=1", "channel", "organization=x"):
        cli("policy", "--set", wrong, code=2)


def test_a_broken_policy_is_named(cli: Cli, store: Path, manage: Any) -> None:
    file = manage(deferral_days=1000)
    for name in ("policy", "auto"):
        told = cli(name, "--json", code=3).told
        assert (told["class"], told["file"]) == ("ConfigError", str(file))
        assert "deferral_days" in told["message"]


def test_files_can_be_checked_and_schemas_printed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("format = 1\nautomatic = 'on'\n")
    assert cli("policy", "--check", file, "--json").told["policy"]["automatic"] == "on"
    file.write_text("format = 1\nautomatic = 3\n")
    assert "automatic" in cli("policy", "--check", file, code=3).err
    cli("policy", "--check", tmp_path / "none", code=4)
    schema = cli("policy", "--schema", "managed", "--json").told["schema"]
    assert json.loads(cli("policy", "--schema", "managed").out) == schema
    assert "deferral_days" in schema["$defs"]["Managed"]["properties"]


def test_one_log(cli: Cli, store: Path) -> None:
    log = Log(store)
    record.check_failed(log, "transfer", "no answer\nfrom anyone")
    record.waiting(log, "u1", [Wait(code="battery", text="3 %")], published=1)
    told = cli("log", "--json").told["entries"]
    assert [entry["event"] for entry in told][-2:] == ["check-failed", "waiting"]
    assert told[0]["source"] == "history"
    assert [e["event"] for e in cli("log", "--level", "warning", "--json").told["entries"]] == [
        "check-failed"
    ]
    assert "no answer\n    from anyone" in cli("log", "-n", "2").out
    assert len(cli("log", "--update", "u1", "--json").told["entries"]) == 1
    record.waiting(log, "Demo-1-a-0123456789ab", [Wait(code="battery", text="3 %")], published=1)
    assert len(cli("log", "--update", "6789ab", "--json").told["entries"]) == 1
    assert cli("log", "--update", "789ab", "--json").told["entries"] == []
    told = cli("log", "--json").told["entries"]
    assert len(cli("log", "--since", "1d", "--json").told["entries"]) == len(told)
    assert cli("log", "--since", "2999-01-01").out == ""
    cli("log", "--since", "soon", code=2)


def test_telemetry(cli: Cli, store: Path, tmp_path: Path) -> None:
    out = cli("telemetry").out
    assert 'bsipatch_info{product="Demo"' in out
    assert cli("telemetry", "--json").told["metrics"] == out
    cli("telemetry", "--textfile", tmp_path / "b.prom")
    assert (tmp_path / "b.prom").read_text() == out
    assert not (store / "report-key").exists()
    cli("telemetry", "--report", code=54)
    cli("policy", "--set", "reports=true")
    line = cli("telemetry", "--report").out
    assert model.decode(line.encode()).product == "Demo"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    good = [reported(n, outcome()) for n in range(30)]
    bad = [reported(100 + n, outcome("reverted", reason="health")) for n in range(10)]
    (folder / "a.jsonl").write_bytes(b"".join(map(model.encode, good)) + b"nonsense\n")
    (folder / "b.json").write_bytes(b"".join(map(model.encode, bad)))
    (folder / "c.txt").write_text("not looked at")
    return folder


def test_fleet_report(cli: Cli, reports: Path, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    told = cli("fleet", "report", reports, "--html", page, "--json").told
    assert (told["devices"], told["refused"]) == (40, 1)
    assert told["pause"] == ["Demo-1-a-0123456789ab"]
    assert told["updates"][0]["states"] == {"protected": 30, "reverted": 10}
    assert "Fleet report: pause 1 of 1 updates" in page.read_text()
    out = cli("fleet", "report", reports).out
    assert "pause: 10 of 40 devices" in out
    assert "failed its health check" in out
    assert cli("fleet", "report", reports, "--failures", 50, "--json").told["pause"] == []
    one = cli("fleet", "report", reports / "a.jsonl", "--json").told
    assert (one["devices"], one["pause"]) == (30, [])
    assert cli("fleet", "report", reports, "--update", "x", "--json").told["updates"] == []


def test_fleet_report_refuses(cli: Cli, reports: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cli("fleet", "report", tmp_path / "empty", code=4)
    cli("fleet", "report", tmp_path / "none", code=4)
    assert "--keys" in cli("fleet", "report", reports, "--pause", tmp_path, code=2).err
    cli("fleet", "report", code=2)
    cli("fleet", code=2)


def test_a_sick_rollout_is_paused_in_its_feed(cli: Cli, tmp_path: Path, update: Path) -> None:
    pytest.importorskip("tuf")
    pytest.importorskip("obstore")
    public = tmp_path / "public.pem"
    public.write_bytes(key().public.pem())
    where = ("--feed", tmp_path / "feed", "--keys", tmp_path / "keys")
    cli("feed", "init", *where, "--no-passphrase")
    cli("feed", "add", update, *where, "--trust", public, "--percent", "5,100")

    def offered() -> dict[str, str]:
        channels = cli("feed", "status", *where, "--json").told["channels"]
        found = channels["developer"][0]["offers"][0]
        return {"id": found["offer"]["id"], "state": found["state"]}

    offer = offered()
    sick = tmp_path / "sick.jsonl"
    outcomes = [reported(n, outcome("failed", id=offer["id"], ring=5)) for n in range(9)]
    sick.write_bytes(b"".join(map(model.encode, outcomes)))
    pausing = ("fleet", "report", sick, "--pause", tmp_path / "feed", "--keys", tmp_path / "keys")

    told = cli(*pausing, "--dry-run", "--json").told["paused"]
    assert (told[0]["id"], told[0]["paused"]) == (offer["id"], False)
    assert offered()["state"] == "rollout"
    cli(*pausing, "--failures", 99.9, "--least", 10)
    assert offered()["state"] == "rollout"
    assert f"Paused {offer['id']}" in cli(*pausing).out
    assert offered()["state"] == "paused"
    # once more: told, and no error, for this runs from a timer
    told = cli(*pausing, "--json").told["paused"]
    assert (told[0]["paused"], "paused already" in told[0]["reason"]) == (False, True)
