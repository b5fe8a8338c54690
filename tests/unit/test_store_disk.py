"""status --disk: what each generation takes, and shares, by hard links and by clones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bsipatch.errors import CancelledError
from bsipatch.store import Store, Work, apply, disk_usage, snapshot
from tests.support.stores import NOW, base, store, update
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of

__all__ = ["base", "store", "update"]


def _blocks(store: Store, number: int) -> int:
    """Bytes on disk of a generation's tree, every name counted."""
    return sum(
        path.lstat().st_blocks * 512
        for path in store.tree_path(number).rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def test_copies_share_nothing(store: Store, update: Path) -> None:
    apply(store, update, now=NOW, strategy="copy")
    usage = disk_usage.measure(store.fd, store.file)
    assert [one.generation for one in usage.generations] == [0, 1]
    assert [one.apparent for one in usage.generations] == [
        tree_of(OLD_FRAMEWORK).size, tree_of(NEW_FRAMEWORK).size,
    ]  # fmt: skip
    if snapshot.probe(store.fd) == "hardlink":
        for one in usage.generations:
            assert (one.exclusive, one.shared) == (_blocks(store, one.generation), 0)
        assert usage.total == _blocks(store, 0) + _blocks(store, 1)


def test_hard_links_are_shared_and_counted_once(store: Store, update: Path) -> None:
    if snapshot.probe(store.fd) != "hardlink":
        pytest.skip("NOT TESTED: files are cloned here, see tests/e2e/test_snapshots.py")
    apply(store, update, now=NOW, strategy="hardlink")
    linked = sum(
        path.lstat().st_blocks * 512
        for path in store.live_path.rglob("*")
        if path.is_file() and not path.is_symlink() and path.lstat().st_nlink > 1
    )
    assert linked > 0
    usage = disk_usage.measure(store.fd, store.file)
    for one in usage.generations:
        assert one.shared == linked
        assert one.exclusive == _blocks(store, one.generation) - linked
    assert usage.total == sum(one.exclusive for one in usage.generations) + linked


def test_two_names_in_one_generation_are_not_shared(store: Store) -> None:
    tree = store.tree_path(0)
    same = tree / "Versions/A/Resources/same.dat"
    before = disk_usage.measure(store.fd, store.file).generations[0]
    os.link(same, tree / "second")
    after = disk_usage.measure(store.fd, store.file).generations[0]
    assert (after.exclusive, after.shared) == (before.exclusive, before.shared)
    assert after.apparent == before.apparent + same.stat().st_size


def test_links_are_not_followed_and_devices_not_opened(store: Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    before = disk_usage.measure(store.fd, store.file)
    (store.tree_path(0) / "link").symlink_to(tmp_path)
    os.mkfifo(store.tree_path(0) / "fifo")
    assert disk_usage.measure(store.fd, store.file) == before


def test_the_union_of_extents() -> None:
    extents = iter([(0, 10), (5, 10), (100, 1), (100, 1), (16, 4)])
    assert disk_usage._union(extents) == 15 + 4 + 1


def test_it_can_be_stopped(store: Store) -> None:
    import threading

    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        disk_usage.measure(store.fd, store.file, work=Work(stop=stop))


def test_the_option(store: Store, update: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bsipatch.cli import main

    def told(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["status", "--store", str(store.root), *options])
        assert ended.value.code == 0
        return capsys.readouterr().out

    apply(store, update, now=NOW, strategy="copy")
    disk = json.loads(told("--disk", "--json"))["disk"]
    assert [one["generation"] for one in disk["generations"]] == [0, 1]
    assert set(disk["generations"][0]) == {"generation", "apparent", "exclusive", "shared"}
    assert "of its own" in told("--disk")
    assert "disk" not in json.loads(told("--json"))
