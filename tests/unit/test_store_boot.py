"""The boot counter: failed starts revert, power blips do not count, good machines write nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from bsipatch.errors import CancelledError, HealthError
from bsipatch.manifest import HealthCheck
from bsipatch.store import (
    Store,
    Work,
    apply,
    boot_begin,
    boot_mark,
    boot_ok,
    durable,
    records,
    recover,
    trials,
)
from bsipatch.store.records import Start, Trial
from tests.support.stores import NOW, live_tree, raises
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.trials import RESTART, applied, command, words

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


class Machine:
    """A machine whose starts the test decides; `boots` counts them."""

    def __init__(self, store: Store) -> None:
        self.store, self.boots = store, 0

    def start(self, reach: Literal["begin", "running", "ended"] = "begin") -> str:
        """One start that ends after that mark; what boot-begin said."""
        self.boots += 1
        state = boot_begin(self.store, boot_id=f"boot {self.boots}").state
        if reach != "begin":
            boot_mark(self.store, "running", boot_id=f"boot {self.boots}")
        if reach == "ended":
            boot_mark(self.store, "ended", boot_id=f"boot {self.boots}")
        return state

    @property
    def tries(self) -> int:
        found = self.store.trial()
        assert found is not None
        return found.tries

    def ok(self) -> str:
        return boot_ok(self.store, boot_id=f"boot {self.boots}").state


@pytest.fixture
def machine(store: Store, tmp_path: Path) -> Machine:
    """A machine with an improvement that waits for its restart."""
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    return Machine(store)


def test_a_start_that_goes_well_makes_it_good(machine: Machine) -> None:
    assert machine.start("running") == "trial"
    assert machine.tries == 2
    assert machine.ok() == "good"
    assert machine.store.trial() is None
    assert live_tree(machine.store) == NEW
    assert words(machine.store) == ["init", "apply", "good"]


def test_three_failed_starts_bring_the_old_tree_back(machine: Machine) -> None:
    assert [machine.start("running") for _ in range(4)] == ["trial"] * 3 + ["reverted"]
    assert live_tree(machine.store) == OLD
    (bar,) = machine.store.bars()
    assert bar.why == "starts"
    assert words(machine.store) == ["init", "apply", "gave-up"]
    assert "did not come up" in machine.store.history()[-1].reason
    assert machine.start() == "good"


@pytest.mark.parametrize("reach", ["begin", "ended"])
def test_power_blips_and_shutdowns_cost_no_try(
    machine: Machine, reach: Literal["begin", "ended"]
) -> None:
    for _ in range(10):
        assert machine.start(reach) == "trial"
        assert machine.tries == 2, "the try of this start, and no other"
    assert machine.start("running") == "trial"
    assert machine.ok() == "good"


def test_blips_are_bounded(machine: Machine) -> None:
    """An update that kills the machine before any program runs is found out all the same."""
    states = [machine.start("begin") for _ in range(14)]
    assert states == ["trial"] * 13 + ["reverted"]
    assert live_tree(machine.store) == OLD


def test_failed_starts_count_however_many_blips_lie_between(machine: Machine) -> None:
    for _ in range(3):
        machine.start("begin")
        machine.start("running")
    assert machine.start("begin") == "reverted"


def test_one_start_counts_once(machine: Machine) -> None:
    machine.start("begin")
    report = boot_begin(machine.store, boot_id="boot 1")
    assert "already" in report.note
    assert machine.tries == 2


def test_nothing_counts_before_the_restart(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    here = trials.boot_id()
    assert here, "this kernel has a boot id"
    assert boot_begin(store).state == "waiting"
    assert boot_mark(store, "running").state == "waiting"
    assert boot_ok(store).state == "waiting"
    found = store.trial()
    assert found is not None
    assert (found.tries, found.start) == (3, Start(boot=here, phase="applied"))


def test_a_failing_check_reverts_at_once(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", command("exit 1", name="page"), activation=RESTART)
    machine = Machine(store)
    machine.start("running")
    with pytest.raises(HealthError, match="page"):
        machine.ok()
    assert live_tree(store) == OLD
    assert [bar.why for bar in store.bars()] == ["health"]


def test_checks_can_be_left_out(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", command("exit 1"), activation=RESTART)
    Machine(store).start("running")
    assert boot_ok(store, boot_id="boot 1", checks=False).state == "good"
    assert "left out" in store.history()[-1].reason


def test_a_shutdown_while_checking_leaves_it_on_trial(store: Store, tmp_path: Path) -> None:
    import threading

    applied(store, tmp_path / "a.bsi", HealthCheck(kind="digest"), activation=RESTART)
    Machine(store).start("running")
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        boot_ok(store, boot_id="boot 1", work=Work(stop=stop))
    assert store.trial() is not None
    assert live_tree(store) == NEW


def test_a_machine_without_a_trial_writes_nothing(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    before = {path: path.stat() for path in store.root.iterdir()}
    with store.writing("something else"):  # not even the lock is asked for
        assert boot_begin(store, boot_id="1").state == "good"
        assert boot_mark(store, "running", boot_id="1").state == "good"
        assert boot_ok(store, boot_id="1").state == "good"
    for path, status in before.items():
        if path.name != "lock":
            assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_the_try_is_taken_durably_before_the_start_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    replace = durable.replace_file

    def watched(name: str, data: bytes, **named: int) -> None:
        replace(name, data, dir_fd=named["dir_fd"])
        synced.append(name)

    monkeypatch.setattr(durable, "replace_file", watched)
    machine.start("begin")
    assert synced == [records.TRIAL]


def test_a_start_that_cannot_be_written_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bsipatch.errors import SystemCallError

    monkeypatch.setattr(durable, "replace_file", raises(OSError(30, os.strerror(30))))
    with pytest.raises(SystemCallError, match="counting the start"):
        machine.start()


def test_starts_and_blips_can_be_set(store: Store, tmp_path: Path) -> None:
    (store.root / "health.toml").write_text("[trial]\nstarts = 1\nblips = 0\n")
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    machine = Machine(store)
    assert [machine.start("begin"), machine.start("begin")] == ["trial", "reverted"]


def test_recover_does_not_judge_a_restart_too_early(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", command("exit 1"), activation=RESTART)
    Machine(store).start("running")
    report = recover(store).report
    assert report.state == "trial"
    assert live_tree(store) == NEW


# --- the rules alone ---


def _trial(**changes: object) -> Trial:
    fields: dict[str, object] = {
        "number": 1,
        "old": 0,
        "scope": "restart",
        "tries": 3,
        "blips": 2,
        "start": Start(boot="before", phase="applied"),
        "since": "2026-01-01T00:00:00.000Z",
    }
    return Trial(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phase", "blips", "tries", "left"),
    [
        ("applied", 2, 2, 2),
        ("begun", 2, 3, 1),
        ("begun", 0, 2, 0),
        ("running", 2, 2, 2),
        ("ended", 2, 3, 1),
        ("ended", 0, 2, 0),
    ],
)
def test_the_table_of_starts(
    phase: Literal["applied", "begun", "running", "ended"], blips: int, tries: int, left: int
) -> None:
    found = _trial(blips=blips, start=Start(boot="before", phase=phase))
    begun = trials.begin(found, "now")
    assert begun.trial is not None
    assert begun.changed
    assert (begun.trial.tries, begun.trial.blips) == (tries, left)
    assert begun.trial.start == Start(boot="now", phase="begun")


def test_the_last_try_of_a_blip_is_given_back() -> None:
    begun = trials.begin(_trial(tries=0, start=Start(boot="before", phase="begun")), "now")
    assert begun.trial is not None
    assert (begun.trial.tries, begun.trial.blips) == (0, 1)
    assert trials.begin(_trial(tries=0, start=Start(boot="x", phase="running")), "y").trial is None


def test_without_boot_ids_every_start_is_another() -> None:
    begun = trials.begin(_trial(start=Start(boot="", phase="applied")), "")
    assert begun.changed
    assert begun.trial is not None
    assert trials.begin(begun.trial, "").changed


def test_marks_of_another_start_change_nothing() -> None:
    found = _trial(start=Start(boot="now", phase="begun"))
    assert trials.mark(found, "other", "running") is found
    marked = trials.mark(found, "now", "running")
    assert marked.start.phase == "running"
    assert trials.mark(marked, "now", "ended").start.phase == "ended"
    assert trials.mark(_trial(), "before", "running").start.phase == "applied"


def test_the_boot_id_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_BOOT_ID", tmp_path / "boot_id")
    assert trials.boot_id() == ""
    (tmp_path / "boot_id").write_text("abc\n")
    assert trials.boot_id() == "abc"
