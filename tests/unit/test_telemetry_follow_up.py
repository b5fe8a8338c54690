"""What checks and installations leave in the device's log, and so in its report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bsipatch.device.installing import FellBack
from bsipatch.device.logs import Log
from bsipatch.device.telemetry import follow_up, record, report
from bsipatch.errors import HealthError, NewMismatchError
from bsipatch.feed.decide import Reason
from bsipatch.feed.model import Rollout
from bsipatch.feed.paths import Plan

pytest.importorskip("tuf")

from tests.support import feeds

NOW = float(feeds.START + 7200)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def offer(tmp_path: Path) -> Any:
    made = feeds.described(tmp_path).offer
    steps = ((5, feeds.START), (100, feeds.START + 86_400))
    staged = Rollout(start=feeds.START, steps=steps, salt=made.id)
    return msgspec.structs.replace(made, rollout=staged)


def choice(offer: Any, *codes: str) -> Any:
    reasons = tuple(Reason(code, f"because of {code}", {"n": 1}) for code in codes)
    return SimpleNamespace(
        plan=None if codes else Plan((offer,)),
        view=SimpleNamespace(offers=(offer,)),
        reasons=lambda _: reasons,
    )


def events(log: Log) -> list[str]:
    return [entry.event for entry in log.read()]


def test_a_check_says_what_waits_once(log: Log, offer: Any) -> None:
    for _ in range(3):
        follow_up.check(log, choice(offer, "battery", "metered"), now=NOW)
    assert events(log) == ["check", "waiting", "check", "check"]
    follow_up.check(log, choice(offer, "metered"), now=NOW)
    assert events(log)[4:] == ["check", "waiting"]
    entry = log.read()[1]
    assert (entry.update, entry.data["reasons"], entry.data["ring"]) == (
        offer.id,
        ["battery", "metered"],
        5,
    )
    assert entry.text == "because of battery\nbecause of metered"


@pytest.mark.parametrize("code", ["wrong-product", "installed", "superseded", "wrong-baseline"])
def test_what_is_not_for_this_device_does_not_wait(log: Log, offer: Any, code: str) -> None:
    follow_up.check(log, choice(offer, code, "battery"), now=NOW)
    assert events(log) == ["check"]


def test_an_installation_becomes_a_report(log: Log, offer: Any) -> None:
    follow_up.check(log, choice(offer), now=NOW)
    done: Any = SimpleNamespace(
        plan=Plan((offer,)),
        withdrawn=None,
        applied=[SimpleNamespace(size=10, seconds=0.5), SimpleNamespace(size=5, seconds=0.25)],
        fallbacks=[FellBack(ids=("x",), kind="direct", code="old-mismatch", reason="/a/path")],
        received=100,
        full=0,
        live=SimpleNamespace(display="26.3.1 (a)"),
    )
    follow_up.install(log, done, now=NOW + 3600)
    (update,) = report.outcomes(log.read())
    assert (update.state, update.route, update.ring) == ("protected", "direct", 5)
    assert (update.received, update.full) == (100, 100)
    assert (update.applied, update.apply_ms) == (15, 750)
    assert update.fallbacks == ("old-mismatch",)
    assert (update.seen, update.protected) == (NOW // 3600 * 3600, (NOW + 3600) // 3600 * 3600)


def test_a_withdrawal_and_nothing_else(log: Log, offer: Any) -> None:
    gone = SimpleNamespace(offer=offer, notice=SimpleNamespace(reason="crashes"))
    done: Any = SimpleNamespace(plan=None, withdrawn=gone)
    follow_up.install(log, done, now=NOW)
    (entry,) = log.read()
    assert (entry.event, entry.update) == (record.TAKEN_OFF, offer.id)
    assert "crashes" in entry.text


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (HealthError("digest"), "reverted", "health"),
        (NewMismatchError("x", file="/secret/path"), "failed", "new-mismatch"),
    ],
)
def test_a_failure(log: Log, offer: Any, error: Any, state: str, reason: str) -> None:
    follow_up.failure(log, offer, error, now=NOW)
    (update,) = report.outcomes(log.read())
    assert (update.state, update.reason) == (state, reason)
