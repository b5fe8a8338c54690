"""`bsipatch agent --once`, and what other commands say of a device with a feed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import policy as policies
from bsipatch.device import policy_files, schedule
from bsipatch.device.agent import memo as memos
from bsipatch.device.agent import single
from bsipatch.device.following import follow
from bsipatch.device.logs import Log
from bsipatch.device.state.config import FeedConfig
from bsipatch.feed.model import Withdrawal
from bsipatch.store import Store
from tests.cli.conftest import Cli, _no_settings, cli
from tests.support.mirrors import Handler, Server, serving
from tests.support.served import ME, manage, managed
from tests.support.stores import base, store
from tests.support.trials import command
from tests.support.tuf_feeds import DAY, Repository, update

__all__ = ["_no_settings", "base", "cli", "managed", "store"]


@pytest.fixture
def repository() -> Repository:
    return Repository(now=int(time.time()))


@pytest.fixture
def server(
    store: Store, repository: Repository, managed: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A followed feed without improvements, and a folder that stands for /etc/bsipatch."""
    monkeypatch.setenv("BSIPATCH_STORE", str(store.root))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    read = policy_files.read_managed
    monkeypatch.setattr(
        policies.policy_files,
        "read_managed",
        lambda folder, owner, limits: read(managed, owner=ME, limits=limits),
    )
    with serving(repository.files) as started:
        follow(
            store.root,
            FeedConfig(mirrors=(started.url,), channel="release", proxy=""),
            root=repository.roots[0],
            name="one",
        )
        yield started


def publish(repository: Repository, **changes: Any) -> tuple[str, str]:
    """An improvement: its id and path."""
    made, data = update(expires=None, **changes)
    path = repository.add(made, data)
    repository.publish()
    return made.id, path


def test_a_run_and_a_run_too_early(
    cli: Cli, server: Server, repository: Repository, store: Store
) -> None:
    name, _ = publish(repository)
    told = cli("agent", "--once", "--json").told
    assert told["steps"] == [{"do": "check", "update": None}, {"do": "install", "update": name}]
    assert (told["standing"], told["display"]) == ("current", "26.3.1 (a)")
    assert told["waits_for"] == "nothing but the next check"
    asked = len(server.asked)
    early = cli("agent", "--once", "--json").told
    assert (early["steps"], early["until"]) == ([], told["until"])
    assert "Nothing is due" in cli("agent", "--once").out
    assert len(server.asked) == asked
    assert "check" in cli("agent", "--once", "--now").out
    assert len(server.asked) > asked


def test_a_run_without_a_store_or_a_feed(cli: Cli, store: Store, tmp_path: Path) -> None:
    assert cli("agent", "--once", "--json", "--store", tmp_path / "no", code=4).told["error"]
    told = cli("agent", "--once", "--json", "--store", store.root).told
    assert (told["steps"], told["waits_for"]) == ([], "no feed is followed")


@pytest.mark.parametrize("wrong", [("--once", "--metrics", "127.0.0.1:1"), ("--now",)])
def test_options_that_do_not_go_together(cli: Cli, store: Store, wrong: tuple[str, ...]) -> None:
    assert cli("agent", *wrong, "--json", "--store", store.root, code=2).told["error"] == "usage"


def test_a_second_agent_is_refused(cli: Cli, server: Server, store: Store) -> None:
    fd = single.lock(store.root)
    told = cli("agent", "--once", "--json", code=61).told
    os.close(fd)
    assert "another agent" in told["message"]


def test_status_never_calls_it_up_to_date_while_something_waits(
    cli: Cli, server: Server, repository: Repository, store: Store
) -> None:
    def device() -> Any:
        return cli("status", "--json").told["device"]

    assert (device()["standing"], device()["up_to_date"]) == ("unknown", False)
    assert "never" in cli("status").out
    cli("check")
    assert device()["up_to_date"]
    cli("auto", "off")
    name, path = publish(repository)
    cli("agent", "--once", "--now")
    found = device()
    assert (found["standing"], found["up_to_date"]) == ("available", False)
    assert [one["id"] for one in found["listed"]] == [name]
    assert "switched off" in found["waits"][0]
    assert "switched off" in found["agent"]["waits_for"]
    out = cli("status").out
    assert re.search(r"^Available +26\.3\.1 \(a\)", out, re.M)
    assert "CVE-2026-20643" in out
    cli("install")
    assert (device()["standing"], device()["last_result"]["event"]) == ("current", "installed")
    cli("remove")
    assert (device()["standing"], device()["up_to_date"]) == ("removed", False)
    assert name in cli("status").out
    cli("install", name)
    notice = Withdrawal(
        reason="pages stay blank",
        at=int(time.time()),
        revert_installed=True,
        to="baseline",
        expires=int(time.time()) + 90 * DAY,
    )
    repository.change(path, withdrawn=notice)
    repository.publish()
    cli("check")
    assert device()["withdrawn"] == "pages stay blank"
    assert "pages stay blank" in cli("status").out
    assert cli("agent", "--once", "--now", "--json").told["steps"][1]["do"] == "withdraw"
    assert store.live().number == 0


def test_status_while_the_server_is_away(cli: Cli, server: Server, repository: Repository) -> None:
    cli("check")

    def away(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.answer(503, b"")
        return True

    server.behaviour = away
    told = cli("agent", "--once", "--now", "--json").told
    assert told["standing"] == "unknown"
    found = cli("status", "--json").told["device"]
    assert (found["standing"], found["up_to_date"]) == ("unknown", False)
    assert found["checks"]["failures"] == 1
    assert "1 failed since" in cli("status").out


def test_status_shows_what_the_agent_could_not_install(
    cli: Cli, server: Server, repository: Repository, store: Store
) -> None:
    publish(repository)
    cli("check")
    memos.save(store.root, memos.Memo(failures=3, error="the disk is full"))
    assert "3 times, tried again: the disk is full" in cli("status").out


def test_status_of_a_store_without_a_feed_is_as_before(cli: Cli, store: Store) -> None:
    assert cli("status", "--store", store.root, "--json").told["device"] is None


def test_a_sick_one_is_told(cli: Cli, server: Server, repository: Repository) -> None:
    publish(repository, health=(command("exit 3"),))
    told = cli("agent", "--once", "--json").told
    assert (told["standing"], told["display"]) == ("not-offered", "26.3.1")
    status = cli("status", "--json").told
    assert status["barred"][0]["why"] == "health"
    assert not status["device"]["up_to_date"]


def test_check_and_install_by_hand_are_written_down(
    cli: Cli, server: Server, repository: Repository, store: Store
) -> None:
    name, _ = publish(repository)
    cli("check")
    known = schedule.load(store.root / schedule.NAME)
    assert known is not None
    assert known.last_success is not None
    cli("install")
    events = [entry.event for entry in Log(store.root).read()]
    assert events == ["check", "installed"]
    cli("check", "--offline")
    assert [entry.event for entry in Log(store.root).read()] == events
    cli("remove")
    last = Log(store.root).read()[-1]
    assert (last.event, last.update) == ("taken-off", name)


@pytest.mark.parametrize("verb", ["remove", "revert"])
def test_removing_can_be_forbidden(
    cli: Cli, server: Server, repository: Repository, store: Store, managed: Path, verb: str
) -> None:
    publish(repository)
    cli("install")
    manage(managed, 'removal = "forbidden"')
    told = cli(verb, "--json", code=54).told
    assert "Example School" in told["message"]
    assert told["file"] == str(managed / "managed.toml")
    assert store.live().number == 1
    manage(managed, "")
    cli(verb)
    assert store.live().number == 0
