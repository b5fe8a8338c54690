"""What the agent does next, for everything that it can see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bsipatch.device.agent.deciding import (
    AGAIN,
    PATIENCE,
    SETTLED,
    Do,
    Seen,
    Step,
    decide,
)
from bsipatch.device.agent.memo import Memo
from bsipatch.device.service_state import Listed, Process, Why
from bsipatch.device.service_view import stamp
from bsipatch.manifest import Activation

NOW = 1_780_000_000.0
ID = "Demo-26.3.1-a-0123456789ab"
SAFARI = (Process(name="Safari", pid=17), Process(name="Safari", pid=18))
QUIET = Seen(now=NOW, due=3600.0, live="26.3.1")
EVERY: tuple[Do, ...] = ("recover", "judge", "check", "withdraw", "tell", "fetch", "install")


def why(code: str, *, until: float | None = None) -> Why:
    return Why(code=code, text=f"held by {code}", until=stamp(until))


def listed(*held: Why, **more: Any) -> Listed:
    fields: dict[str, Any] = {
        "id": ID,
        "display": "26.3.1 (a)",
        "build": "1a",
        "standing": "available",
        "installable": True,
        "kind": "direct",
        "size": 1000,
        "space": 2000,
        "published": "2026-05-01T00:00:00Z",
        "activation": Activation(scope="relaunch", processes=("Safari",)),
        "why": held,
    }
    return Listed(**{**fields, **more})


def seen(*items: Listed, **more: Any) -> Seen:
    return replace(QUIET, listed=items, **more)


def test_nothing_to_do_is_a_rest_until_the_next_check() -> None:
    assert decide(QUIET) == Step("rest", until=NOW + 3600, why="nothing but the next check")


def test_the_order_of_what_is_urgent() -> None:
    everything = seen(
        listed(),
        due=0.0,
        unfinished=True,
        trial="starting",
        withdrawn=True,
        memo=Memo(relaunch="26.3.1 (a)"),
    )
    tried: frozenset[Do] = frozenset()
    order = []
    while (step := decide(everything, tried)).do != "rest":
        order.append(step.do)
        tried |= {step.do}
    assert order == ["recover", "judge", "check", "withdraw", "tell"]
    # what was tried in vain is tried again soon, not at the next check
    assert step.until == NOW + AGAIN


@pytest.mark.parametrize("step", EVERY)
def test_every_step_is_tried_once_a_run(step: Do) -> None:
    everything = seen(listed(), due=0.0, unfinished=True, trial="starting", withdrawn=True)
    assert decide(everything, frozenset(EVERY)).do == "rest"
    assert decide(everything, frozenset(EVERY) - {step}).do in (step, "rest")


def test_what_nothing_holds_is_installed() -> None:
    assert decide(seen(listed())) == Step("install", ID)
    after = decide(seen(listed()), frozenset(("install",)))
    assert after.do == "rest"
    assert "26.3.1 (a)" in after.why


@pytest.mark.parametrize("code", ["policy", "deferred", "quiet-hours", "metered", "battery"])
def test_what_policy_or_surroundings_hold_is_not_even_fetched(code: str) -> None:
    step = decide(seen(listed(why(code))))
    assert step.do == "rest"
    assert step.why == f"26.3.1 (a) waits: held by {code}"


def test_while_the_machine_is_used_it_is_fetched_once() -> None:
    busy = seen(listed(why("idle")))
    assert decide(busy) == Step("fetch", ID)
    fetched = replace(busy, memo=Memo(update=ID, fetched=True))
    assert decide(fetched).do == "rest"
    assert decide(fetched).until == NOW + 300  # idleness is asked for again
    # what was fetched of another improvement does not count
    assert decide(replace(busy, memo=Memo(update="other", fetched=True))).do == "fetch"


def test_a_wait_that_ends_by_itself_ends_the_rest() -> None:
    step = decide(seen(listed(why("quiet-hours", until=NOW + 600))))
    assert (step.do, step.until) == ("rest", NOW + 600)
    gone = decide(seen(listed(why("quiet-hours", until=NOW - 600))))
    assert gone.until == NOW + 3600


def test_a_deadline_ends_the_rest() -> None:
    step = decide(seen(listed(why("idle"), by=stamp(NOW + 60)), memo=Memo(update=ID, fetched=True)))
    assert step.until == NOW + 60


def test_running_programs_are_waited_for_but_not_for_ever() -> None:
    running = seen(listed(), programs=SAFARI)
    assert decide(running) == Step("fetch", ID)
    memo = Memo(update=ID, fetched=True, ready=NOW)
    step = decide(replace(running, memo=memo))
    assert (step.do, step.pids) == ("rest", (17, 18))
    assert step.why == "26.3.1 (a) is installed when Safari ended"
    late = replace(running, memo=memo, now=NOW + PATIENCE)
    assert decide(late) == Step("install", ID)
    assert decide(replace(running, listed=(listed(enforced=True),))) == Step("install", ID)


def test_what_failed_is_tried_again_when_its_time_has_come() -> None:
    memo = Memo(update=ID, failures=2, retry=NOW + 90, error="the server is away")
    step = decide(seen(listed(), memo=memo))
    assert (step.do, step.until) == ("rest", NOW + 90)
    assert "the server is away" in step.why
    assert decide(seen(listed(), memo=memo, now=NOW + 90)).do == "install"
    assert decide(seen(listed(id="another"), memo=memo)).do == "install"


def test_nothing_is_installed_over_what_has_yet_to_prove_itself() -> None:
    step = decide(seen(listed(), trial="restart"))
    assert (step.do, step.why) == ("rest", "26.3.1 takes effect with the next restart")
    assert decide(seen(listed(), moved="another tree")).do == "rest"
    assert "another tree" in decide(seen(listed(), moved="another tree")).why


def test_only_the_newest_is_installed() -> None:
    newest = listed(why("battery"), id="newer", display="26.3.1 (b)")
    assert decide(seen(newest, listed())).do == "rest"


def test_who_judges_a_start() -> None:
    start = seen(trial="starting", starts=False, up=10.0)
    assert decide(start).do == "judge"  # nobody else counts the starts of this machine
    counted = replace(start, starts=True)
    rest = decide(counted)
    assert (rest.do, rest.until) == ("rest", NOW + SETTLED - 10)
    assert decide(replace(counted, up=SETTLED)).do == "judge"


def test_an_interrupted_trial_of_a_relaunch_is_finished() -> None:
    assert decide(seen(trial="relaunch")).do == "recover"


def test_a_relaunch_is_watched_and_told() -> None:
    waiting = seen(relaunch=SAFARI, memo=Memo(relaunch="26.3.1 (a)"))
    rest = decide(waiting)
    assert (rest.do, rest.pids) == ("rest", (17, 18))
    assert "Safari" in rest.why
    assert decide(replace(waiting, relaunch=())).do == "tell"


def test_what_cannot_be_looked_at_is_looked_at_again_soon() -> None:
    assert decide(replace(QUIET, unread=True)).until == NOW + AGAIN


def test_a_store_without_a_feed_rests() -> None:
    step = decide(replace(QUIET, due=None))
    assert (step.do, step.why) == ("rest", "no feed is followed")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"listed": (listed(why("battery")),)}, "battery"),
        ({"listed": (listed(why("deferred"), standing="waiting"),)}, "deferred"),
        ({"listed": (listed(standing="removed"),)}, "removed by its owner"),
        ({"trial": "starting", "starts": True, "up": 1.0}, "on trial"),
        ({"problem": "it does not answer"}, "it does not answer"),
        ({"withdrawn": True}, "withdrawn"),
    ],
)
def test_it_never_says_that_all_is_well_while_something_waits(
    changes: dict[str, Any], words: str
) -> None:
    step = decide(replace(QUIET, **changes), frozenset(EVERY))
    assert words in step.why
    assert step.why != "nothing but the next check"
