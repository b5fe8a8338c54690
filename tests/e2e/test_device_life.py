"""The life of a device, from the switch to the next base; asserted by commands and interface."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.agent.working import Agent
from bsipatch.device.conditions import Answer
from tests.support.served import Says

from .device_life import Life, begin, follow, generated, until, with_next_base

IN_USE = Answer(name="idle", ok=False, code="idle", text="in use: somebody is using it")


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
        it_fetches_while_in_use_and_installs_when_idle(life)
        with life.resident("--every", "1") as agent:
            until(lambda: agent.state()["standing"] == "current", "the resident agent's first look")
            what_fails_its_check_reverts_and_is_barred(life, agent)
            what_is_withdrawn_goes(life, agent)
            what_its_owner_takes_off_stays_off(life, agent)
            the_base_moves_on(life, agent)
            assert agent.end() == 0
        assert "Traceback" not in (life.folder / "agent.stderr").read_text()


def it_fetches_while_in_use_and_installs_when_idle(life: Life) -> None:
    assert life.tell("auto", "on")["automatic"]
    assert life.status()["device"]["standing"] == "unknown"
    assert life.agent()["standing"] == "current"
    assert life.status()["device"]["up_to_date"]
    life.publish("a")
    with Agent(life.store, conditions=Says(IN_USE)) as agent:
        rest = agent.work(now=True)
    assert "somebody is using it" in rest.why
    status = life.status()
    assert status["display"] == "26.3.1"
    assert (status["device"]["standing"], status["device"]["up_to_date"]) == ("available", False)
    assert status["device"]["agent"]["waits_for"] == rest.why
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
    # it was on trial, and is good
    assert [event["event"] for event in history(life)][-2:] == ["apply", "good"]


def what_fails_its_check_reverts_and_is_barred(life: Life, agent: Any) -> None:
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
    refused = life.tell("install", life.ids["b"], code=54)
    assert "self-test" in refused["message"]


def what_is_withdrawn_goes(life: Life, agent: Any) -> None:
    life.withdraw("a", "pages stay blank")
    until(lambda: life.status()["display"] == "26.3.1", "the way back")
    assert life.live_tree() == "base"
    assert "pages stay blank" in history(life)[-1]["reason"]
    entries = life.tell("log", "--update", life.ids["a"])["entries"]
    assert entries[-1]["event"] == "taken-off"
    assert "pages stay blank" in entries[-1]["text"]
    told = [one["text"] for one in agent.state()["history"]]
    assert any("pages stay blank" in text for text in told)
    # the notice stands: neither the agent nor its owner gets it from the feed again
    assert "withdrawn" in life.tell("install", life.ids["a"], code=54)["message"]


def what_its_owner_takes_off_stays_off(life: Life, agent: Any) -> None:
    life.publish("c")
    until(lambda: life.status()["display"] == "26.3.1 (c)", "the third improvement")
    assert life.live_tree() == "c"
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
    life.tell("install", life.ids["c"])
    assert life.live_tree() == "c"
    until(lambda: agent.state()["standing"] != "removed", "the state after it")


def the_base_moves_on(life: Life, agent: Any) -> None:
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
    assert life.tell("check-store")["ok"]


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
