"""What failures and interruptions leave of a store: all of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bsipatch import errors, trust
from bsipatch.errors import (
    StoreBusyError,
    StoreDamagedError,
)
from bsipatch.store import (
    Store,
    apply,
    applying,
    check,
    durable,
    filling,
    live,
    records,
    snapshot,
)
from tests.support.stores import (
    NOW,
    clean,
    live_tree,
    new_store,
    raises,
    written,
)
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.updates import key, make_update

# --- interruption and recovery ---


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (filling, "make_durable"),
        (filling, "check_result"),
        (filling.Stage, "build"),
        (durable, "rename_new"),
        (live, "flip"),
        (snapshot, "place"),
        (snapshot, "try_link"),
    ],
)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "disk"), KeyboardInterrupt()], ids=repr)
def test_a_failure_anywhere_before_the_flip_leaves_the_old_tree(
    store: Store,
    update: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    error: BaseException,
) -> None:
    monkeypatch.setattr(module, name, raises(error))
    with pytest.raises((errors.BsipatchError, KeyboardInterrupt)):
        apply(store, update, now=NOW)
    monkeypatch.undo()
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)
    assert store.status().generations == (0,)
    clean(store)
    apply(store, update, now=NOW)
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)


def test_a_lost_history_line_is_made_good(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying.history, "append", raises(OSError(errno.EIO, "disk")))
    with pytest.raises(errors.SystemCallError):
        apply(store, update, now=NOW)
    monkeypatch.undo()
    assert live_tree(store) == tree_of(NEW_FRAMEWORK), "the flip stands"
    with store.writing("test") as done:
        assert done
    assert store.history()[-1].event == "recovered"
    assert store.history()[-1].live == 1
    clean(store)
    with store.writing("test") as done:
        assert done == []


def test_leftovers_are_shown_and_cleared(store: Store, update: Path) -> None:
    stage = store.root / "generations/7.tmp/tree/sub"
    stage.mkdir(parents=True)
    (stage / "file").touch()
    stage.chmod(0o500)
    (store.root / "trash/3").mkdir(parents=True)
    (store.root / ".current.abc.tmp").symlink_to("generations/7")
    assert store.status().unfinished == (".current.abc.tmp", "generations/7.tmp", "trash")
    done = apply(store, update, now=NOW)
    assert len(done.recovered) == 3
    clean(store)


def test_a_generation_that_was_never_activated_goes(store: Store, update: Path) -> None:
    (store.root / "generations/1/tree").mkdir(parents=True)
    pending = records.Pending(new=1, old=0, source="x", started=records.now())
    (store.root / records.PENDING).write_bytes(records.encode(pending))
    with store.writing("test") as done:
        assert "never activated" in done[0]
    assert store.status().generations == (0,)
    clean(store)


def test_a_damaged_store_says_what_is_wrong(store: Store) -> None:
    current = store.root / "current"
    for target in ("generations/9", "/etc", "generations/../..", "generations/0/tree"):
        current.unlink()
        current.symlink_to(target)
        with pytest.raises(StoreDamagedError):
            store.revert()
    current.unlink()
    with pytest.raises(StoreDamagedError, match="current"):
        store.status()
    current.symlink_to("generations/0")
    record = store.root / "generations/0/generation.json"
    good = record.read_bytes()
    for bad in (b"", b"{}", b"\xff", good.replace(b'"number": 0', b'"number": 5')):
        record.write_bytes(bad)
        with pytest.raises(StoreDamagedError):
            store.status()
    record.write_bytes(good)
    entries = store.root / "generations/0/tree.json"
    entries.write_bytes(entries.read_bytes().replace(b"493", b"448", 1))
    with pytest.raises(StoreDamagedError, match="not those of init"):
        store.expected_tree(0)


@pytest.mark.parametrize("applied", [False, True])
def test_a_pointer_that_somebody_removed_is_made_again(
    store: Store, update: Path, applied: bool
) -> None:
    if applied:
        apply(store, update, now=NOW)
    before = live_tree(store)
    (store.root / "current").unlink()
    with pytest.raises(StoreDamagedError, match="bsipatch recover"):
        store.status()
    with store.writing("test") as done:
        assert done == [f"`current` was gone: it leads to generation {int(applied)} again, as last"]
    assert live_tree(store) == before
    clean(store)
    with store.writing("test") as done:
        assert done == []
    if applied:
        store.revert()
        assert live_tree(store) == tree_of(OLD_FRAMEWORK)


def test_a_pointer_is_not_guessed(store: Store) -> None:
    (store.root / "current").unlink()
    history = store.root / "history.jsonl"
    for unknown in (b"", history.read_bytes().replace(b'"live":0', b'"live":7')):
        assert unknown != history.read_bytes()
        history.write_bytes(unknown)
        with pytest.raises(StoreDamagedError, match="is missing"):
            store.revert()
        assert not os.path.lexists(store.root / "current")


def test_one_writer_at_a_time(store: Store, update: Path) -> None:
    with store.writing("gc"):
        for act in (store.revert, store.collect, lambda: check(store)):
            with pytest.raises(StoreBusyError, match=str(os.getpid())):
                act()
        with pytest.raises(StoreBusyError):
            apply(store, update, now=NOW)
        assert "gc" in (store.status().busy or "")
        assert store.history()


def test_revert_does_not_read_the_tree(store: Store, update: Path) -> None:
    """A tree that nobody may look into is reverted to all the same."""
    apply(store, update, now=NOW, strategy="copy")
    (store.tree_path(0) / "Versions/A/Demo").unlink()
    assert store.revert().live.number == 0


def test_generations_are_collected_beyond_the_limit(tmp_path: Path, base: Path) -> None:

    from bsipatch.limits import DEFAULT

    new_store(tmp_path / "store", base).close()
    with Store(tmp_path / "store", limits=DEFAULT.but(max_generations=3)) as store:
        for index in range(5):
            new = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"%d" % index}
            made = make_update(new=new, letter="abcde"[index], build=f"1{index}")
            apply(store, written(tmp_path / f"{index}.bsi", made), now=NOW)
            assert len(store.status().generations) <= 3


def test_the_store_trusts_only_its_own_keys(store: Store) -> None:
    assert isinstance(store.policy(), trust.Policy)
    assert set(store.policy().keys) == {key().key_id}
