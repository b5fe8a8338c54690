"""What many reports say together: protection, stragglers, rings, when to pause, the page."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from bsipatch.errors import CorruptError, LimitError
from bsipatch.fleet import model
from bsipatch.fleet.analysis import Threshold, analyse, lower_bound, pause_decision
from bsipatch.fleet.model import Outcome, Report
from bsipatch.report import fleet_page

DAY = 86_400
T0 = 1_800_000_000 // 3600 * 3600


def outcome(state: str = "protected", **more: Any) -> Outcome:
    told: dict[str, Any] = {"id": "Demo-1-a-0123456789ab", "published": T0, "state": state}
    if state == "protected":
        told["protected"] = T0 + 3600
    return msgspec.convert({**told, **more}, Outcome)


def reported(n: int, *updates: Outcome, **more: Any) -> Report:
    told: dict[str, Any] = {
        "device": f"{n:032x}", "period": "2027-01", "made": T0 + DAY, "product": "Demo",
        "platform": "linux", "version": "1", "channel": "release",
    }  # fmt: skip
    return Report(**{**told, **more}, updates=updates)


# --- the gate ---


def test_a_report_comes_back() -> None:
    made = reported(1, outcome(), letter="a")
    assert model.decode(model.encode(made)) == made


BASE = json.loads(model.encode(reported(1, outcome())))
UPDATE = BASE["updates"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"device": "x" * 32},
        {"device": "0" * 33},
        {"device": "0" * 32 + "\n"},
        {"period": "2027-13"},
        {"made": -1},
        {"made": 1 << 50},
        {"made": 1.5},
        {"product": ""},
        {"product": "a\x1b[31m"},
        {"product": "a\u202eb"},
        {"version": "x" * 201},
        {"channel": "nightly"},
        {"hostname": "h"},
        {"updates": [{**UPDATE, "id": "a\nb"}]},
        {"updates": [UPDATE, UPDATE]},
        {"updates": [{**UPDATE, "reason": "/home/x"}]},
        {"updates": [{**UPDATE, "ring": 101}]},
        {"updates": [{**UPDATE, "received": -1}]},
        {"updates": [{name: value for name, value in UPDATE.items() if name != "protected"}]},
        {"updates": [{**UPDATE, "id": str(n)} for n in range(65)]},
    ],
    ids=repr,
)
def test_what_is_no_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptError) as error:
        model.decode(json.dumps({**BASE, **changes}).encode(), file="f", offset=7)
    assert (error.value.file, error.value.offset) == ("f", 7)


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises(CorruptError):
        model.decode(line)


def test_a_report_has_a_size() -> None:
    with pytest.raises(LimitError):
        model.decode(b" " * (model.MOST_BYTES + 1))


def test_a_bad_line_does_not_spoil_a_file() -> None:
    good = model.encode(reported(1, outcome()))
    found = list(model.decode_lines(good + b"nonsense\n\n" + good.rstrip()))
    assert [report is not None for report, _ in found] == [True, False, True]
    error = found[1][1]
    assert error is not None
    assert error.offset == len(good)


# --- the decision ---


@pytest.mark.parametrize(
    ("failed", "tried", "pause"),
    [
        (0, 0, False),
        (0, 10_000, False),
        (1, 1, False),  # one unlucky device
        (2, 2, False),
        (3, 3, True),
        (3, 100, False),  # 3 % seen, but it may well be less than 2 %
        (30, 1000, True),
        (20, 1000, False),  # exactly what is allowed
        (200, 10_000, False),
        (250, 10_000, True),
    ],
)
def test_when_to_pause(failed: int, tried: int, pause: bool) -> None:
    outcomes = [outcome("failed")] * failed + [outcome()] * (tried - failed)
    outcomes += [outcome("waiting")] * 50  # who did not try says nothing
    decision = pause_decision("u", outcomes)
    assert (decision.pause, decision.failed, decision.tried) == (pause, failed, tried)
    assert decision.text.startswith("pause" if pause else "go on")
    assert decision.at_least <= decision.share


def test_the_threshold_can_be_moved() -> None:
    outcomes = [outcome("reverted")] * 5 + [outcome()] * 95
    assert pause_decision("u", outcomes).pause
    assert not pause_decision("u", outcomes, Threshold(failures=0.03)).pause
    assert pause_decision("u", outcomes, Threshold(failures=0.01)).pause
    assert not pause_decision("u", outcomes, Threshold(failures=0.01, least=6)).pause
    assert not pause_decision("u", outcomes, Threshold(failures=0.01, confidence=0.99999)).pause


def test_a_healthy_fleet_is_seldom_paused_and_a_sick_one_soon() -> None:
    draw = random.Random(7)

    def paused(rate: float) -> float:
        runs = 300
        found = 0
        for _ in range(runs):
            failed = sum(draw.random() < rate for _ in range(400))
            found += failed >= 3 and lower_bound(failed, 400, 0.95) > 0.02
        return found / runs

    assert paused(0.02) < 0.12
    assert paused(0.005) == 0
    assert paused(0.06) > 0.9


def test_wilsons_bound_is_the_known_one() -> None:
    assert lower_bound(10, 100, 0.975) == pytest.approx(0.0552, abs=0.0001)
    assert lower_bound(0, 100, 0.95) == 0.0
    assert lower_bound(5, 5, 0.95) == pytest.approx(0.6489, abs=0.0002)


# --- the fleet ---


@pytest.fixture
def reports() -> list[Report]:
    found = [
        reported(n, outcome(protected=T0 + (1 + n % 5) * DAY, ring=5 if n < 20 else 100,
                            route="direct", received=10, full=100, applied=10**6, apply_ms=500),
                 letter="a")
        for n in range(60)
    ]  # fmt: skip
    found += [reported(100 + n, outcome("waiting", reason="battery")) for n in range(10)]
    found += [reported(120 + n, outcome("waiting", reason="not-in-ring")) for n in range(20)]
    found += [
        reported(150 + n, outcome("reverted", reason="health", ring=5, fallbacks=["transfer"]))
        for n in range(10)
    ]
    return found


def test_the_whole(reports: list[Report]) -> None:
    fleet = analyse(reports)
    (one,) = fleet.updates
    assert (fleet.devices, one.devices, one.protected) == (100, 100, 60)
    assert one.protected_share == 0.6
    assert one.curve == tuple((k * DAY, 12 * k) for k in range(1, 6))
    assert one.median_seconds == 3 * DAY
    assert one.stragglers == (("not-in-ring", 20), ("battery", 10), ("health", 10))
    assert one.failures == (("health", 10),)
    assert [(ring.percent, ring.tried, ring.failed) for ring in one.rings] == [
        (5, 30, 10),
        (100, 40, 0),
    ]
    assert (one.received, one.full, one.throughput) == (600, 6000, 2e6)
    assert one.routes == {"direct": 60}
    assert one.fallbacks == (("transfer", 10),)
    assert one.decision.pause
    assert fleet.versions == {"1 (a)": 60, "1": 40}
    assert analyse(reports[::-1]) == fleet


def test_the_newest_report_of_a_device_counts() -> None:
    old = reported(1, outcome("waiting"), made=T0)
    new = reported(1, outcome(), made=T0 + DAY)
    for order in ([old, new], [new, old]):
        fleet = analyse(order)
        assert (fleet.devices, fleet.reports, fleet.updates[0].protected) == (1, 2, 1)


def test_one_liar_does_not_move_the_publication(reports: list[Report]) -> None:
    lie = reported(999, outcome(published=0, protected=1 << 39))
    (one,) = analyse([*reports, lie]).updates
    assert one.published == T0


def test_no_reports() -> None:
    fleet = analyse([])
    assert (fleet.devices, fleet.updates) == (0, ())
    assert "No reports" in fleet_page.render(fleet)


# --- the page ---


class Tags(HTMLParser):
    """Checks that every tag is closed."""

    VOID = frozenset({"meta", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_says_it_all_and_needs_nothing(reports: list[Report]) -> None:
    page = fleet_page.render(analyse(reports, refused=3))
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert "{{" not in page
    for words in ("60.0 %", "Pause", "not in the rollout", "battery too low", "3 lines"):
        assert words in page
    assert page.count("<svg") == 2
    assert not re.search(r"<script|src=|url\(|@import|href=", page)
    assert "nan" not in page.lower().replace("finance", "")


def test_names_from_reports_are_only_text() -> None:
    evil = '<img src=x onerror="alert(1)">&{{body}}'
    page = fleet_page.render(
        analyse([reported(n, outcome(id=evil), version=evil) for n in range(3)])
    )
    assert "<img" not in page
    assert "&lt;img" in page


def test_a_long_curve_is_thinned() -> None:
    many = [reported(n, outcome(protected=T0 + n * 3600)) for n in range(1000)]
    page = fleet_page.render(analyse(many))
    assert page.count("<circle") <= 60
    assert "1,000 of 1,000" in page
