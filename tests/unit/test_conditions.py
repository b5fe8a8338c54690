"""The providers of conditions, each over a made-up machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bsipatch.device import conditions
from bsipatch.device.conditions import (
    FreeSpace,
    Idle,
    MeteredNetwork,
    Power,
    QuietHours,
    ask_all,
    run_command,
    standard,
)
from bsipatch.device.conditions.quiet import until, within
from bsipatch.device.policy_merge import merge
from bsipatch.device.policy_schema import Hours, Settings
from bsipatch.limits import DEFAULT

BERLIN = ZoneInfo("Europe/Berlin")


def supply(root: Path, name: str, **fields: object) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    for key, value in fields.items():
        (folder / key).write_text(f"{value}\n")


def nothing(arguments: Sequence[str]) -> str | None:
    return None


# --- power ---


def test_no_supplies_is_mains_but_not_known(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nothing"):
        answer = Power(50, root).ask(0)
        assert (answer.ok, answer.known) == (True, False)


def test_a_battery_has_a_floor(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online=0)
    supply(tmp_path, "BAT0", type="Battery", capacity=20, status="Discharging")
    assert Power(20, tmp_path).ask(0).ok
    low = Power(21, tmp_path).ask(0)
    assert (low.ok, low.code) == (False, "battery")
    assert "20 %" in low.text
    assert "21 %" in low.text
    assert low.evidence["supplies"]["BAT0"]["capacity"] == "20"


@pytest.mark.parametrize(
    ("online", "status", "ok"),
    [
        ("1", "Discharging", True),
        ("0", "Charging", True),
        ("0", "Full", True),
        ("0", "Not charging", True),
        ("0", "Discharging", False),
        ("0", "Unknown", False),
    ],
)
def test_mains_power_lifts_the_floor(tmp_path: Path, online: str, status: str, ok: bool) -> None:
    supply(tmp_path, "USB", type="USB", online=online)
    supply(tmp_path, "BAT0", type="Battery", capacity=1, status=status)
    assert Power(50, tmp_path).ask(0).ok == ok


def test_several_batteries_count_by_size(tmp_path: Path) -> None:
    supply(tmp_path, "B0", type="Battery", capacity=100, status="Unknown", energy_full=10)
    supply(tmp_path, "B1", type="Battery", capacity=0, status="Discharging", energy_full=90)
    assert Power(10, tmp_path).ask(0).evidence["percent"] == 10
    (tmp_path / "B0" / "energy_full").unlink()
    assert Power(10, tmp_path).ask(0).evidence["percent"] == 50


def test_what_does_not_feed_the_machine_does_not_count(tmp_path: Path) -> None:
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity=1, status="Discharging")
    supply(tmp_path, "gone", type="Battery", present=0, capacity=1, status="Discharging")
    supply(tmp_path, "odd", type="Battery", capacity="many", status="Discharging")
    supply(tmp_path, "AC", type="Mains", online=1)
    answer = Power(50, tmp_path).ask(0)
    assert (answer.ok, answer.known) == (True, True)


# --- network ---


def busctl(value: object) -> conditions.Runner:
    def run(arguments: Sequence[str]) -> str | None:
        return json.dumps({"type": "u", "data": value}) if arguments[0] == "busctl" else None

    return run


def nmcli(output: str) -> conditions.Runner:
    return lambda arguments: output if arguments[0] == "nmcli" else None


@pytest.mark.parametrize(
    ("value", "ok", "known"),
    [(1, False, True), (3, False, True), (2, True, True), (4, True, True), (0, True, False)],
)
def test_network_manager_over_dbus(tmp_path: Path, value: int, ok: bool, known: bool) -> None:
    answer = MeteredNetwork(override=tmp_path / "none", run=busctl(value)).ask(0)
    assert (answer.ok, answer.known, answer.code) == (ok, known, "metered")


@pytest.mark.parametrize("output", ["", "{", "[]", '{"data": "1"}', '{"data": [1]}', '{"x": 1}'])
def test_nonsense_from_dbus_is_not_known(tmp_path: Path, output: str) -> None:
    answer = MeteredNetwork(override=tmp_path / "none", run=lambda _: output).ask(0)
    assert (answer.ok, answer.known) == (True, False)


@pytest.mark.parametrize(
    ("words", "ok", "known"),
    [
        (["yes"], False, True),
        (["no"], True, True),
        (["no (guessed)", "yes (guessed)"], False, True),
        (["unknown"], True, False),
        ([], True, False),
    ],
)
def test_nmcli(tmp_path: Path, words: list[str], ok: bool, known: bool) -> None:
    connected = "\n\n".join(
        f"GENERAL.STATE:100 (connected)\nGENERAL.METERED:{word}" for word in words
    )
    other = "\n\nGENERAL.STATE:30 (disconnected)\nGENERAL.METERED:yes"
    answer = MeteredNetwork(override=tmp_path / "none", run=nmcli(connected + other)).ask(0)
    assert (answer.ok, answer.known) == (ok, known)


def test_a_file_wins_and_metered_can_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "metered"
    file.write_text("yes\n")
    answer = MeteredNetwork(override=file, run=busctl(2)).ask(0)
    assert (answer.ok, answer.evidence["source"]) == (False, str(file))
    assert MeteredNetwork(allow=True, override=file, run=nothing).ask(0).ok
    file.write_text("no\n")
    assert MeteredNetwork(override=file, run=busctl(1)).ask(0).ok
    file.write_text("unknown\n")
    assert not MeteredNetwork(override=file, run=busctl(1)).ask(0).known


# --- quiet hours ---


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("clock", "inside"),
    [("21:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("05:59", True),
     ("06:00", False)],
)  # fmt: skip
def test_across_midnight(clock: str, inside: bool) -> None:
    hours = Hours("22:00", "06:00")
    assert within(hours, datetime.fromisoformat(f"2026-05-05T{clock}")) == inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-05-08T23:00", True),  # a Friday
        ("2026-05-09T05:00", True),  # the Saturday after, still Friday's hours
        ("2026-05-09T23:00", False),
        ("2026-05-08T05:00", False),  # Thursday's night
    ],
)
def test_days_are_those_on_which_the_hours_begin(moment: str, inside: bool) -> None:
    hours = Hours("22:00", "06:00", ("fri",))
    assert within(hours, datetime.fromisoformat(moment)) == inside


def test_the_end_is_told() -> None:
    answer = QuietHours([Hours("22:00", "06:00")], BERLIN).ask(at("2026-05-05T23:10"))
    assert (answer.ok, answer.until) == (False, at("2026-05-06T06:00"))
    assert "06:00" in answer.text
    assert QuietHours([Hours("22:00", "06:00")], BERLIN).ask(at("2026-05-05T12:00")).ok
    assert QuietHours([], BERLIN).ask(0).ok


def test_hours_that_adjoin_are_one() -> None:
    both = [Hours("22:00", "02:00"), Hours("02:00", "07:00")]
    assert until(both, at("2026-05-05T23:00"), BERLIN) == at("2026-05-06T07:00")
    always = [Hours("00:00", "12:00"), Hours("12:00", "00:00")]
    answer = QuietHours(always, BERLIN).ask(at("2026-05-05T23:00"))
    assert (answer.ok, answer.until) == (False, None)


def test_the_clock_goes_forward() -> None:
    """On 2026-03-29 in Berlin 02:00 becomes 03:00."""
    hours = [Hours("22:00", "06:00")]
    began = at("2026-03-28T22:00")
    end = until(hours, began, BERLIN)
    assert end is not None
    assert end - began == 7 * 3600
    # hours that lie in the gap, or end in it, are over when the clock has jumped
    assert until([Hours("01:30", "02:30")], at("2026-03-29T01:45"), BERLIN) == at(
        "2026-03-29T03:00"
    )
    skipped = QuietHours([Hours("02:10", "02:50")], BERLIN)
    assert all(skipped.ask(at("2026-03-29T01:00") + minute * 60).ok for minute in range(180))


def test_the_clock_goes_back() -> None:
    """On 2026-10-25 in Berlin 03:00 becomes 02:00."""
    hours = [Hours("22:00", "06:00")]
    began = at("2026-10-24T22:00")
    end = until(hours, began, BERLIN)
    assert end is not None
    assert end - began == 9 * 3600
    twice = QuietHours([Hours("02:10", "02:50")], BERLIN)
    quiet = [not twice.ask(at("2026-10-25T01:00") + minute * 60).ok for minute in range(240)]
    assert sum(quiet) == 80


def test_the_machines_own_zone_works() -> None:
    answer = QuietHours([Hours("00:00", "23:59")]).ask(at("2026-05-05T12:00"))
    assert answer.evidence["local"].startswith("2026-05-05")


# --- idle ---


def proc(root: Path, load: str = "0.10 0 0", **pressure: float) -> Path:
    (root / "pressure").mkdir(parents=True)
    (root / "loadavg").write_text(f"{load} 1/100 99\n")
    for name, share in pressure.items():
        (root / "pressure" / name).write_text(
            f"some avg10={share:.2f} avg60=0.00 avg300=0.00 total=1\n"
            "full avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
        )
    return root


def test_idle(tmp_path: Path) -> None:
    answer = Idle(root=proc(tmp_path, cpu=1.0, io=2.0), run=nothing, cpus=2).ask(0)
    assert (answer.ok, answer.evidence["load"], answer.evidence["pressure_io"]) == (True, 0.05, 2.0)


@pytest.mark.parametrize("resource", ["cpu", "io", "memory"])
def test_pressure_is_use(tmp_path: Path, resource: str) -> None:
    answer = Idle(root=proc(tmp_path, **{resource: 30.0}), run=nothing, cpus=2).ask(0)
    assert (answer.ok, answer.code) == (False, "idle")
    assert "30 %" in answer.text


def test_load_counts_for_each_processor(tmp_path: Path) -> None:
    root = proc(tmp_path, load="3.0 0 0")
    assert not Idle(root=root, run=nothing, cpus=2).ask(0).ok
    assert Idle(root=root, run=nothing, cpus=16).ask(0).ok


@pytest.mark.parametrize(
    ("program", "output", "ok"),
    [
        ("busctl", '{"type":"b","data":false}', False),
        ("busctl", '{"type":"b","data":true}', True),
        ("loginctl", "IdleHint=no\n", False),
        ("loginctl", "IdleHint=yes\n", True),
        ("loginctl", "what\n", True),
        ("busctl", "what\n", True),
    ],
)
def test_somebody_is_there(tmp_path: Path, program: str, output: str, ok: bool) -> None:
    answer = Idle(
        root=proc(tmp_path), run=lambda words: output if words[0] == program else None, cpus=2
    ).ask(0)
    assert answer.ok == ok


@pytest.mark.parametrize("text", ["", "x", "nan x", "some avg10=lots"])
def test_nonsense_in_proc_is_not_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text(text)
    (tmp_path / "loadavg").write_bytes(text.encode() + b"\xff")
    assert Idle(root=tmp_path, run=nothing).ask(0).ok
    nowhere = Idle(root=tmp_path / "nothing", run=nothing).ask(0)
    assert (nowhere.ok, nowhere.known) == (True, False)


# --- space, and all of them ---


def test_space(tmp_path: Path) -> None:
    assert FreeSpace(tmp_path, 0).ask(0).ok
    answer = FreeSpace(tmp_path, 1 << 60).ask(0)
    assert (answer.ok, answer.code) == (False, "space")
    assert answer.evidence["need"] == (1 << 60) + DEFAULT.reserve_space
    assert not FreeSpace(tmp_path / "nothing", 0).ask(0).known


def test_a_provider_that_fails_stops_nobody() -> None:
    class Broken:
        name = "broken"

        def ask(self, now: float) -> conditions.Answer:
            raise ZeroDivisionError("oops")

    (answer,) = ask_all([Broken()], 0)
    assert (answer.ok, answer.known) == (True, False)
    assert "oops" in answer.text


def test_the_policy_chooses_the_conditions(tmp_path: Path) -> None:
    names = [one.name for one in standard(merge(Settings()), tmp_path)]
    assert names == ["power", "network", "quiet-hours", "space"]
    made = standard(merge(Settings(only_idle=True, battery_floor=33)), tmp_path, need=5)
    assert made[-1].name == "idle"
    assert made[0] == Power(33)
    answers = ask_all(made, 0)  # on this machine, whatever it is
    assert [answer.name for answer in answers] == [one.name for one in made]


def test_helpers_that_are_missing_fail_or_hang_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(["no-such-program-here"]) is None
    assert run_command(["false"]) is None
    assert run_command(["echo", "x"]) == "x\n"
    monkeypatch.setattr(conditions._answer, "_PATIENCE", 0.05)
    assert run_command(["sleep", "9"]) is None
