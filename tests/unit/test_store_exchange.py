"""A live path that is a real directory: exchanged at each flip, and settled after any crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bsipatch.errors import (
    BsipatchError,
    ExistsError,
    NotFoundError,
    StoreStateError,
    SystemCallError,
    UsageError,
)
from bsipatch.store import Store, apply, check, durable, exchange, rehearse
from bsipatch.tree import walk
from tests.support.stores import NOW, base, new_store, update, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of, write_tree
from tests.support.updates import make_update

__all__ = ["base", "update"]

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """Where the live tree is wanted, as a real directory."""
    (tmp_path / "opt").mkdir()
    return tmp_path / "opt/Demo.framework"


@pytest.fixture
def store(tmp_path: Path, base: Path, live: Path) -> Store:
    try:
        return new_store(tmp_path / "store", base, live_path=live, live_mode="exchange")
    except StoreStateError as error:
        pytest.skip(f"NOT TESTED: {error.message}")


def whole(store: Store, live: Path) -> int:
    """Which generation is live; everything must agree on it, and nothing else lie about."""
    with store.writing("gc"):
        pass
    number = store.live().number
    assert exchange.shown(store.fd) == number
    assert not live.is_symlink()
    assert walk(live) == (NEW if number else OLD)
    assert walk(store.tree_path(number)) == walk(live)
    assert walk(store.tree_path(0)) == OLD
    assert os.listdir(live.parent) == [live.name]
    for folder in (store.root / "generations").iterdir():
        assert not (folder / "face.tmp").exists()
        if (folder / "face").exists():
            assert walk(folder / "face") == walk(folder / "tree")
            assert int(folder.name) != number
    return number


def test_apply_revert_and_back_again(store: Store, live: Path, update: Path) -> None:
    assert store.live_path == live
    assert whole(store, live) == 0
    with (live / "Versions/A/Demo").open("rb") as held:
        before = held.read()
        apply(store, update, now=NOW)
        assert whole(store, live) == 1
        held.seek(0)
        assert held.read() == before
    assert store.status().live == live
    store.revert()
    assert whole(store, live) == 0
    apply(store, update, now=NOW)
    store.revert()
    apply(store, update, now=NOW)
    store.collect()
    assert whole(store, live) > 1
    assert check(store).sound


def test_a_flip_to_a_face_that_is_there_makes_none(
    store: Store, live: Path, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, update, now=NOW)

    def fail(*arguments: object, **named: object) -> None:
        raise AssertionError("a revert must not clone a tree")

    monkeypatch.setattr(exchange, "import_tree", fail)
    monkeypatch.setattr(exchange.snapshot, "start_tree", fail)
    store.revert()
    monkeypatch.undo()
    assert whole(store, live) == 0


@pytest.mark.parametrize("what", ["absent", "empty", "equal"])
def test_init_takes_over(tmp_path: Path, base: Path, live: Path, what: str) -> None:
    if what == "empty":
        live.mkdir()
    if what == "equal":
        write_tree(live, OLD_FRAMEWORK)
    with new_store(tmp_path / "store", base, live_path=live, live_mode="exchange") as store:
        assert whole(store, live) == 0


def test_init_replaces_nothing_else(tmp_path: Path, base: Path, live: Path) -> None:
    def refused(error: type[BsipatchError], path: Path, mode: str = "exchange") -> None:
        with pytest.raises(error):
            new_store(tmp_path / "store", base, live_path=path, live_mode=mode)
        assert not (tmp_path / "store").exists()

    write_tree(live, {**OLD_FRAMEWORK, "precious": b"of its owner"})
    refused(ExistsError, live)
    refused(ExistsError, live, "symlink")
    assert (live / "precious").exists()
    (live.parent / "file").write_text("x")
    refused(ExistsError, live.parent / "file")
    (live.parent / "link").symlink_to(live)
    refused(ExistsError, live.parent / "link")
    refused(NotFoundError, tmp_path / "none/live")
    refused(UsageError, tmp_path / "store/live")
    assert sorted(os.listdir(live.parent)) == ["Demo.framework", "file", "link"]


def test_a_live_path_by_symlink(tmp_path: Path, base: Path, live: Path, update: Path) -> None:
    with new_store(tmp_path / "store", base, live_path=live) as store:
        assert walk(live.resolve()) == OLD
        apply(store, update, now=NOW)
        assert walk(live.resolve()) == NEW
        assert store.live_path == store.root / "current/tree"


def test_file_systems_that_cannot_exchange_are_refused(
    tmp_path: Path, base: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*arguments: object, **named: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(durable, "exchange", cannot)
    with pytest.raises(StoreStateError, match="cannot be exchanged"):
        new_store(tmp_path / "store", base, live_path=live, live_mode="exchange")
    assert not (tmp_path / "store").exists()
    assert os.listdir(live.parent) == []


def test_a_failed_exchange_leaves_the_old_tree(
    store: Store, live: Path, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "exchange", broken)
    with pytest.raises(SystemCallError):
        apply(store, update, now=NOW)
    monkeypatch.undo()
    assert whole(store, live) == 0


def test_a_pointer_that_fails_after_the_exchange_turns_it_back(
    store: Store, live: Path, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "replace_link", broken)
    with pytest.raises(SystemCallError):
        apply(store, update, now=NOW)
    monkeypatch.undo()
    assert walk(live) == OLD
    assert whole(store, live) == 0


def _apply(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)


def _revert(store: Store, update: Path) -> None:
    store.revert()


@pytest.mark.parametrize("deed", [_apply, _revert], ids=["apply", "revert"])
def test_killed_at_every_step(
    tmp_path: Path, base: Path, update: Path, deed: Callable[[Store, Path], None]
) -> None:
    """The process ends at the Nth durable step, for every N; recovery says which side is live."""
    steps = 0
    seen = set()
    while True:
        folder = tmp_path / f"run{steps}"
        (folder / "opt").mkdir(parents=True)
        live = folder / "opt/Demo.framework"
        with new_store(folder / "store", base, live_path=live, live_mode="exchange") as store:
            if deed is _revert:
                apply(store, update, now=NOW)
            child = os.fork()
            if child == 0:
                _die_at(steps)
                deed(store, update)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 7)
            assert walk(live) in (OLD, NEW)  # whole even before recovery
            shown = exchange.shown(store.fd)
            number = whole(store, live)
            assert shown == number
            seen.add(number)
            if code == 0:
                break
        steps += 1
    assert steps > 10
    assert seen == {0, 1}


def _die_at(step: int) -> None:
    """Ends this process, as a kill does, before its Nth durable step."""
    left = [step]

    def wrap(name: str) -> None:
        real = getattr(durable, name)

        def counted(*arguments: object, **named: object) -> object:
            if left[0] == 0:
                os._exit(7)
            left[0] -= 1
            return real(*arguments, **named)

        setattr(durable, name, counted)

    for name in (
        "sync_fd", "exchange", "move_new", "rename_new", "replace_link", "replace_file",
        "remove_file", "remove_tree",
    ):  # fmt: skip
        wrap(name)


def test_a_stranger_at_the_live_path_is_never_taken(
    store: Store, live: Path, update: Path, tmp_path: Path
) -> None:
    live.rename(tmp_path / "moved")
    write_tree(live, {"mine": b"not the store's"})
    with pytest.raises(StoreStateError, match="not put there by this store"):
        apply(store, update, now=NOW)
    assert (live / "mine").read_bytes() == b"not the store's"
    live.rename(tmp_path / "away")
    assert whole(store, live) == 0


def test_a_live_path_that_is_gone_comes_back(store: Store, live: Path, tmp_path: Path) -> None:
    live.rename(tmp_path / "moved")
    with store.writing("gc") as recovered:
        assert "put generation 0" in " ".join(recovered)
    assert whole(store, live) == 0


def test_check_looks_at_the_live_path_and_repairs_it(store: Store, live: Path) -> None:
    demo = live / "Versions/A/Demo"
    data = demo.read_bytes()
    demo.unlink()
    demo.write_bytes(data[::-1])
    (drift, *_) = check(store).drift
    assert drift.path == str(demo)
    assert check(store, repair=True).sound
    assert whole(store, live) == 0


def test_a_rehearsal_exchanges_nothing(store: Store, live: Path, update: Path) -> None:
    before = live.stat().st_ino
    rehearse(store, update, now=NOW)
    assert live.stat().st_ino == before
    assert whole(store, live) == 0


def test_the_second_update_replaces_the_first(store: Store, live: Path, tmp_path: Path) -> None:
    for letter in "abc":
        update = written(tmp_path / "u.bsi", make_update(letter=letter, build=letter))
        apply(store, update, now=NOW)
        assert walk(live) == NEW
    store.revert(baseline=True)
    assert walk(live) == OLD
    store.collect()
    assert whole(store, live) == 0
