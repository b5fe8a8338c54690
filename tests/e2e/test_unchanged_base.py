"""A btrfs base that nobody touched is not looked at again, and one that somebody did is."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import TreeDriftError
from bsipatch.store import Store, apply, check, readback, stage, unchanged
from bsipatch.tree import walk
from tests.support.stores import NOW, new_store, written
from tests.support.trees import Content, File, tree_of, write_tree
from tests.support.updates import make_update

pytestmark = pytest.mark.root

_OLD: dict[str, Content] = {
    **{f"part{n}": None for n in range(6)},
    **{f"part{n}/file{m}": f"{n} {m}\n".encode() * 400 for n in range(6) for m in range(4)},
    "part5/closed": File(b"closed", 0o444),
}
#: (a) changes one file and removes another, (b) keeps both and changes a third
_NEW_A = {p: c for p, c in _OLD.items() if p != "part0/file1"} | {"part0/file0": b"a" * 5000}
_NEW_B = {**_OLD, "part1/file0": b"b" * 5000}


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("NOT TESTED: mkfs.btrfs is not installed")
    folder = tmp_path_factory.mktemp("btrfs")
    image, place = folder / "image", folder / "place"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    place.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", "-f", str(image)], check=True, capture_output=True)
    mount = ["mount", "-t", "btrfs", "-o", "loop", str(image), str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: cannot mount btrfs here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def store(btrfs: Path, tmp_path: Path) -> Iterator[Store]:
    """A store on btrfs whose base was vouched for as a whole by a first apply of (a)."""
    root = btrfs / tmp_path.name
    with new_store(root, write_tree(tmp_path / "base", _OLD)) as made:
        update(tmp_path, "a", _NEW_A)
        yield made
    # subvolumes, and folders that may not be written to
    subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Set[str] | None]:
    """Where each apply looked: in these folders, or (None) everywhere."""
    found: list[Set[str] | None] = []
    plain = readback.confirm

    def confirm(*arguments: Any, folders: Set[str] | None = None, **named: Any) -> bool:
        found.append(folders)
        return plain(*arguments, folders=folders, **named)

    monkeypatch.setattr(readback, "confirm", confirm)
    return found


def update(folder: Path, letter: str, contents: dict[str, Content]) -> Path:
    made = make_update(_OLD, contents, letter=letter, build=f"25D{letter}")
    return written(folder / f"{letter}.bsi", made)


def test_only_what_changes_is_looked_at_the_second_time(
    store: Store, tmp_path: Path, looked: list[Set[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, tmp_path / "a.bsi", now=NOW)
    assert walk(store.live_path) == tree_of(_NEW_A)
    monkeypatch.setattr(stage, "drop_strangers", lambda *_: pytest.fail("listed the whole tree"))
    apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert walk(store.live_path) == tree_of(_NEW_B)
    # what (a) did not take over is looked at as well
    assert looked == [None, {"part0", "part1"}]
    apply(store, tmp_path / "a.bsi", now=NOW)
    assert walk(store.live_path) == tree_of(_NEW_A)
    assert looked[2] == {"part0", "part1"}
    assert check(store).sound
    # the new generation's witness knows the files that were not looked at
    store.revert(baseline=True)
    monkeypatch.undo()
    apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert check(store).sound


def _write(tree: Path) -> None:
    """In place, with the size and the times as before."""
    path = tree / "part3/file1"
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _map(tree: Path) -> None:
    with (tree / "part3/file1").open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        data[7] ^= 1


def _mode(tree: Path) -> None:
    (tree / "part5/closed").chmod(0o644)


def _remove(tree: Path) -> None:
    (tree / "part3/file1").unlink()


def _exchange(tree: Path) -> None:
    (tree / "part3/file1").rename(tree / "part3/x")
    (tree / "part3/file2").rename(tree / "part3/file1")
    (tree / "part3/x").rename(tree / "part3/file2")


def _link(tree: Path) -> None:
    (tree / "part3/file1").unlink()
    (tree / "part3/file1").symlink_to("file2")


@pytest.mark.parametrize("change", [_write, _map, _mode, _remove, _exchange, _link])
def test_whatever_changes_in_the_base_is_noticed(
    store: Store, tmp_path: Path, looked: list[Set[str] | None], change: Callable[[Path], None]
) -> None:
    apply(store, tmp_path / "a.bsi", now=NOW)
    change(store.tree_path(0))
    with pytest.raises(TreeDriftError, match="baseline drifted: part"):
        apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert set(looked) == {None}
    assert walk(store.live_path) == tree_of(_NEW_A)


def test_what_nobody_signed_does_not_come_along(
    store: Store, tmp_path: Path, looked: list[Set[str] | None]
) -> None:
    (store.tree_path(0) / "part4/stranger").write_bytes(b"x")
    apply(store, tmp_path / "a.bsi", now=NOW)
    apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert looked == [None, None]  # a base with strangers is never vouched for
    assert walk(store.live_path) == tree_of(_NEW_B)


@pytest.mark.parametrize("path", ["part0/file0", "part0/file1"])
def test_what_the_first_snapshot_did_not_take_over_is_not_vouched_for(
    store: Store, tmp_path: Path, path: str
) -> None:
    """Rot in a file that (a) replaces or removes shows as soon as (b) keeps it."""
    victim = store.tree_path(0) / path
    status = victim.stat()
    with victim.open("r+b") as file:
        file.write(b"X")
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    apply(store, tmp_path / "a.bsi", now=NOW)
    with pytest.raises(TreeDriftError, match=f"baseline drifted: {path}, other content"):
        apply(store, update(tmp_path, "b", _NEW_B), now=NOW)


def test_a_change_while_the_snapshot_is_made_is_noticed(
    store: Store, tmp_path: Path, looked: list[Set[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, tmp_path / "a.bsi", now=NOW)
    plain = unchanged.Unchanged.snapshot_made

    def late(self: unchanged.Unchanged) -> frozenset[str] | None:
        _mode(store.tree_path(0))
        return plain(self)

    monkeypatch.setattr(unchanged.Unchanged, "snapshot_made", late)
    apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert looked == [None, None]


@pytest.mark.parametrize("data", [b"", b"[1", b"null", b"[1,2,3,4,5]"])
def test_a_record_that_is_none_costs_a_look_at_everything(
    store: Store, tmp_path: Path, looked: list[Set[str] | None], data: bytes
) -> None:
    apply(store, tmp_path / "a.bsi", now=NOW)
    (store.root / "generations/0" / unchanged.UNCHANGED).write_bytes(data)
    apply(store, update(tmp_path, "b", _NEW_B), now=NOW)
    assert looked == [None, None]
    assert walk(store.live_path) == tree_of(_NEW_B)
