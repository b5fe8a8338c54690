"""Several components in one transaction: all or none, whatever happens when."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import (
    CancelledError,
    HealthError,
    ManifestError,
    NotFoundError,
    StoreDamagedError,
    StoreStateError,
    TreeDriftError,
    UsageError,
)
from bsipatch.store import (
    Group,
    Store,
    Work,
    apply,
    boot_begin,
    boot_mark,
    boot_ok,
    check,
    durable,
    grouped,
    history,
    live,
    moving,
    records,
    recover,
    trial,
)
from bsipatch.tree import walk
from tests.support.stores import NOW, THIRD, new_store, raises, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.trials import RESTART, command, update_with
from tests.support.updates import make_update

OLD, NEW, LAST = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK), tree_of(THIRD)
BOTH = ("one", "two")


@pytest.fixture
def group(tmp_path: Path, base: Path) -> Group:
    """Two components with the same baseline."""
    made = Group(tmp_path / "group")
    for name in BOTH:
        made.path(name).parent.mkdir(parents=True, exist_ok=True)
        new_store(made.path(name), base).close()
        made.adopt(name)
    return made


@pytest.fixture
def updates(tmp_path: Path) -> dict[str, Path]:
    """One update for each."""
    second = make_update(new=THIRD, letter="b", build="2")
    return {
        "one": written(tmp_path / "one.bsi", make_update()),
        "two": written(tmp_path / "two.bsi", second),
    }


def shown(group: Group) -> list[Any]:
    """What is live, as programs see it."""
    return [walk(group.path(name) / "current/tree") for name in BOTH]


def sound(group: Group) -> None:
    """Every component recovers to nothing left, and is whole."""
    for name in BOTH:
        with Store(group.path(name)) as store:
            recover(store)
            assert recover(store).done == ()
            assert check(store).sound
            assert records.leftovers(store.fd) == []
            assert store.trial() is None
    assert len(os.listdir(group.root / "sets")) <= 2, "an unused one goes with the next flip"


def test_components_show_what_they_showed_before(group: Group) -> None:
    assert group.components() == BOTH
    assert shown(group) == [OLD, OLD]
    group.adopt("one")  # again
    assert os.readlink(group.path("one") / "current") == "../../live/one"
    sound(group)


def test_a_component_s_lost_pointer_is_left_to_people(group: Group) -> None:
    """A pointer of its own would take it out of the group's steps."""
    current = group.path("one") / "current"
    current.unlink()
    with Store(group.path("one")) as store, pytest.raises(StoreDamagedError):
        store.collect()
    assert not os.path.lexists(current)
    current.symlink_to("../../live/one")
    sound(group)


def test_all_go_live_in_one_step(group: Group, updates: dict[str, Path]) -> None:
    done = group.apply(updates, now=NOW)
    assert shown(group) == [NEW, LAST]
    assert {name: item.generation.letter for name, item in done.items()} == {
        "one": "a",
        "two": "b",
    }
    assert group.apply(updates, now=NOW)["one"].already
    sound(group)


def test_one_pointer_moves_and_no_other(
    group: Group, updates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[str, list[Any]]] = []
    replace = durable.replace_link

    def watched(name: str, target: str, **named: Any) -> None:
        before = shown(group)
        replace(name, target, **named)
        moved.append((name, before))

    monkeypatch.setattr(durable, "replace_link", watched)
    group.apply(updates, now=NOW)
    assert moved == [("live", [OLD, OLD])]


def test_a_component_is_a_store_like_any_other(group: Group, updates: dict[str, Path]) -> None:
    with Store(group.path("one")) as store:
        apply(store, updates["one"], now=NOW)
        assert shown(group) == [NEW, OLD]
        assert store.status().generation.number == 1
        store.revert()
        store.collect()
    assert shown(group) == [OLD, OLD]
    sound(group)


@pytest.mark.parametrize("bad", BOTH)
def test_a_refusal_of_one_stops_all(group: Group, updates: dict[str, Path], bad: str) -> None:
    kept = group.path(bad) / "generations/0/tree/Versions/A/Resources/same.dat"
    kept.chmod(0o600)
    with pytest.raises(TreeDriftError):
        group.apply(updates, now=NOW)
    kept.chmod(0o644)
    assert shown(group) == [OLD, OLD]
    sound(group)


def test_a_failing_check_of_the_last_takes_all_back(
    group: Group, updates: dict[str, Path], tmp_path: Path
) -> None:
    sick = update_with(tmp_path / "s.bsi", command("exit 1"), new=THIRD, letter="b", build="2")
    for first in (updates["one"], update_with(tmp_path / "f.bsi", command("exit 0"))):
        with pytest.raises(HealthError):
            group.apply({"one": first, "two": sick}, now=NOW)
        assert shown(group) == [OLD, OLD]
        for name in BOTH:
            with Store(group.path(name)) as store:
                assert [bar.why for bar in store.bars()] == ["health"]
                store.allow("all")
    sound(group)


def test_stopping_undoes_all(group: Group, updates: dict[str, Path], tmp_path: Path) -> None:
    import threading

    stop, over, begun = threading.Event(), threading.Event(), tmp_path / "begun"
    check = command(f"touch {begun}; sleep 60")
    slow = update_with(tmp_path / "s.bsi", check, new=THIRD, letter="b", build="2")

    def stop_it() -> None:
        while not begun.exists() and not over.wait(0.01):
            pass
        stop.set()

    thread = threading.Thread(target=stop_it)
    thread.start()
    try:
        with pytest.raises(CancelledError):
            group.apply({"one": updates["one"], "two": slow}, now=NOW, work=Work(stop=stop))
    finally:
        over.set()
        thread.join()
    assert shown(group) == [OLD, OLD]
    sound(group)


@pytest.mark.parametrize("failing", BOTH)
def test_after_a_restart_too(group: Group, tmp_path: Path, failing: str) -> None:
    files = {
        "one": update_with(
            tmp_path / "1.bsi",
            command(f"exit {int(failing == 'one')}"),
            activation=RESTART,
        ),
        "two": update_with(
            tmp_path / "2.bsi",
            command(f"exit {int(failing == 'two')}"),
            new=THIRD,
            letter="b",
            build="2",
            activation=RESTART,
        ),
    }
    group.apply(files, now=NOW)
    for name in sorted(BOTH, key=lambda name: name == failing):  # the healthy one is good first
        with Store(group.path(name)) as store:
            boot_begin(store, boot_id="1")
            if name == failing:
                with pytest.raises(HealthError):
                    boot_ok(store, boot_id="1")
            else:
                assert boot_ok(store, boot_id="1").state == "good"
    assert shown(group) == [OLD, OLD]
    sound(group)


def test_what_moved_on_by_itself_stays(group: Group, tmp_path: Path, updates: Any) -> None:
    files = {
        name: update_with(tmp_path / f"{name}-r.bsi", command("exit 1"), activation=RESTART)
        for name in BOTH
    }
    group.apply(files, now=NOW)
    with Store(group.path("one")) as store:
        apply(store, updates["two"], now=NOW)
    with Store(group.path("two")) as store:
        boot_begin(store, boot_id="1")
        with pytest.raises(HealthError):
            boot_ok(store, boot_id="1")
    assert shown(group) == [LAST, OLD]
    sound(group)


def test_going_back_does_not_wait_for_who_goes_back_too(group: Group, tmp_path: Path) -> None:
    """Two units of one start find the tries of their components used up at the same time."""
    files = {
        name: update_with(tmp_path / f"{name}.bsi", activation=RESTART, letter=name[0] * 2)
        for name in BOTH
    }
    group.apply(files, now=NOW)
    with Store(group.path("one")) as one, Store(group.path("two")) as two:
        for start in range(3):
            for store in (one, two):
                boot_begin(store, boot_id=str(start))
                boot_mark(store, "running", boot_id=str(start))
        with two.writing("boot-begin"):
            assert boot_begin(one, boot_id="last").state == "reverted"
            assert shown(group) == [OLD, OLD]
        assert boot_begin(two, boot_id="last").state == "good"
        assert [bar.letter for bar in one.bars()] == ["oo"]
    sound(group)


_CUTS: list[tuple[Any, str, int]] = [
    *((moving, "write", number) for number in range(4)),
    *((durable, "rename_new", number) for number in range(3)),
    *((durable, "replace_link", number) for number in range(2)),
    *((live, "flip_together", number) for number in range(1)),
    *((moving, "settle", number) for number in range(3)),
    *((history, "append", number) for number in range(3)),
    *((trial, "judge", number) for number in range(2)),
]


def _cut_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int) -> None:
    """The process ends at the call of that number."""
    real, left = getattr(module, name), [number]

    def cut(*arguments: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, cut)


@pytest.mark.parametrize(("module", "name", "number"), _CUTS, ids=lambda v: str(v)[-30:])
@pytest.mark.parametrize("sick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_cut_anywhere_leaves_all_or_none(
    group: Group,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    number: int,
    sick: bool,
) -> None:
    files = {
        "one": update_with(tmp_path / "1.bsi", command("exit 0")),
        "two": update_with(
            tmp_path / "2.bsi", command(f"exit {int(sick)}"), new=THIRD, letter="b", build="2"
        ),
    }
    _cut_at(monkeypatch, module, name, number)
    with contextlib.suppress(KeyboardInterrupt, HealthError):
        group.apply(files, now=NOW)
    monkeypatch.undo()
    assert shown(group) in ([OLD, OLD], [NEW, LAST])
    for component in BOTH:
        with Store(group.path(component)) as store:
            try:
                recover(store)
            except HealthError:
                assert sick
    assert shown(group) in ([OLD, OLD], [] if sick else [NEW, LAST])
    sound(group)


@pytest.mark.parametrize("number", range(4))
def test_a_cut_while_going_back_is_finished_for_all(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = {
        name: update_with(tmp_path / f"{name}-r.bsi", command("exit 1"), activation=RESTART)
        for name in BOTH
    }
    group.apply(files, now=NOW)
    step = [(moving, "write", 1), (live, "flip_together", 0), (moving, "settle", 0)]
    step.append((moving, "settle", 1))
    with Store(group.path("one")) as store:
        boot_begin(store, boot_id="1")
        _cut_at(monkeypatch, *step[number])
        with pytest.raises(KeyboardInterrupt):
            boot_ok(store, boot_id="1")
        monkeypatch.undo()
    with Store(group.path("one")) as store:
        recover(store)
    assert shown(group) == [OLD, OLD]
    sound(group)


def test_reverting_together(group: Group, updates: dict[str, Path]) -> None:
    group.apply(updates, now=NOW)
    with Store(group.path("one")) as store:
        store.revert()
    done = group.revert(remove=True, reason="enough")
    assert list(done) == ["two"], "the other is at its baseline"
    assert shown(group) == [OLD, OLD]
    with pytest.raises(StoreStateError, match="nothing to revert"):
        group.revert()
    group.apply(updates, now=NOW)
    assert len(group.revert()) == 2
    assert shown(group) == [OLD, OLD]
    sound(group)


def test_mistakes_are_named(group: Group, tmp_path: Path, base: Path, update: Path) -> None:
    with pytest.raises(UsageError):
        group.apply({})
    for bad in ("..", "a/b", "", ".hidden"):
        with pytest.raises(ManifestError):
            group.path(bad)
    with pytest.raises(NotFoundError, match="no such store"):
        group.apply({"three": update})
    with pytest.raises(NotFoundError, match="no such group"):
        Group(tmp_path / "nowhere").components()
    new_store(group.path("three"), base).close()
    assert group.components() == BOTH
    with pytest.raises(StoreStateError, match="not a component"):
        group.apply({"three": update}, now=NOW)


def test_an_adoption_cut_short_is_made_again(
    group: Group, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(group.path("three"), base).close()
    monkeypatch.setattr(durable, "replace_link", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        group.adopt("three")
    monkeypatch.undo()
    assert walk(group.path("three") / "current/tree") == OLD
    group.adopt("three")
    assert "three" in group.components()
    assert shown(group) == [OLD, OLD]


@pytest.mark.parametrize(
    "target",
    ["../../live/..", "../../live/", "../../live/a/b", "../../live/nobody", "../../live/two"],
)
def test_a_pointer_that_leads_astray_is_damage(group: Group, target: str) -> None:
    from bsipatch.errors import BsipatchError

    current = group.path("one") / "current"
    current.unlink()
    current.symlink_to(target)
    if target.endswith("two"):
        assert records.group_name(target) == "two"
        return  # another component's: check-store compares what it finds there
    with Store(group.path("one")) as store, pytest.raises(BsipatchError):
        store.status()


def test_names_of_stores(group: Group, store: Store) -> None:
    assert grouped.name_of(store.fd) is None
    with Store(group.path("one")) as one:
        assert grouped.name_of(one.fd) == "one"
