"""The schedule of checks: jitter, backoff, clocks that jump, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch.device import schedule
from bsipatch.device.schedule import Schedule, Timing
from bsipatch.errors import NotFoundError

T = Timing(interval=1000, jitter=200, retry=10, cap=500)
NOW = 1_800_000_000.0


def test_the_same_device_and_time_give_the_same_answer() -> None:
    one = schedule.succeeded(Schedule(), "a", NOW, T)
    assert one == schedule.succeeded(Schedule(), "a", NOW, T)
    assert one != schedule.succeeded(Schedule(), "b", NOW, T)
    assert (one.last_check, one.last_success, one.failures) == (NOW, NOW, 0)


def test_a_fleet_spreads_evenly() -> None:
    waits = [schedule.succeeded(Schedule(), f"d{n}", NOW, T).next_check - NOW for n in range(2000)]
    assert 900 <= min(waits) < 905
    assert 1095 < max(waits) < 1100
    tenths = [sum(900 + 20 * k <= wait < 920 + 20 * k for wait in waits) for k in range(10)]
    assert min(tenths) > 140
    assert max(tenths) < 260


def test_backoff_doubles_to_the_cap_and_keeps_the_last_success() -> None:
    found = schedule.succeeded(Schedule(), "a", NOW, T)
    for failures in range(1, 80):
        found = schedule.failed(found, "a", NOW, "no answer", T)
        whole = min(10 * 2 ** (failures - 1), 500)
        assert whole / 2 <= found.next_check - NOW <= whole
        assert (found.failures, found.last_success) == (failures, NOW)
    assert found.last_error == "no answer"
    assert schedule.succeeded(found, "a", NOW, T).failures == 0


@given(st.integers(1, 10**9), st.text(max_size=20), st.floats(0, 1e11))
def test_a_retry_is_always_within_its_bounds(failures: int, device: str, now: float) -> None:
    delay = schedule.retry_delay(device, failures, now, T)
    assert T.retry / 2 <= delay <= T.cap


def test_due() -> None:
    found = Schedule(next_check=NOW + 60, last_check=NOW)
    assert schedule.due_in(found, NOW, T) == 60
    assert schedule.due_in(found, NOW + 61, T) == 0
    assert schedule.due_in(Schedule(), NOW, T) == 0


def test_a_clock_set_back_does_not_put_checks_off() -> None:
    found = schedule.succeeded(Schedule(), "a", NOW, T)
    assert schedule.due_in(found, NOW + 1, T) > 0
    assert schedule.due_in(found, NOW - 86_400, T) == 0
    assert schedule.due_in(Schedule(next_check=NOW + 10**8), NOW, T) == 0


def test_the_first_check_is_soon_but_not_everyones_at_once() -> None:
    waits = {schedule.first(f"d{n}", NOW, T).next_check - NOW for n in range(100)}
    assert len(waits) == 100
    assert max(waits) < 200


def test_it_survives_on_disk(tmp_path: Path) -> None:
    file = tmp_path / schedule.NAME
    assert schedule.load(file) is None
    found = schedule.failed(Schedule(), "a", NOW, "why\n" * 1000, T)
    schedule.save(file, found)
    assert schedule.load(file) == found
    assert len(found.last_error) == 1000
    assert [entry.name for entry in tmp_path.iterdir()] == [schedule.NAME]
    with pytest.raises(NotFoundError):
        schedule.save(tmp_path / "nothing" / "x", found)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"failures": -1}', b'{"next_check": "x"}', b"\xff", b" " * 99_999]
)
def test_a_damaged_file_costs_a_check_and_no_more(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    assert schedule.load(tmp_path / "s") is None
