"""rehearse: all that apply and revert do, on a throw-away copy; the store stays as it was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    SignatureError,
    StoreBusyError,
    TreeDriftError,
    WrongProductError,
)
from bsipatch.store import Store, Work, apply, durable, live, rehearse, rehearsing
from bsipatch.store.lock import locked
from bsipatch.tree import walk
from tests.support.stores import NOW, base, clean, raises, store, update, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.updates import key, make_manifest, make_update, pack

__all__ = ["base", "store", "update"]


def untouched(store: Store) -> None:
    """Generation 0 is live and alone, and the history knows of nothing."""
    assert os.listdir(store.root / "generations") == ["0"]
    assert store.live().number == 0
    assert walk(store.live_path) == tree_of(OLD_FRAMEWORK)
    assert [event.event for event in store.history()] == ["init"]
    clean(store)


@pytest.mark.parametrize("strategy", [None, "copy", "hardlink"])
def test_it_tells_what_would_happen_and_leaves_nothing(
    store: Store, update: Path, strategy: str | None
) -> None:
    told: list[str] = []
    work = Work(jobs=2, progress=lambda phase, done, total: told.append(phase))
    done = rehearse(store, update, work=work, strategy=strategy, now=NOW)
    assert done.applied.generation.letter == "a"
    assert done.applied.generation.tree == tree_of(NEW_FRAMEWORK).digest
    assert done.applied.counts["add"] > 0
    assert done.reverted is not None
    assert (done.reverted.left.number, done.reverted.live.number) == (1, 0)
    assert list(done.phases) == [
        "verifying", "building", "syncing", "checking", "reverting", "removing",
    ]  # fmt: skip
    assert done.seconds == sum(done.phases.values()) > 0
    assert {"building", "checking"} <= set(told)
    untouched(store)
    assert apply(store, update, now=NOW).generation.number == 1


def test_what_is_live_already_needs_no_rehearsal(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    done = rehearse(store, update, now=NOW)
    assert done.applied.already
    assert done.reverted is None
    clean(store)


def test_from_an_improved_store(store: Store, update: Path, tmp_path: Path) -> None:
    apply(store, update, now=NOW)
    before = walk(store.live_path)
    next_one = written(tmp_path / "b.bsi", make_update(letter="b", build="b"))
    done = rehearse(store, next_one, now=NOW)
    assert done.reverted is not None
    assert done.reverted.live.number == 1
    assert store.live().number == 1
    assert walk(store.live_path) == before
    clean(store)


def test_it_refuses_what_apply_refuses(store: Store, tmp_path: Path) -> None:
    foreign = written(tmp_path / "foreign.bsi", pack(*make_manifest(), keys=[key(1)]))
    with pytest.raises(SignatureError):
        rehearse(store, foreign, now=NOW)
    other = written(tmp_path / "other.bsi", make_update(product="Other"))
    with pytest.raises(WrongProductError):
        rehearse(store, other, now=NOW)
    untouched(store)


def test_a_drifted_base_shows_in_the_rehearsal(store: Store, update: Path) -> None:
    demo = store.live_path / "Versions/A/Resources/same.dat"
    data = demo.read_bytes()
    demo.write_bytes(data[::-1])
    with pytest.raises(TreeDriftError):
        rehearse(store, update, now=NOW)
    demo.write_bytes(data)
    untouched(store)


@pytest.mark.parametrize("where", ["flip", "revert", "copy", "remove"])
def test_a_failure_anywhere_leaves_nothing(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    broken = OSError(5, "broken")
    if where == "flip":
        monkeypatch.setattr(live, "flip", raises(broken))
    elif where == "revert":
        monkeypatch.setattr(Store, "revert", raises(BsipatchError("broken")))
    elif where == "copy":
        monkeypatch.setattr(rehearsing.durable, "replace_link", raises(broken))
    else:
        calls: list[str] = []
        real = rehearsing._remove

        def failing_once(store: Store) -> None:
            calls.append("remove")
            if len(calls) == 2:
                raise broken
            real(store)

        monkeypatch.setattr(rehearsing, "_remove", failing_once)
    with pytest.raises((BsipatchError, OSError), match="broken"):
        rehearse(store, update, now=NOW)
    monkeypatch.undo()
    untouched(store)


def test_ctrl_c_leaves_nothing(store: Store, update: Path) -> None:
    stop = threading.Event()

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "checking":
            stop.set()

    with pytest.raises(CancelledError):
        rehearse(store, update, now=NOW, work=Work(progress=progress, stop=stop))
    untouched(store)


def test_what_a_crash_left_goes_and_takes_nothing_with_it(store: Store, update: Path) -> None:
    rehearsing._copy_records(store)
    assert (store.root / "rehearsal.tmp/generations/0/tree/Demo").is_symlink()
    with store.writing("gc") as recovered:
        assert "rehearsal.tmp" in " ".join(recovered)
    untouched(store)


def test_the_real_store_is_locked_meanwhile(store: Store, update: Path) -> None:
    with (
        locked(store.fd, "apply", timeout=0, file="store"),
        pytest.raises(StoreBusyError, match="apply"),
    ):
        rehearse(store, update, now=NOW)
    assert durable is rehearsing.durable
    untouched(store)
