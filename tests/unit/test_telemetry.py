"""The device's log, the view over it, metrics and reports: what they say and never say."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bsipatch.device import withdrawal
from bsipatch.device.logs import NAME, JsonLines, Log, stamp
from bsipatch.device.policy import Wait
from bsipatch.device.policy_merge import merge
from bsipatch.device.policy_schema import Settings
from bsipatch.device.schedule import Schedule
from bsipatch.device.telemetry import metrics, record, report, timeline
from bsipatch.errors import NotFoundError, PolicyError, UsageError
from bsipatch.fleet import model
from bsipatch.store import Event, Generation, Store

NOW = 1_800_000_000.0
HOUR = 3600
ON = merge(Settings(reports=True, channel="beta"))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def live(store: Store) -> Generation:
    return store.status().generation


# --- the log ---


def test_lines_come_back(log: Log) -> None:
    assert log.read() == []
    first = log.write("check", "nothing new", now=NOW)
    second = log.write("waiting", "a\nb", level="warning", update="u", data={"n": [1]}, now=NOW)
    assert log.read() == [first, second]
    assert first.time == "2027-01-15T08:00:00.000Z"
    assert len((log.path).read_bytes().splitlines()) == 2


def test_half_a_line_costs_only_itself(log: Log) -> None:
    kept = log.write("a", "x")
    with log.path.open("ab") as file:
        file.write(b'{"time": "half')
    after = log.write("b", "y")
    assert log.read() == [kept, after]
    with log.path.open("ab") as file:
        file.write(b"\xff\xfe\n[]\n{}\n" + b"[" * 50_000 + b"\n")
    assert log.read() == [kept, after]


def test_it_is_rotated_and_the_one_before_is_kept(tmp_path: Path) -> None:
    log = Log(tmp_path, rotate=2000)
    for n in range(60):
        log.write("n", str(n))
    read = [int(entry.text) for entry in log.read()]
    assert read == list(range(read[0], 60))
    assert len(read) > 10
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [NAME, f"{NAME}.1"]
    assert all(entry.stat().st_size <= 2000 for entry in tmp_path.iterdir())


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path, rotate=1 << 20)

    def work(name: str) -> None:
        for n in range(40):
            Log(tmp_path, rotate=1 << 20).write(name, str(n))

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.read()) == 160


def test_a_huge_line_is_cut_and_a_link_is_not_followed(tmp_path: Path, log: Log) -> None:
    log.write("big", "x" * 5000, data={"y": "z" * 100_000})
    (entry,) = log.read()
    assert (len(entry.text), set(entry.data)) == (1000, {"left_out"})
    other = Log(tmp_path / "b")
    with pytest.raises(NotFoundError):
        other.write("a", "b")
    (tmp_path / "b").mkdir()
    (tmp_path / "victim").write_bytes(b"")
    other.path.symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match=NAME):
        other.write("a", "b")
    assert (tmp_path / "victim").read_bytes() == b""


def test_logging_can_write_the_same_lines() -> None:
    made = logging.LogRecord("bsipatch.x", logging.WARNING, __file__, 1, "a\n%s", ("b",), None)
    told = json.loads(JsonLines().format(made))
    assert (told["event"], told["level"], told["text"]) == ("bsipatch.x", "warning", "a\nb")
    assert "\n" not in JsonLines().format(made)


# --- one view ---


def test_history_and_log_become_one_list() -> None:
    history = [
        Event(time=stamp(NOW), event="init", live=0, display="1.0"),
        Event(time=stamp(NOW + 2), event="failed", live=0, display="1.0", reason="why"),
    ]
    entries = [record_entry("check", NOW + 1)]
    moments = timeline.merged(history, entries)
    assert [one.event for one in moments] == ["init", "check", "failed"]
    assert [one.level for one in moments] == ["info", "info", "error"]
    assert moments[2].text == "1.0 (generation 0)\nwhy"
    assert moments[2].data["reason"] == "why"


def record_entry(event: str, now: float, **more: Any) -> Any:
    from bsipatch.device.logs import Entry

    return Entry(time=stamp(now), event=event, text="t", **more)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90m", NOW - 5400),
        ("2h", NOW - 7200),
        ("3d", NOW - 259_200),
        ("1w", NOW - 604_800),
        ("2027-01-15", NOW - 8 * HOUR),
        ("2027-01-15T08:00Z", NOW),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15T09:00+01:00", NOW),
    ],
)
def test_since(text: str, found: float) -> None:
    assert timeline.since(text, NOW) == found


@pytest.mark.parametrize("text", ["", "soon", "3y", "-3d", "2027-13-01", "9999999d"])
def test_since_refuses_nonsense(text: str) -> None:
    with pytest.raises(UsageError, match="not a moment"):
        timeline.since(text, NOW)


# --- metrics ---


def life(log: Log) -> None:
    """An update waits, falls back, goes on; a second fails; the first is withdrawn."""
    wait = Wait(code="battery", text="3 %")
    record.checked(log, "found a", update="a", data=record.Seen(published=int(NOW)), now=NOW + 60)
    record.waiting(log, "a", [wait], published=int(NOW), ring=5, now=NOW + 100)
    record.installed(
        log,
        "a",
        record.Installation(
            published=int(NOW), ring=5, route="full", received=700, full=1000, applied=5_000_000,
            seconds=2.5, fallbacks=("old-mismatch",),
        ),
        "installed",
        now=NOW + 2 * HOUR,
    )  # fmt: skip
    record.check_failed(log, "transfer", "no answer", now=NOW + 3 * HOUR)
    record.failed(
        log,
        "b",
        record.Failure(published=int(NOW) + HOUR, ring=25, reason="health", reverted=True),
        "reverted",
        now=NOW + 5 * HOUR,
    )
    record.taken_off(log, "a", "withdrawn", "withdrawn", now=NOW + 6 * HOUR)


def samples(text: str) -> dict[str, float]:
    parser = pytest.importorskip("prometheus_client.parser")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            rest = {k: v for k, v in sample.labels.items() if k != "product"}
            name = sample.name.removeprefix("bsipatch_")
            found["/".join([name, *rest.values()])] = sample.value
    return found


def test_metrics_are_what_happened(log: Log, live: Generation) -> None:
    life(log)
    history = [
        Event(time=stamp(NOW), event="init", live=0),
        Event(time=stamp(NOW), event="refused", live=0, error="wrong-baseline"),
        Event(time=stamp(NOW), event="fallback", live=0, error="old-mismatch"),
        Event(time=stamp(NOW), event="unhealthy", live=0),
        Event(time=stamp(NOW), event="revert", live=0),
        Event(time=stamp(NOW), event="revert", live=0, by=withdrawal.PUBLISHER),
    ]
    schedule = Schedule(next_check=NOW + 9, last_check=NOW, failures=2)
    figures = metrics.compute(live, "linux", history, log.read(), schedule)
    found = samples(metrics.render(figures))
    expected = {
        "info/26.3.1//25D2128/linux": 1,
        "installations_total/full": 1,
        "fallbacks_total/old-mismatch": 1,
        "refusals_total/wrong-baseline": 1,
        "reverts_total/health": 1,
        "reverts_total/owner": 1,
        "reverts_total/publisher": 1,
        "events_total/init": 1,
        "received_bytes_total": 700,
        "full_bytes_total": 1000,
        "saved_bytes_total": 300,
        "applied_bytes_total": 5_000_000,
        "apply_seconds_total": 2.5,
        "protection_seconds_count": 1,
        "protection_seconds_sum": 2 * HOUR,
        "protection_seconds_bucket/3600.0": 0,
        "protection_seconds_bucket/21600.0": 1,
        "protection_seconds_bucket/+Inf": 1,
        "check_failures": 2,
        "next_check_seconds": NOW + 9,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not any(name.startswith(("waiting", "last_success")) for name in found)


def test_what_waits_is_a_metric_until_it_is_on(log: Log, live: Generation) -> None:
    wait = [Wait(code="battery", text=""), Wait(code="metered", text="")]
    record.waiting(log, "a", wait, published=int(NOW))
    found = samples(metrics.render(metrics.compute(live, "linux", [], log.read())))
    assert {name for name in found if "waiting" in name} == {"waiting/battery", "waiting/metered"}


def test_labels_cannot_break_the_format(live: Generation) -> None:
    odd = msgspec.structs.replace(live, build='x"} 1\nbsipatch_evil 1\\')
    text = metrics.render(metrics.compute(odd, "p", [], []))
    assert "\nbsipatch_evil" not in text
    assert any('x"} 1\nbsipatch_evil 1\\' in name for name in samples(text))


def test_the_text_file_appears_whole(tmp_path: Path, live: Generation) -> None:
    figures = metrics.compute(live, "linux", [], [])
    metrics.write(tmp_path / "b.prom", figures)
    assert (tmp_path / "b.prom").read_text() == metrics.render(figures)
    assert metrics.render(figures).endswith("\n")


# --- reports ---


def make(log: Log, live: Generation, now: float = NOW + 7 * HOUR, **more: Any) -> model.Report:
    settings: dict[str, Any] = {"policy": ON, "secret": b"s" * 32, "platform": "linux"}
    return report.make(live=live, entries=log.read(), now=now, **{**settings, **more})


def test_a_report_says_what_became_of_each_update(log: Log, live: Generation) -> None:
    life(log)
    made = make(log, live)
    first, second = made.updates
    assert (first.id, first.state, first.reason) == ("a", "withdrawn", "withdrawn")
    assert (first.seen, first.protected) == (NOW, NOW + 2 * HOUR)
    assert (first.route, first.ring, first.fallbacks) == ("full", 5, ("old-mismatch",))
    assert (first.received, first.full, first.apply_ms) == (700, 1000, 2500)
    assert (second.state, second.reason, second.ring) == ("reverted", "health", 25)
    assert model.decode(model.encode(made)) == made


def test_an_update_that_waits_says_why(log: Log, live: Generation) -> None:
    record.waiting(log, "a", [Wait(code="deferred", text="")], published=int(NOW), now=NOW)
    record.waiting(log, "a", [Wait(code="battery", text="")], published=int(NOW), now=NOW + HOUR)
    (update,) = make(log, live).updates
    assert (update.state, update.reason, update.seen) == ("waiting", "battery", NOW)


def test_nothing_is_reported_unless_it_is_switched_on(log: Log, live: Generation) -> None:
    with pytest.raises(PolicyError, match="switched off"):
        make(log, live, policy=merge(Settings()))


def test_a_report_is_never_personal(log: Log, live: Generation) -> None:
    """No path, no host, no text of a message, no exact time, and a name that changes monthly."""
    life(log)
    log.write("check", "secret text /home/someone", data={"path": "/home/someone"})
    record.failed(
        log, "c", record.Failure(published=int(NOW), reason="/home/someone is full"), "words"
    )
    made = make(log, live, now=NOW + 7 * HOUR + 1234)
    text = model.encode(made).decode()
    for word in ("someone", "secret", "words", os.uname().nodename, str(live.tree)):
        assert word not in text
    assert made.updates[-1].reason == "other"
    times = [made.made, *(t for u in made.updates for t in (u.published, u.seen, u.protected) if t)]
    assert all(time % HOUR == 0 for time in times)
    names = {make(log, live, now=NOW + month * 31 * 86_400).device for month in range(6)}
    assert len(names) == 6
    assert make(log, live, now=NOW + 86_400).device == make(log, live).device
    assert report.pseudonym(b"s" * 32, "A", "2027-01") != report.pseudonym(
        b"s" * 32, "B", "2027-01"
    )
    assert report.pseudonym(b"t" * 32, "A", "2027-01") != report.pseudonym(
        b"s" * 32, "A", "2027-01"
    )


def test_the_key_of_the_names_stays(tmp_path: Path) -> None:
    key = report.read_secret(tmp_path)
    assert len(key) == 32
    assert report.read_secret(tmp_path) == key
    file = tmp_path / report.NAME_KEY
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"")
    assert len(report.read_secret(tmp_path)) == 32
    with pytest.raises(NotFoundError):
        report.read_secret(tmp_path / "nothing")


def test_lines_that_break_their_struct_are_left_out(log: Log, live: Generation) -> None:
    log.write(record.INSTALLED, "x", update="a", data={"published": "soon"})
    log.write(record.INSTALLED, "x", data={"published": 1})
    log.write("other", "x", update="a", data={"published": 1})
    assert record.read(log.read()) == []
    assert make(log, live).updates == ()
