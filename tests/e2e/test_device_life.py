"""The life of a device, from the switch to the next base.

Asserted at each station by the commands' JSON, the local interface and the settings page in a
real browser.  Where there is none, test_the_page_is_seen says so and the rest goes on.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.agent.working import Agent
from bsipatch.device.conditions import Answer
from bsipatch.device.policy_schema import DAYS
from tests.support import chromium
from tests.support.served import Says

from .device_life import Life, begin, follow, generated, until, with_next_base
from .life_page import Interface, Page, interface, page

IN_USE = Answer(name="idle", ok=False, code="idle", text="in use: somebody is using it")


@pytest.mark.skipif(
    bool(chromium.missing()),
    reason=f"THE PAGE IS NOT SEEN IN THE LIFE OF A DEVICE: {chromium.missing()}",
)
def test_the_page_is_seen() -> None:
    """Says aloud what the lives below leave out."""


@pytest.mark.timeout(600)
def test_the_life_of_a_device(tmp_path: Path) -> None:
    live_through(begin(tmp_path, generated(tmp_path)))


@pytest.mark.corpora
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_life_of_a_device_with_a_real_framework(corpora: Path, tmp_path: Path) -> None:
    folder = corpora / "frameworks-macos"
    old, new = folder / "6.9.1/QtCore.framework", folder / "6.9.2/QtCore.framework"
    if not old.is_dir() or not new.is_dir():
        pytest.skip(f"{old} or {new} has not been fetched")
    trees = {"base": old, "a": new}
    for name in ("b", "c"):
        trees[name] = tmp_path / name
        shutil.copytree(new, trees[name], symlinks=True)
        (trees[name] / "Versions/A/Resources/note.txt").write_text(f"improvement {name}\n")
    live_through(begin(tmp_path, with_next_base(tmp_path, trees)))


def live_through(life: Life) -> None:
    """All of it."""
    with life.serving() as server:
        follow(life, server.url)
        with interface(life) as api, page(life) as shown:
            live_with(life, api, shown)
        assert "Traceback" not in (life.folder / "agent.stderr").read_text()


def live_with(life: Life, api: Interface, shown: Page) -> None:
    """All of it, before everybody's eyes."""
    it_waits_for_the_end_of_quiet_hours(life, api, shown)
    it_fetches_while_in_use_and_installs_when_idle(life, api, shown)
    with life.resident("--every", "1") as agent:
        until(lambda: agent.state()["standing"] == "current", "the resident agent's first look")
        what_fails_its_check_reverts_and_is_barred(life, agent, shown)
        what_is_withdrawn_goes(life, agent, shown)
        what_its_owner_takes_off_stays_off(life, agent, shown)
        the_base_moves_on(life, agent, shown)
        assert agent.end() == 0


def it_waits_for_the_end_of_quiet_hours(life: Life, api: Interface, shown: Page) -> None:
    assert life.status()["device"]["standing"] == api.state()["standing"] == "unknown"
    shown.says(head="Not known", absent="up to date")
    assert life.tell("auto", "on")["automatic"]
    assert api.state()["automatic"]
    assert shown.switch() in ("true", "")
    assert life.agent()["standing"] == api.state()["standing"] == "current"
    assert life.status()["device"]["up_to_date"]
    shown.says(head="Demo 26.3.1 is up to date", installed="without any improvement")
    life.tell("policy", "--set", f"quiet_hours={quiet_days()}")
    life.publish("a")
    rest = life.agent()
    assert "quiet hours" in rest["waits_for"]
    status = life.status()
    assert (status["device"]["standing"], status["device"]["up_to_date"]) == ("available", False)
    (one,) = api.state()["listed"]
    assert [why["code"] for why in one["why"]] == ["quiet-hours"]
    shown.says(
        head="An improvement is available: 26.3.1 (a)",
        text="It will be installed automatically later. Quiet hours, until",
        offers=("Demo 26.3.1 (a)", "Why it is not installed automatically now", "Quiet hours"),
        absent="up to date",
    )
    life.tell("policy", "--set", "quiet_hours=")
    assert life.live_tree() == "base"


def it_fetches_while_in_use_and_installs_when_idle(life: Life, api: Interface, shown: Page) -> None:
    with Agent(life.store, conditions=Says(IN_USE)) as agent:
        rest = agent.work(now=True)
    assert "somebody is using it" in rest.why
    status = life.status()
    assert status["display"] == "26.3.1"
    assert (status["device"]["standing"], status["device"]["up_to_date"]) == ("available", False)
    assert status["device"]["agent"]["waits_for"] == rest.why
    assert api.state()["listed"][0]["installable"]
    shown.says(
        head="An improvement is available: 26.3.1 (a)",
        text="It will be installed automatically.",
        history=("Downloaded", "Waits"),
        absent="up to date",
    )
    asked = len(life.server.payloads_asked())  # type: ignore[union-attr]
    assert asked == 1
    done = life.agent()
    assert [step["do"] for step in done["steps"]] == ["check", "install"]
    assert len(life.server.payloads_asked()) == asked  # type: ignore[union-attr]
    assert life.live_tree() == "a"
    status = life.status()
    assert (status["display"], status["trial"]) == ("26.3.1 (a)", None)
    assert status["device"]["up_to_date"]
    assert status["device"]["last_result"]["event"] == "installed"
    installed = api.state()["installed"]
    assert (installed["display"], installed["improvement"]) == ("26.3.1 (a)", True)
    shown.says(
        head="Demo 26.3.1 (a) is up to date",
        installed=("Demo 26.3.1 (a)", "Build 1a"),
        history=("Installed", "Proved itself"),
    )
    # it was on trial, and is good
    assert [event["event"] for event in history(life)][-2:] == ["apply", "good"]


def what_fails_its_check_reverts_and_is_barred(life: Life, agent: Any, shown: Page) -> None:
    life.publish("b")
    until(lambda: history(life)[-1]["event"] == "failed", "its end")
    assert life.live_tree() == "a"
    assert history(life)[-2]["event"] == "unhealthy"
    assert "self-test" in history(life)[-2]["reason"]
    assert [bar["why"] for bar in life.status()["barred"]] == ["health"]
    state = agent.state()
    assert state["installed"]["display"] == "26.3.1 (a)"
    (one,) = state["listed"]
    assert one["standing"] == "refused"
    assert [why["code"] for why in one["why"]] == ["barred"]
    assert state["standing"] == "not-offered"
    shown.says(
        head="none for this device",
        installed="Demo 26.3.1 (a)",
        refused=("Demo 26.3.1 (b)", "self-test"),
        history=("A check failed", "Failed", "self-test"),
        absent="up to date",
    )
    refused = life.tell("install", life.ids["b"], code=54)
    assert "self-test" in refused["message"]


def what_is_withdrawn_goes(life: Life, agent: Any, shown: Page) -> None:
    life.withdraw("a", "pages stay blank")
    until(lambda: life.status()["display"] == "26.3.1", "the way back")
    assert life.live_tree() == "base"
    assert "pages stay blank" in history(life)[-1]["reason"]
    entries = life.tell("log", "--update", life.ids["a"])["entries"]
    assert entries[-1]["event"] == "taken-off"
    assert "pages stay blank" in entries[-1]["text"]
    told = [one["text"] for one in agent.state()["history"]]
    assert any("pages stay blank" in text for text in told)
    assert not agent.state()["installed"]["improvement"]
    shown.says(
        installed="Demo 26.3.1, without any improvement",
        history=("Reverted", "pages stay blank"),
        refused=("Demo 26.3.1 (a)", "withdrawn", "pages stay blank"),
        absent="up to date",
    )
    # the notice stands: neither the agent nor its owner gets it from the feed again
    assert "withdrawn" in life.tell("install", life.ids["a"], code=54)["message"]


def what_its_owner_takes_off_stays_off(life: Life, agent: Any, shown: Page) -> None:
    life.publish("c")
    until(lambda: life.status()["display"] == "26.3.1 (c)", "the third improvement")
    assert life.live_tree() == "c"
    shown.says(installed="Demo 26.3.1 (c)")
    # by the interface, as the settings page does it; while the agent works it is refused
    removal = {"reason": "it does not print", "wait": True}
    until(lambda: "outcome" in agent.ask("POST", "/v1/remove", removal), "the removal")
    assert "it does not print" in [event.get("reason") for event in history(life)]
    checked = agent.state()["checks"]["last"]
    until(lambda: agent.state()["checks"]["last"] > checked, "another check")
    status = life.status()
    assert (status["display"], status["device"]["standing"]) == ("26.3.1", "removed")
    assert not status["device"]["up_to_date"]
    assert agent.state()["standing"] == "removed"
    shown.says(
        head="An improvement was removed: 26.3.1 (c)",
        text="It stays off until you install it again",
        offers="You removed this improvement.",
        installed="Demo 26.3.1, without any improvement",
        history=("Removed", "it does not print"),
        absent="up to date",
    )
    life.tell("install", life.ids["c"])
    assert life.live_tree() == "c"
    until(lambda: agent.state()["standing"] != "removed", "the state after it")
    assert agent.state()["installed"]["display"] == "26.3.1 (c)"
    shown.says(installed="Demo 26.3.1 (c)", history="Installed")


def the_base_moves_on(life: Life, agent: Any, shown: Page) -> None:
    done = adopt(life)
    (live,) = [item for item in done["retired"] if item["live"]]
    assert (live["display"], live["contained"]) == ("26.3.1 (c)", True)
    assert life.live_tree() == "next"
    checked = agent.state()["checks"]["last"]
    until(lambda: (agent.state()["checks"]["last"] or "") > checked, "a check of the new store")
    status = life.status()
    assert status["display"] == "26.3.2"
    assert not status["device"]["waits"]
    assert status["device"]["standing"] in ("current", "not-offered")
    assert agent.state()["installed"]["display"] == "26.3.2"
    shown.says(product="Demo 26.3.2", installed="Demo 26.3.2, without any improvement")
    assert life.tell("check-store")["ok"]


def quiet_days() -> str:
    """Quiet hours that hold from yesterday to tomorrow, whenever the test runs."""
    today = datetime.now().astimezone().weekday()  # as the wall clock has it
    days = json.dumps([DAYS[(today + n) % 7] for n in (-1, 0, 1)])
    pairs = (("00:00", "12:00"), ("12:00", "00:00"))
    return str([f'{{from = "{a}", to = "{b}", days = {days}}}' for a, b in pairs]).replace("'", "")


def adopt(life: Life) -> Any:
    """Adopts the next base, as soon as the agent has nothing under way."""
    from .journey import COMMAND, environment

    answer: dict[str, Any] = {}

    def adopted() -> bool:
        import subprocess

        line = [*COMMAND, "adopt", str(life.trees["next"]), "--version", "26.3.2", "--build", "2"]
        out = subprocess.run(
            [*line, "--store", str(life.store), "--json"],
            env=environment(),
            capture_output=True,
            check=False,
        )
        answer.update(json.loads(out.stdout))
        return bool(answer["ok"]) or answer["error"] != "store-busy"

    until(adopted, "a moment in which the store is free")
    assert answer["ok"], answer
    return answer


def history(life: Life) -> Any:
    """The store's."""
    return life.tell("history")["events"]
