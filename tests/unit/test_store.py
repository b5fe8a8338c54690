"""The store as a whole: making one, applying, reverting, collecting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bsipatch import errors
from bsipatch.errors import (
    ExistsError,
    NotFoundError,
    StoreStateError,
    UsageError,
    WrongBaselineError,
)
from bsipatch.manifest import StacksOn
from bsipatch.store import (
    Store,
    Work,
    apply,
    check,
    making,
)
from bsipatch.tree import walk
from tests.support import updates
from tests.support.stores import (
    NOW,
    THIRD,
    clean,
    live_tree,
    new_store,
    raises,
    written,
)
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, tree_of
from tests.support.updates import make_update

# --- init ---


def test_init_copies_the_tree_and_makes_it_live(store: Store, base: Path) -> None:
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)
    assert store.identity.baseline == tree_of(OLD_FRAMEWORK).digest
    live_file = store.live_path / "Versions/A/Demo"
    assert live_file.stat().st_ino != (base / "Versions/A/Demo").stat().st_ino
    status = store.status()
    assert status.live == store.root / "current/tree"
    assert (status.generation.display, status.generation.letter) == ("26.3.1", "")
    assert status.reachable == ()
    assert [event.event for event in store.history()] == ["init"]
    clean(store)


def test_init_refuses_what_is_there(store: Store, tmp_path: Path, base: Path) -> None:
    with pytest.raises(ExistsError, match="store is there already"):
        new_store(store.root, base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(ExistsError, match="mine"):
        new_store(tmp_path / "full", base)
    assert (tmp_path / "full/mine").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ExistsError):
        new_store(tmp_path / "file", base)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)


def test_init_refuses_bad_places_and_names(tmp_path: Path, base: Path) -> None:
    with pytest.raises(NotFoundError):
        new_store(tmp_path / "store", tmp_path / "nowhere")
    with pytest.raises(UsageError):
        new_store(base / "store", base)
    for bad in ({"version": "26.3.1 (a)"}, {"product": "../x"}, {"build": ""}):
        with pytest.raises(errors.ManifestError):
            new_store(tmp_path / "store", base, **bad)
    with pytest.raises(errors.TrustError):
        new_store(tmp_path / "store", base, keys=[])
    assert not (tmp_path / "store").exists()


def test_a_failed_init_leaves_nothing(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(base / "fifo")
    with pytest.raises(errors.UnsafePathError):
        new_store(tmp_path / "store", base)
    assert not (tmp_path / "store").exists()
    (base / "fifo").unlink()
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(making, "read_back", raises(OSError(errno.EIO, "disk")))
    with pytest.raises(errors.SystemCallError):
        new_store(tmp_path / "empty", base)
    assert set(os.listdir(tmp_path / "empty")) <= {"lock"}
    monkeypatch.undo()
    new_store(tmp_path / "empty", base).close()


def test_init_goes_over_what_an_interrupted_init_left(tmp_path: Path, base: Path) -> None:
    root = tmp_path / "store"
    (root / "generations/0/tree").mkdir(parents=True)
    (root / "generations/0/tree/junk").touch()
    (root / "lock").touch()
    with new_store(root, base) as store:
        assert live_tree(store) == tree_of(OLD_FRAMEWORK)


def test_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    for name in ("none", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(NotFoundError, match="store"):
            Store(tmp_path / name)


# --- apply, revert, again ---


@pytest.mark.parametrize("strategy", [None, "copy", "hardlink"])
@pytest.mark.parametrize("jobs", [1, 4])
def test_apply_gives_exactly_the_new_tree(
    store: Store, update: Path, strategy: str | None, jobs: int
) -> None:
    seen: list[tuple[str, int, int]] = []
    work = Work(jobs=jobs, progress=lambda *told: seen.append(told))
    done = apply(store, update, work=work, strategy=strategy, now=NOW)
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)
    assert walk(store.tree_path(0)) == tree_of(OLD_FRAMEWORK)
    assert (done.generation.number, done.was.number, done.already) == (1, 0, False)
    assert done.generation.display == "26.3.1 (a)"
    status = store.status()
    assert (status.generation.version, status.generation.letter) == ("26.3.1", "a")
    assert [back.number for back in status.reachable] == [0]
    phases = list(dict.fromkeys(phase for phase, _, _ in seen))
    assert phases == ["building", "syncing", "checking"]
    assert all(done <= total for _, done, total in seen)
    assert seen[-1][1] == seen[-1][2] == tree_of(NEW_FRAMEWORK).size
    assert check(store).sound
    clean(store)


def test_changed_files_are_new_and_kept_ones_are_shared(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)

    def inode(number: int, path: str) -> int:
        return (store.tree_path(number) / path).stat().st_ino

    changed, kept = "Versions/A/Demo", "Versions/A/Resources/same.dat"
    assert inode(0, changed) != inode(1, changed)
    if store.live().strategy == "hardlink":
        assert inode(0, kept) == inode(1, kept)


def test_applying_twice_says_so_and_does_nothing(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    before = store.history()
    done = apply(store, update, now=NOW)
    assert done.already
    assert store.status().generations == (0, 1)
    assert store.history() == before


def test_revert_and_apply_again(store: Store, update: Path) -> None:
    apply(store, update, now=NOW)
    done = store.revert()
    assert (done.left.number, done.live.number) == (1, 0)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)
    with pytest.raises(StoreStateError, match="nothing to revert"):
        store.revert()
    apply(store, update, now=NOW)
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)
    assert [event.event for event in store.history()] == ["init", "apply", "revert", "apply"]
    assert store.live().number == 2, "a number is never used twice"


def test_a_second_improvement_replaces_the_first(
    store: Store, update: Path, tmp_path: Path
) -> None:
    second = written(tmp_path / "b.bsi", make_update(new=THIRD, letter="b", build="25D771280b"))
    apply(store, update, now=NOW)
    apply(store, second, now=NOW)
    assert live_tree(store) == tree_of(THIRD), "nothing of (a) is left"
    assert store.live().base == 0
    assert [back.display for back in store.status().reachable] == ["26.3.1 (a)", "26.3.1"]
    store.revert()
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)
    apply(store, second, now=NOW)
    store.revert(baseline=True)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)


def test_an_improvement_stacks_only_when_it_says_so(
    store: Store, update: Path, tmp_path: Path
) -> None:
    first = tree_of(NEW_FRAMEWORK).digest
    final = {**NEW_FRAMEWORK, "Versions/A/Resources/Info.plist": b"stacked"}
    stacked = written(
        tmp_path / "b.bsi",
        make_update(
            old=NEW_FRAMEWORK,
            new=final,
            letter="b",
            baseline=updates.Baseline(version="26.3.1", digest=tree_of(OLD_FRAMEWORK).digest),
            stacks_on=StacksOn(letter="a", digest=first),
        ),
    )
    with pytest.raises(WrongBaselineError, match="stacks on"):
        apply(store, stacked, now=NOW)
    apply(store, update, now=NOW)
    done = apply(store, stacked, now=NOW)
    assert done.generation.base == 1
    assert live_tree(store) == tree_of(final)
    store.revert(baseline=True)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)


def test_gc_keeps_baseline_live_and_previous(store: Store, update: Path, tmp_path: Path) -> None:
    for index in range(4):
        new = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"%d" % index}
        made = make_update(new=new, letter="abcd"[index], build=f"1{index}")
        apply(store, written(tmp_path / f"{index}.bsi", made), now=NOW)
    done = store.collect()
    assert (done.removed, done.kept) == ((1, 2), (0, 3, 4))
    assert done.freed > 0
    assert store.collect().removed == ()
    clean(store)
    store.revert()
    assert (store.live_path / "Versions/A/Resources/Info.plist").read_bytes() == b"2"
    assert store.revert().live.number == 0, "what was collected is skipped"
    store.collect()
    assert store.status().generations == (0,)
    assert check(store).sound


def test_changed_modes_and_folders(store: Store, tmp_path: Path) -> None:
    plist_bytes = OLD_FRAMEWORK["Versions/A/Resources/Info.plist"]
    assert isinstance(plist_bytes, bytes)
    new = {
        **OLD_FRAMEWORK,
        "Versions/A/Resources/Info.plist": File(plist_bytes, 0o600),
        "Versions/A/Deep/er/file": b"x",
        "Versions/A/void": None,
    }
    apply(store, written(tmp_path / "a.bsi", make_update(new=new)), now=NOW)
    assert live_tree(store) == tree_of(new)
    plist = store.tree_path(0) / "Versions/A/Resources/Info.plist"
    assert stat.S_IMODE(plist.stat().st_mode) == 0o644, "the baseline's file keeps its mode"
