"""A generation on trial: passed, failed, stopped, interrupted anywhere."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import (
    CancelledError,
    ConfigError,
    HealthError,
    StoreDamagedError,
    SystemCallError,
)
from bsipatch.manifest import HealthCheck
from bsipatch.store import (
    Store,
    Terms,
    Work,
    apply,
    bars,
    boot_begin,
    boot_ok,
    durable,
    history,
    live,
    moving,
    records,
    recover,
    trial,
    trials,
)
from tests.support.stores import NOW, THIRD, clean, live_tree, raises, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.trials import RESTART, applied, command, update_with, words
from tests.support.updates import make_update

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


def test_a_generation_that_passes_is_good(store: Store, tmp_path: Path) -> None:
    done = applied(store, tmp_path / "a.bsi", command("exit 0"), HealthCheck(kind="digest"))
    assert [(result.title, result.passed) for result in done.health] == [
        ("/bin/sh", True),
        ("digest", True),
    ]
    assert done.trial is None
    assert store.trial() is None
    assert live_tree(store) == NEW
    assert words(store) == ["init", "apply", "good"]
    clean(store)


def test_without_checks_there_is_no_trial(store: Store, update: Path) -> None:
    assert apply(store, update, now=NOW).health == ()
    assert words(store) == ["init", "apply"]
    clean(store)


def test_a_failing_check_brings_the_old_tree_back(store: Store, tmp_path: Path) -> None:
    failing = command("echo the page is blank; exit 3", name="page")
    with pytest.raises(HealthError, match="page ended with exit code 3") as caught:
        applied(store, tmp_path / "a.bsi", failing)
    assert caught.value.exit_code == 90
    assert "the page is blank" in caught.value.message
    assert "live again" in caught.value.hint
    assert live_tree(store) == OLD
    assert words(store) == ["init", "apply", "unhealthy"]
    assert "exit code 3" in store.history()[-1].reason
    assert store.trial() is None
    (bar,) = store.bars()
    assert (bar.why, bar.letter) == ("health", "a")
    assert records.leftovers(store.fd) == []
    assert store.status().unfinished == ()


def test_no_health_means_no_trial(store: Store, tmp_path: Path) -> None:
    path = update_with(tmp_path / "a.bsi", command("exit 1"))
    done = apply(store, path, now=NOW, terms=Terms(health=False))
    assert (done.health, done.trial) == ((), None)
    assert live_tree(store) == NEW


def test_stopping_a_trial_undoes_the_whole_apply(store: Store, tmp_path: Path) -> None:
    stop, over, begun = threading.Event(), threading.Event(), tmp_path / "begun"
    path = update_with(tmp_path / "a.bsi", command(f"touch {begun}; sleep 60"))

    def stop_it() -> None:
        while not begun.exists() and not over.wait(0.01):
            pass
        stop.set()

    thread = threading.Thread(target=stop_it)
    thread.start()
    try:
        with pytest.raises(CancelledError):
            apply(store, path, now=NOW, work=Work(stop=stop))
    finally:
        over.set()
        thread.join()
    assert live_tree(store) == OLD
    assert store.bars() == ()
    assert store.status().generations == (0,)
    assert words(store) == ["init", "apply", "undone"]
    clean(store)


def test_a_restart_leaves_it_on_trial(store: Store, tmp_path: Path) -> None:
    done = applied(store, tmp_path / "a.bsi", command("exit 1"), activation=RESTART)
    assert done.trial is not None
    assert (done.trial.scope, done.trial.tries, done.trial.old) == ("restart", 3, 0)
    assert store.status().trial == done.trial
    assert live_tree(store) == NEW
    report = recover(store).report
    assert report.state == "waiting", "its check is not made before the restart"
    assert live_tree(store) == NEW


def test_gc_keeps_what_a_trial_falls_back_to(store: Store, tmp_path: Path) -> None:
    for index in range(3):
        new = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"%d" % index}
        applied(
            store,
            tmp_path / f"{index}.bsi",
            new=new,
            letter="abc"[index],
            build=f"1{index}",
            **({"activation": RESTART} if index else {}),
        )
    assert store.live().number == 3
    assert store.collect().kept == (0, 1, 2, 3), "2 never proved itself: 1 is what was good"
    found = store.trial()
    assert found is not None
    assert found.old == 1


def test_reverting_to_what_never_proved_itself_begins_its_trial_again(
    store: Store, tmp_path: Path
) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    applied(store, tmp_path / "b.bsi", new=THIRD, letter="b", build="2", activation=RESTART)
    boot_begin(store, boot_id="1")
    assert boot_ok(store, boot_id="1").state == "good"
    assert store.revert().live.display == "26.3.1 (a)"
    found = store.trial()
    assert found is not None
    assert (found.number, found.old, found.tries) == (1, 0, 3)
    boot_begin(store, boot_id="2")
    assert boot_ok(store, boot_id="2").state == "good"
    assert not (store.root / "generations/1" / records.UNPROVEN).exists()


def test_reverting_to_what_was_good_begins_none(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", command("exit 0"))
    applied(store, tmp_path / "b.bsi", new=THIRD, letter="b", build="2", activation=RESTART)
    (store.root / "health.toml").write_text("nonsense")
    assert store.revert().live.number == 1
    assert store.trial() is None


def test_an_update_over_one_on_trial_falls_back_to_the_good_one(
    store: Store, tmp_path: Path
) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    with pytest.raises(HealthError):
        applied(store, tmp_path / "b.bsi", command("exit 1"), new=THIRD, letter="b", build="2")
    assert store.live().number == 0
    assert live_tree(store) == OLD
    assert store.trial() is None


def test_a_refused_update_leaves_the_trial_under_way(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    before = store.trial()
    (store.root / "generations/0/tree/Versions/A/Demo").chmod(0o600)
    second = written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2"))
    with pytest.raises(Exception, match="drifted"):
        apply(store, second, now=NOW)
    assert store.trial() == before


def test_reverting_ends_the_trial(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    store.revert()
    assert store.trial() is None
    assert not (store.root / records.TRIAL).exists()
    assert live_tree(store) == OLD


def _cut(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """The machine stops there, as far as this process can tell."""
    monkeypatch.setattr(module, name, raises(KeyboardInterrupt()))


_STOPS: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("before settling", lambda patch: _cut(patch, moving, "settle")),
    ("before the trial is written", lambda patch: _cut(patch, trials, "write")),
    ("before the bars", lambda patch: _cut(patch, bars, "put")),
    ("before the history", lambda patch: _cut(patch, history, "append")),
    ("before the verdict", lambda patch: _cut(patch, trial, "good")),
    ("while judging", lambda patch: _cut(patch, trial, "judge")),
]


@pytest.mark.parametrize(("where", "cut"), _STOPS, ids=[where for where, _ in _STOPS])
@pytest.mark.parametrize("passes", [True, False], ids=["healthy", "sick"])
def test_an_interrupted_trial_is_finished_by_recover(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    cut: Callable[[pytest.MonkeyPatch], None],
    passes: bool,
) -> None:
    path = update_with(tmp_path / "a.bsi", command(f"exit {0 if passes else 1}"))
    cut(monkeypatch)
    with pytest.raises((KeyboardInterrupt, HealthError)):
        apply(store, path, now=NOW)
    monkeypatch.undo()
    assert live_tree(store) in (OLD, NEW)
    if where == "before the verdict" and not passes:
        assert live_tree(store) == OLD, "that step is never reached"
        return
    if passes:
        done = recover(store)
        assert done.done
        assert live_tree(store) == NEW
    else:
        with pytest.raises(HealthError):
            recover(store)
        assert live_tree(store) == OLD
        assert [bar.why for bar in store.bars()] == ["health"]
    again = recover(store)
    assert (again.found, again.done) == ((), ())
    assert store.trial() is None
    assert not (store.root / records.PENDING).exists()


@pytest.mark.parametrize("name", ["flip", "settle", "write", "put"])
def test_an_interrupted_way_back_is_finished(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    found = store.trial()
    assert found is not None
    module = {"flip": live, "settle": moving, "write": moving, "put": bars}[name]
    _cut(monkeypatch, module, name)
    with store.writing("test"), pytest.raises(KeyboardInterrupt):
        trial.fall_back(store, found, "starts", "it did not come up")
    monkeypatch.undo()
    done = recover(store)
    if name == "write":  # it was never decided
        assert live_tree(store) == NEW
        assert store.trial() == found
        return
    assert done.done
    assert live_tree(store) == OLD
    assert [bar.why for bar in store.bars()] == ["starts"]
    assert store.trial() is None
    assert recover(store).done == ()


@pytest.mark.parametrize("name", ["flip", "_settle_lightly", "append"])
@pytest.mark.parametrize("remove", [False, True])
def test_an_interrupted_revert_is_done_or_not(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch, name: str, remove: bool
) -> None:
    apply(store, update, now=NOW)
    module = {"flip": live, "_settle_lightly": moving, "append": history}[name]
    _cut(monkeypatch, module, name)
    with pytest.raises(KeyboardInterrupt):
        store.revert(remove=remove, reason="slow")
    monkeypatch.undo()
    recover(store)
    if name == "flip":
        assert live_tree(store) == NEW
        assert store.bars() == ()
        assert words(store) == ["init", "apply"]
    else:
        assert live_tree(store) == OLD
        assert [bar.reason for bar in store.bars()] == ["slow"]
        assert words(store) == ["init", "apply", "remove" if remove else "revert"]
        assert "ended before it wrote so" in store.history()[-1].reason
    assert recover(store).done == ()


def test_a_full_disk_keeps_nobody_from_going_back(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, update, now=NOW)
    full = raises(OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr(durable, "replace_file", full)
    monkeypatch.setattr(history, "append", full)
    done = store.revert()
    assert "disk is full" in done.notes[0]
    assert live_tree(store) == OLD
    monkeypatch.undo()
    assert recover(store).done
    assert words(store)[-1] == "recovered"


def test_any_other_error_is_one(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, update, now=NOW)
    monkeypatch.setattr(durable, "replace_file", raises(OSError(errno.EIO, "disk")))
    with pytest.raises(SystemCallError):
        store.revert()
    monkeypatch.undo()
    assert live_tree(store) == NEW


def test_every_state_of_a_move_has_something_to_do() -> None:
    verbs = {verb for verb, _, _ in moving.TABLE}
    assert verbs == {"apply", "revert", "remove", "back"}
    for verb in verbs:
        assert moving.TABLE[verb, "ready", True] == "settle"
        assert (verb, "ready", False) in moving.TABLE


def test_a_move_in_an_impossible_state_is_damage(store: Store) -> None:
    strange = records.Pending(
        new=5, old=0, source="", started=records.now(), verb="revert", state="intent"
    )
    (store.root / records.PENDING).write_bytes(records.encode(strange))
    with pytest.raises(StoreDamagedError, match="cannot have"):
        recover(store)


def test_a_record_of_an_older_release_is_understood(store: Store) -> None:
    (store.root / "generations/1/tree").mkdir(parents=True)
    (store.root / records.PENDING).write_bytes(
        b'{"new":1,"old":0,"source":"x","started":"2026-01-01T00:00:00.000Z"}'
    )
    assert store.status().unfinished == (records.PENDING,)
    done = recover(store)
    assert done.found == (records.PENDING,)
    assert "never activated" in done.done[0]
    clean(store)


def test_a_trial_of_a_generation_that_is_not_live_is_void(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    stale = trials.new(7, 0, "restart", tries=3, blips=1, boot="x")
    trials.write(store.fd, stale)
    assert store.trial() is None
    assert "not live" in recover(store).done[0]
    clean(store)


def test_a_damaged_trial_is_said_to_be_damaged(store: Store, tmp_path: Path) -> None:
    applied(store, tmp_path / "a.bsi", activation=RESTART)
    good = (store.root / records.TRIAL).read_bytes()
    for bad in (b"", b"{}", b"\xff", good.replace(b'"applied"', b'"begging"')):
        (store.root / records.TRIAL).write_bytes(bad)
        with pytest.raises(StoreDamagedError, match=r"trial\.json"):
            store.status()


def test_an_interrupted_trial_is_ended_before_the_next_update(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = update_with(tmp_path / "a.bsi", command("exit 1"))
    _cut(monkeypatch, trial, "judge")
    with pytest.raises(KeyboardInterrupt):
        apply(store, path, now=NOW)
    monkeypatch.undo()
    assert store.trial() is not None
    second = written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2"))
    done = apply(store, second, now=NOW)
    assert done.was.number == 0, "what failed is nothing to fall back to"
    assert [bar.letter for bar in store.bars()] == ["a"]


def test_the_owners_mistakes_stop_an_apply_before_it_begins(store: Store, update: Path) -> None:
    (store.root / "health.toml").write_text("checks = ['everything']\n")
    with pytest.raises(ConfigError, match="no such check"):
        apply(store, update, now=NOW)
    assert live_tree(store) == OLD
    assert store.status().generations == (0,)


def test_the_intent_is_written_before_anything_is_built(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    mkdir = os.mkdir

    def watched(path: Any, *rest: Any, **named: Any) -> None:
        if str(path).endswith(".tmp"):
            pending = records.read(
                records.Pending,
                records.PENDING,
                dir_fd=store.fd,
                limits=store.limits,
                file="",
            )
            seen.append(pending.state)
        mkdir(path, *rest, **named)

    monkeypatch.setattr(os, "mkdir", watched)
    apply(store, update, now=NOW)
    assert seen == ["intent"]
