"""The new tree held against the signed entries, and bases that drifted where nobody reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bsipatch.errors import CancelledError, StoreDamagedError, TreeDriftError
from bsipatch.store import Store, Work, apply, check, confirming, eligibility, readback
from bsipatch.store.beneath import Beneath
from bsipatch.store.witness import Notes
from bsipatch.tree import State
from tests.support.stores import NOW, base, live_tree, store, update
from tests.support.trees import NEW_FRAMEWORK, tree_of, write_tree
from tests.support.updates import make_manifest

__all__ = ["base", "store", "update"]

NEW = tree_of(NEW_FRAMEWORK)
DEMO = "Versions/A/Demo"
SAME = "Versions/A/Resources/same.dat"
EXPECTED: dict[str, State] = {entry.path: entry.state for entry in NEW}


# --- what the update replaces may be anything ---


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "size": lambda path: path.write_bytes(b"x"),
    "mode": lambda path: path.chmod(0o600),
    "setuid": lambda path: path.chmod(0o4755),
    "missing": lambda path: path.unlink(),
    "link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "folder": _to_folder,
}


@pytest.mark.parametrize("strategy", [None, "copy"])
@pytest.mark.parametrize("how", CHANGES)
def test_a_whole_file_goes_over_whatever_is_there(
    store: Store, update: Path, how: str, strategy: str | None
) -> None:
    CHANGES[how](store.live_path / DEMO)
    apply(store, update, now=NOW, strategy=strategy)
    assert live_tree(store) == NEW
    assert {drift.generation for drift in check(store).drift} == {0}


def test_what_goes_may_be_gone(store: Store, update: Path) -> None:
    (store.live_path / "Versions/A/Resources/gone.txt").unlink()
    apply(store, update, now=NOW)
    assert live_tree(store) == NEW


@pytest.mark.parametrize("how", sorted(set(CHANGES) - {"folder"}))
@pytest.mark.parametrize("name", [SAME, "Versions/A/Resources/en.lproj/strings"])
def test_what_is_kept_or_cloned_may_not_have_drifted(
    store: Store, update: Path, name: str, how: str
) -> None:
    CHANGES[how](store.live_path / name)
    with pytest.raises(TreeDriftError, match=r"baseline drifted: Versions/A/Resources/"):
        apply(store, update, now=NOW)
    assert store.status().unfinished == ()


def test_only_what_is_read_is_looked_at() -> None:
    manifest, _ = make_manifest()
    read = {entry.path for entry in eligibility.entries_read(manifest)}
    assert {SAME, "Demo", "Versions"} <= read
    assert not {DEMO, "Versions/A/Resources/gone.txt"} & read
    fewer = {entry.path for entry in eligibility.entries_read(manifest, untouched=False)}
    assert "Versions" in fewer
    assert not {SAME, "Demo"} & fewer
    sources = {a.source for a in manifest.actions if a.do == "clone"}
    assert sources
    assert sources <= fewer


def test_room_is_asked_for_what_is_new_alone() -> None:
    manifest, _ = make_manifest()
    results = [(a.do, a.result) for a in manifest.actions if a.result is not None]
    kept = [state for do, state in results if do == "keep" and state.kind == "file"]
    cloned = [state for do, state in results if do == "clone"]
    assert kept
    declared = manifest.required_space
    copied = sum(state.size for state in (*kept, *cloned))
    assert eligibility.room(manifest, "snapshot") == (declared, len(results))
    assert eligibility.room(manifest, "reflink") == (declared, len(results))
    assert eligibility.room(manifest, "hardlink") == (declared, len(results) - len(kept))
    assert eligibility.room(manifest, "copy") == (declared + copied, len(results))


# --- entry by entry ---


def _confirms(root: Path, notes: Notes | None = None, work: Work | None = None) -> bool:
    with Beneath(root) as tree:
        return confirming.confirm(tree, EXPECTED, work=work or Work(jobs=2), notes=notes or Notes())


def test_a_tree_as_signed_is_confirmed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", NEW_FRAMEWORK)
    assert _confirms(root)
    assert _confirms(root), "asking changes nothing"


@pytest.mark.parametrize("how", CHANGES)
def test_no_changed_file_is_confirmed(tmp_path: Path, how: str) -> None:
    root = write_tree(tmp_path / "tree", NEW_FRAMEWORK)
    CHANGES[how](root / DEMO)
    assert not _confirms(root)


OTHERS: dict[str, Callable[[Path], object]] = {
    "added file": lambda root: (root / "Versions/new").write_text("x"),
    "added folder": lambda root: (root / "empty").mkdir(),
    "added name that is no text": lambda root: os.mkdir(os.fsencode(root) + b"/\xff"),
    "folder's mode": lambda root: (root / "Versions").chmod(0o700),
    "folder gone": lambda root: shutil.rmtree(root / "Versions/A/Helpers"),
    "folder is a file": lambda root: (
        shutil.rmtree(root / "Versions/A/Helpers"),
        (root / "Versions/A/Helpers").write_text("x"),
    ),
    "folder is a link": lambda root: (
        (root / "Versions/A/Helpers").rename(root.parent / "moved"),
        (root / "Versions/A/Helpers").symlink_to(root.parent / "moved"),
    ),
    "link elsewhere": lambda root: (
        (root / "Demo").unlink(),
        (root / "Demo").symlink_to("Versions/A/Demo"),
    ),
    "link is a file": lambda root: ((root / "Demo").unlink(), (root / "Demo").write_text("x")),
    "fifo": lambda root: ((root / DEMO).unlink(), os.mkfifo(root / DEMO, 0o755)),
}


@pytest.mark.parametrize("how", OTHERS)
def test_no_other_tree_is_confirmed(tmp_path: Path, how: str) -> None:
    root = write_tree(tmp_path / "tree", NEW_FRAMEWORK)
    OTHERS[how](root)
    assert not _confirms(root)


def test_what_is_recalled_is_not_read_and_must_be_right(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", NEW_FRAMEWORK)
    (root / DEMO).write_bytes(b"x" * EXPECTED[DEMO].size)
    claims = {DEMO: EXPECTED[DEMO]}
    notes = Notes(lambda path, status: claims.get(path))
    assert _confirms(root, notes), "it was vouched for, and so not read"
    assert notes.skipped == 1
    claims[DEMO] = EXPECTED[SAME]
    assert not _confirms(root, Notes(lambda path, status: claims.get(path)))


def test_confirming_can_be_stopped(tmp_path: Path) -> None:
    import threading

    root = write_tree(tmp_path / "tree", NEW_FRAMEWORK)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        _confirms(root, work=Work(stop=stop))


def test_applying_does_not_walk_a_tree_that_is_right(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walking(*_: object, **__: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(readback, "walk", walking)
    monkeypatch.setattr(Store, "expected_tree", walking)
    apply(store, update, now=NOW)
    assert live_tree(store) == NEW


# --- the record of the baseline ---


@pytest.mark.parametrize(
    "harm", [(b'"mode":', b'"mode":9999999999'), (b'"digest":"', b'"digest":"zz')]
)
def test_a_record_with_impossible_numbers_is_damage(
    store: Store, harm: tuple[bytes, bytes]
) -> None:
    path = store.root / "generations/0/tree.json"
    data = path.read_bytes()
    assert harm[0] in data
    path.write_bytes(data.replace(*harm, 1))
    with pytest.raises(StoreDamagedError, match=r"tree\.json"):
        store.expected_tree(0)
