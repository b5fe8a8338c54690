"""apply, revert, remove, allow, recover and the boot commands, as people and machines see them."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from bsipatch.store import Store
from tests.cli.conftest import Cli
from tests.support.stores import new_store
from tests.support.trees import OLD_FRAMEWORK, write_tree
from tests.support.trials import RESTART, command, update_with

UNITS = Path(__file__).resolve().parents[2] / "packaging/systemd"


@pytest.fixture
def device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that every command here is about; updates of these tests do not expire."""
    base = write_tree(folder / "base", OLD_FRAMEWORK)
    with new_store(folder / "store", base) as store:
        monkeypatch.setenv("BSIPATCH_STORE", str(store.root))
        yield store


def _update(folder: Path, *health: object, **changes: object) -> Path:
    return update_with(folder / "a.bsi", *health, expires=None, **changes)


def test_a_healthy_update_says_what_was_checked(cli: Cli, device: Store, folder: Path) -> None:
    path = _update(folder, command("exit 0", name="page"))
    told = cli("apply", path, "--json").told
    (check,) = told["health"]
    assert (check["check"], check["passed"], check["problem"]) == ("page", True, None)
    assert told["trial"] is None
    assert "page" in cli("history").out


def test_a_sick_update_ends_with_90_and_is_barred(cli: Cli, device: Store, folder: Path) -> None:
    path = _update(folder, command("echo blank page; exit 3", name="page"))
    ended = cli("apply", path, code=90)
    assert "page ended with exit code 3; it wrote: blank page" in ended.err
    assert "The previous generation is live again." in ended.err
    told = cli("status", "--json").told
    assert (told["generation"], told["barred"][0]["display"]) == (0, "26.3.1 (a)")
    assert "Barred" in cli("status").out
    assert "barred since" in cli("apply", path, code=54).err
    assert cli("apply", path, "--even-if-barred", "--json", code=90).told["class"] == "HealthError"
    assert "Allowed: 26.3.1 (a)" in cli("allow", "a").out
    cli("allow", "a", code=4)
    assert cli("apply", path, "--no-health", "--json").told["generation"] > 0


def test_a_sick_update_shows_in_the_rehearsal_alone(cli: Cli, device: Store, folder: Path) -> None:
    path = _update(folder, command("echo blank page; exit 3", name="page"))
    ended = cli("rehearse", path, code=90)
    assert ended.err.startswith(f"bsipatch: {device.root}: the health check failed: page ended")
    assert ended.err.endswith("Nothing was activated: what is live was not touched.\n")
    assert "live again" not in ended.err
    assert cli("status", "--json").told["barred"] == []


def test_remove_says_why_and_who(cli: Cli, device: Store, folder: Path) -> None:
    cli("apply", _update(folder))
    told = cli("remove", "--reason", "prints badly", "--json").told
    assert (told["generation"], told["display"]) == (0, "26.3.1")
    event = cli("history", "--last", "1", "--json").told["events"][0]
    assert (event["event"], event["reason"]) == ("remove", "prints badly")
    assert event["by"]
    assert "prints badly" in cli("history").out
    assert cli("allow", "all", "--json").told["allowed"][0]["why"] == "owner"
    cli("remove", code=62)


def test_a_restart_from_apply_to_good(cli: Cli, device: Store, folder: Path) -> None:
    path = _update(folder, command("exit 0"), activation=RESTART)
    assert "until the next restart has gone well" in cli("apply", path).out
    assert "It is on trial" in cli("apply", path).out
    assert "On trial" in cli("status").out
    assert cli("boot-ok", "--json").told["state"] == "waiting"
    assert cli("boot-begin", "--boot-id", "1", "--json").told["trial"]["tries"] == 2
    assert "2 more starts" in cli("boot-mark", "running", "--boot-id", "1").out
    assert cli("status", "--json").told["trial"]["start"] == "running"
    told = cli("boot-ok", "--boot-id", "1", "--json").told
    assert (told["state"], told["health"][0]["passed"]) == ("good", True)
    assert cli("status", "--json").told["trial"] is None
    assert "nothing is on trial" in cli("boot-begin", "--boot-id", "2").out


def test_starts_that_fail_come_back_without_an_error(
    cli: Cli, device: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("apply", _update(folder, activation=RESTART))
    states = []
    for start in range(4):
        monkeypatch.setenv("BSIPATCH_BOOT_ID", str(start))
        states.append(cli("boot-begin", "--json").told["state"])
        cli("boot-mark", "running")
    assert states == ["trial", "trial", "trial", "reverted"]
    assert cli("status", "--json").told["generation"] == 0


def test_recover_explains_what_it_found_and_did(cli: Cli, device: Store, folder: Path) -> None:
    assert "Nothing was left unfinished." in cli("recover").out
    assert cli("recover", "--json").told["clean"]
    (device.root / "generations/7.tmp/tree").mkdir(parents=True)
    told = cli("recover", "--json").told
    assert told["found"] == ["generations/7.tmp"]
    assert told["done"] == ["removed generations/7.tmp, left by an interrupted run"]
    (device.root / "trash").mkdir()
    assert "Found trash" in cli("recover").out


def test_marks_are_named(cli: Cli, device: Store) -> None:
    assert "running" in cli("boot-mark", "hurrying", code=2).err


@pytest.mark.parametrize("path", sorted(UNITS.glob("bsipatch-boot-*")), ids=lambda p: p.name)
def test_the_units_call_commands_that_exist(path: Path) -> None:
    from bsipatch.cli._app import COMMANDS

    unit = ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    assert unit["Unit"]["Description"]
    if path.suffix == ".timer":
        assert (UNITS / f"{path.stem}.service").exists()
        return
    for key in ("ExecStart", "ExecStop"):
        line = unit["Service"].get(key)
        if line is not None:
            program, name, *rest = line.removeprefix("/usr/bin/env ").split()
            assert (program, rest[-2:]) == ("bsipatch", ["--store", "%f"])
            assert name in COMMANDS


def test_a_group_from_adopting_to_removing(cli: Cli, folder: Path) -> None:
    base = write_tree(folder / "base", OLD_FRAMEWORK)
    path = _update(folder, command("exit 0"))
    for name in ("one", "two"):
        place = folder / "all/components" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        new_store(place, base).close()
        cli("group", "apply", "all", f"{name}={path}", code=62)
        assert name in cli("group", "adopt", "all", name).out
    told = cli("group", "apply", "all", f"one={path}", f"two={path}", "--json").told
    assert {item["letter"] for item in told["components"].values()} == {"a"}
    assert "26.3.1 (a)" in cli("group", "status", "all").out
    told = cli("group", "remove", "all", "--reason", "enough", "--json").told
    assert {item["generation"] for item in told["components"].values()} == {0}
    cli("group", "revert", "all", code=62)
    for wrong in (("apply", "all"), ("apply", "all", "one"), ("status", "all", "one")):
        cli("group", *wrong, code=2)
    cli("group", "apply", "all", f"one={path}", f"one={path}", code=2)
