"""A revert's two syncs, and what it leaves to the next writer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsipatch.errors import PolicyError, StoreDamagedError
from bsipatch.store import Store, Terms, apply, bars, durable, history, moving, records, recover
from tests.support.stores import NOW, THIRD, base, live_tree, raises, store, update, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.trials import words
from tests.support.updates import make_update

__all__ = ["base", "store", "update"]

OLD, NEW = tree_of(OLD_FRAMEWORK), tree_of(NEW_FRAMEWORK)


@pytest.fixture
def reverted(store: Store, update: Path) -> Store:
    apply(store, update, now=NOW)
    store.revert(reason="slow")
    return store


def test_two_syncs_and_no_more(store: Store, update: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(store, update, now=NOW)
    synced: list[str] = []
    real = os.fsync

    def counting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", counting)
    monkeypatch.setattr(durable, "sync_file_system", raises(AssertionError("syncfs")))
    store.revert()
    assert [os.path.basename(path).startswith(".pending.json") for path in synced] == [True, False]
    assert synced[1] == str(store.root)


def test_all_of_it_is_told_at_once(reverted: Store, update: Path) -> None:
    assert [(bar.letter, bar.why, bar.reason) for bar in reverted.bars()] == [
        ("a", "owner", "slow")
    ]
    assert words(reverted) == ["init", "apply", "revert"]
    status = reverted.status()
    assert (status.unfinished, status.trial) == ((), None)
    assert not (reverted.root / records.BARS).exists(), "the record has it"
    with pytest.raises(PolicyError, match="slow"):
        apply(reverted, update, now=NOW, terms=Terms(automatic=True))


def test_the_next_writer_folds_it_without_a_word(reverted: Store) -> None:
    before = reverted.bars()
    done = recover(reverted)
    assert (done.found, done.done) == ((), ())
    assert not (reverted.root / records.MOVED).exists()
    assert reverted.bars() == before
    assert (reverted.root / records.BARS).exists()
    assert words(reverted) == ["init", "apply", "revert"]


@pytest.mark.parametrize("lost", ["line", "half a line"])
def test_a_line_that_a_power_cut_took_is_written_again(reverted: Store, lost: str) -> None:
    path = reverted.root / history.HISTORY
    *kept, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept) + (last[:9] if lost == "half a line" else b""))
    assert "again" in recover(reverted).done[0]
    assert words(reverted) == ["init", "apply", "revert"]
    assert reverted.history()[-1].reason == "slow"
    assert recover(reverted).done == ()
    assert [bar.reason for bar in reverted.bars()] == ["slow"]


def test_a_record_that_a_power_cut_brings_back_is_settled(reverted: Store) -> None:
    (reverted.root / records.MOVED).rename(reverted.root / records.PENDING)
    assert reverted.status().unfinished == (records.PENDING,)
    (told,) = recover(reverted).done
    assert told.startswith("finished an interrupted revert, begun 20")
    assert told.endswith(": generation 0 is live")
    assert words(reverted) == ["init", "apply", "revert"]
    assert [bar.reason for bar in reverted.bars()] == ["slow"]
    assert recover(reverted).done == ()


@pytest.mark.parametrize("name", ["put", "make_last", "remove_file"])
def test_folding_can_be_cut_anywhere(
    reverted: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = {"put": bars, "make_last": history, "remove_file": durable}[name]
    monkeypatch.setattr(module, name, raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        recover(reverted)
    monkeypatch.undo()
    assert [bar.reason for bar in reverted.bars()] == ["slow"]
    assert recover(reverted).done == ()
    assert [bar.reason for bar in reverted.bars()] == ["slow"]
    assert words(reverted) == ["init", "apply", "revert"]


def test_a_full_disk_folds_later_and_loses_no_bar(
    store: Store, update: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, update, now=NOW)
    apply(
        store, written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2")), now=NOW
    )
    store.revert()
    monkeypatch.setattr(bars, "put", raises(OSError(28, "full")))
    store.revert()
    monkeypatch.undo()
    assert live_tree(store) == OLD
    assert [bar.letter for bar in store.bars()] == ["b", "a"]
    assert recover(store).done == ()
    assert [bar.letter for bar in store.bars()] == ["b", "a"]


def test_what_was_told_is_not_told_again_by_a_late_fold(
    reverted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "put", raises(OSError(28, "full")))
    reverted.collect()
    monkeypatch.undo()
    assert (reverted.root / records.MOVED).exists()
    told = words(reverted)
    assert recover(reverted).done == ()
    assert words(reverted) == told
    assert not (reverted.root / records.MOVED).exists()


def test_a_record_that_cannot_be_read_keeps_nobody_from_going_back(
    store: Store, update: Path, tmp_path: Path
) -> None:
    apply(store, update, now=NOW)
    apply(
        store, written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="2")), now=NOW
    )
    store.revert()
    assert live_tree(store) == NEW
    (store.root / records.MOVED).write_bytes(b"rubbish")
    with pytest.raises(StoreDamagedError, match=r"moved\.json"):
        store.bars()
    store.revert()
    assert live_tree(store) == OLD
    assert [bar.letter for bar in store.bars()] == ["a"]


def test_lifting_the_bar_of_the_last_move(reverted: Store, update: Path) -> None:
    assert [bar.letter for bar in reverted.allow("a")] == ["a"]
    assert reverted.bars() == ()
    assert recover(reverted).done == ()
    assert reverted.bars() == ()
    apply(reverted, update, now=NOW, terms=Terms(automatic=True))


def test_going_back_after_a_failure_is_settled_at_once(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    pending = records.Pending(
        new=0, old=1, source="", started=records.now(), verb="back", reason="undone"
    )
    with store.writing("test"):
        assert moving.move(store.fd, store.file, store.limits, pending) == []
    assert not (store.root / records.MOVED).exists()
    assert not (store.root / records.PENDING).exists()
