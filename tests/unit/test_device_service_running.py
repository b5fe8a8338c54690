"""How long it still takes: of the step that runs, and of the whole by what it took before."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsipatch.device import service_running, service_telling
from bsipatch.device.logs import Log
from bsipatch.device.service_beacon import Beacon
from bsipatch.device.service_running import Running
from bsipatch.device.service_state import Outcome, Progress
from bsipatch.device.telemetry import record


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(service_running, "time", made)
    return made


def seen(tmp_path: Path, clock: Clock, expected: float | None) -> list[tuple[float | None, ...]]:
    """(left, left_all) of an installation: two seconds of download, six of work."""
    running = Running(lambda: 0.0, Beacon(tmp_path))
    found: list[tuple[float | None, ...]] = []

    def now() -> Progress:
        progress = running.progress()
        assert progress is not None
        return progress

    def work() -> Outcome:
        running.expect(expected)
        for done in range(3):
            running.advance("downloading", done * 100, 200)
            found.append((now().left, now().left_all))
            clock.now += 1.0
        for phase in ("building", "checking"):
            for done in range(4):
                running.advance(phase, done * 10, 30)
                found.append((now().left, now().left_all))
                clock.now += 1.0
        return Outcome(operation="install", update="", ok=True, time="", text="")

    running.run("install", "", work, lambda *args: pytest.fail(str(args)))
    assert running.progress() is None
    return found


def test_the_whole_is_told_by_what_it_took_before(tmp_path: Path, clock: Clock) -> None:
    found = seen(tmp_path, clock, 7.0)
    assert found[:3] == [(None, None), (1.0, 8.0), (0.0, 7.0)]
    # not zero between two steps, although the step's own rest is
    assert [whole for _, whole in found[3:]] == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0]


def test_what_takes_longer_than_before_is_not_said_to_be_over(tmp_path: Path, clock: Clock) -> None:
    wholes = [whole for _, whole in seen(tmp_path, clock, 0.5)[3:]]
    assert all(whole is not None and whole >= 1.0 for whole in wholes)
    assert wholes[1] == 2.0  # as much as the step itself still needs


def test_nobody_knows_the_whole_before_the_first_one(tmp_path: Path, clock: Clock) -> None:
    found = seen(tmp_path, clock, None)
    assert {whole for _, whole in found} == {None}
    assert found[1][0] == 1.0


def test_what_one_expects_says_nothing_of_the_next(tmp_path: Path, clock: Clock) -> None:
    running = Running(lambda: 0.0, Beacon(tmp_path))
    running.run("install", "", lambda: _with(running, 50.0), lambda *args: pytest.fail(str(args)))
    running.run("install", "", lambda: _with(running, None), lambda *args: pytest.fail(str(args)))


def _with(running: Running, expected: float | None) -> Outcome:
    if expected is not None:
        running.expect(expected)
    running.advance("building", 1, 2)
    progress = running.progress()
    assert progress is not None
    assert (progress.left_all is None) == (expected is None)
    return Outcome(operation="install", update="", ok=True, time="", text="")


def test_the_newest_few_count(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert service_telling.took(log) is None
    for seconds in (900.0, 4.0, 5.0, 60.0, 6.0, 7.0):
        data = record.Installation(published=1, seconds=seconds)
        record.installed(log, "an-update", data, "it is live")
    assert service_telling.took(log) == 6.0
