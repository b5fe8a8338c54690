"""Generations as btrfs snapshots, clones on XFS and overlays, and what they cost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsipatch.errors import StoreStateError, TreeDriftError
from bsipatch.store import apply, btrfs, check, disk_usage, records, rehearse, snapshot
from bsipatch.store.sharing import SharingWriter
from bsipatch.store.witness import Notes
from bsipatch.tree import Tree, walk
from tests.support.stores import NOW, new_store, written
from tests.support.trees import (
    NEW_FRAMEWORK,
    OLD_FRAMEWORK,
    Content,
    File,
    Link,
    tree_of,
    write_tree,
)
from tests.support.updates import make_update

pytestmark = pytest.mark.root


@contextlib.contextmanager
def _mount(folder: Path, make: list[str], kind: str) -> Iterator[Path]:
    """A fresh file system; skips loudly where that is not permitted."""
    if shutil.which(make[0]) is None:
        pytest.skip(f"NOT TESTED on {kind}: {make[0]} is not installed")
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*make, str(image)], check=True, capture_output=True)
    place = Path(tempfile.mkdtemp(prefix="bsipatch-"))  # one that every user may reach
    try:
        mount = ["mount", "-t", kind, "-o", "loop", str(image), str(place)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"NOT TESTED on {kind}: cannot mount here: {done.stderr.strip()}")
        try:
            place.chmod(0o755)
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
    finally:
        place.rmdir()


@pytest.fixture(scope="module")
def on_btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    make = ["mkfs.btrfs", "-q", "-f"]
    with _mount(tmp_path_factory.mktemp("btrfs"), make, "btrfs") as place:
        yield place


@pytest.fixture(scope="module")
def on_xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    make = ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"]
    with _mount(tmp_path_factory.mktemp("xfs"), make, "xfs") as place:
        yield place


@pytest.fixture
def fresh(on_btrfs: Path, tmp_path: Path) -> Path:
    """An empty folder on btrfs."""
    folder = on_btrfs / tmp_path.name
    folder.mkdir()
    return folder


def _subvolumes(place: Path) -> int:
    done = subprocess.run(
        ["btrfs", "subvolume", "list", str(place)], check=True, capture_output=True, text=True
    )
    return len(done.stdout.splitlines())


CASES: dict[str, tuple[dict[str, Content], dict[str, Content]]] = {
    "framework": (OLD_FRAMEWORK, NEW_FRAMEWORK),
    "back": (NEW_FRAMEWORK, OLD_FRAMEWORK),
    "file becomes folder": ({"a": b"1" * 99, "z": b""}, {"a/b/c": b"1" * 99, "z": b""}),
    "folder becomes file": ({"a/b/c": b"1" * 99, "a/d": b"2"}, {"a": b"2"}),
    "file becomes link": ({"a": b"1", "b": b"2"}, {"a": Link("b"), "b": b"2"}),
    "link becomes file": ({"a": Link("b"), "b": b"2"}, {"a": b"2", "b": b"2"}),
    "link becomes folder": ({"a": Link("b"), "b": b"2"}, {"a/x": b"2", "b": b"2"}),
    "link leads elsewhere": ({"a": Link("b"), "b": b"", "c": b""}, {"a": Link("c"), "b": b""}),
    "modes": (
        {"d/a": File(b"1" * 999, 0o600), "d/b": b"same"},
        {"d/a": File(b"1" * 999, 0o755), "d/b": b"same"},
    ),
    "folders go": ({"a/b/c/d": b"1", "e": b"2"}, {"e": b"2"}),
    "empty folders": ({"a": None, "b/c": None}, {"b": None, "d/e": None}),
    "files swap": ({"a": b"1" * 999, "b": b"2" * 999}, {"a": b"2" * 999, "b": b"1" * 999}),
    "everything new": ({"a": b"1"}, {"b": b"2" * 9999, "c/d": b"3"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_snapshot_becomes_exactly_the_new_tree(fresh: Path, case: str) -> None:
    old, new = CASES[case]
    base = write_tree(fresh / "base", old)
    before = _subvolumes(fresh)
    with new_store(fresh / "store", base) as store:
        assert store.live().strategy == "snapshot"
        assert walk(store.live_path) == tree_of(old)
        update = written(fresh / "a.bsi", make_update(old, new))
        done = apply(store, update, now=NOW)
        assert done.generation.strategy == "snapshot"
        assert store.live_path.stat().st_ino == 256
        assert walk(store.live_path) == tree_of(new)
        assert walk(store.tree_path(0)) == tree_of(old)
        assert check(store).sound
        assert _subvolumes(fresh) == before + 2
        store.revert()
        store.collect()
        rehearse(store, update, now=NOW)
        assert walk(store.live_path) == tree_of(old)
        apply(store, update, now=NOW)
        store.revert(baseline=True)
        assert records.leftovers(store.fd) == []
    shutil.rmtree(fresh / "store")


def test_what_is_kept_is_not_read(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what changed is read back: what is kept still looks as it did when it was verified."""
    base = write_tree(fresh / "base", OLD_FRAMEWORK)
    update = written(fresh / "a.bsi", make_update())
    read: list[str] = []
    real = Notes.note

    def noting(self: Notes, path: str, status: os.stat_result) -> None:
        read.append(path)
        real(self, path, status)

    with new_store(fresh / "store", base) as store:
        monkeypatch.setattr(Notes, "note", noting)
        apply(store, update, now=NOW)
        kept = {e.path for e in tree_of(NEW_FRAMEWORK) if tree_of(OLD_FRAMEWORK).get(e.path) == e}
        assert read
        assert not set(read) & kept
        store.revert()
        # one that was written to in place no longer looks so, and is read
        same = store.tree_path(0) / "Versions/A/Resources/same.dat"
        data = same.read_bytes()
        same.write_bytes(data)
        read.clear()
        apply(store, update, now=NOW)
        assert "Versions/A/Resources/same.dat" in read
        store.revert()
        status = same.stat()
        same.write_bytes(data[::-1])
        os.utime(same, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(TreeDriftError, match=r"same\.dat"):
            apply(store, update, now=NOW)


def test_strangers_in_the_base_do_not_come_along(fresh: Path) -> None:
    base = write_tree(fresh / "base", OLD_FRAMEWORK)
    with new_store(fresh / "store", base) as store:
        (store.tree_path(0) / "planted").write_text("x")
        (store.tree_path(0) / "Versions/A/more/deep").mkdir(parents=True)
        os.mkfifo(store.tree_path(0) / "Versions/A/Resources/fifo")
        apply(store, written(fresh / "a.bsi", make_update()), now=NOW)
        assert walk(store.live_path) == tree_of(NEW_FRAMEWORK)


def test_closed_folders_are_opened_and_closed_again(fresh: Path) -> None:
    """As an ordinary user: root may write into any folder."""
    fresh.chmod(0o755)
    os.chown(fresh, 65534, 65534)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            base = write_tree(fresh / "base", OLD_FRAMEWORK)
            for name in ("Versions/A/Resources/en.lproj", "Versions/A/Resources", "Versions/A"):
                (base / name).chmod(0o555)
            old = walk(base)
            with new_store(fresh / "store", base) as store:
                assert store.live().strategy == "snapshot"
                manifest_old = {**OLD_FRAMEWORK}
                update = written(fresh / "a.bsi", _closed_update(manifest_old, old))
                apply(store, update, now=NOW)
                assert (store.live_path / "Versions/A").stat().st_mode & 0o777 == 0o755
                store.revert()
                store.collect()
                assert walk(store.live_path) == old
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _closed_update(contents: dict[str, Content], old: Tree) -> bytes:
    """The update from the framework whose folders are closed to the new build."""
    import tests.support.updates as updates

    real = updates.tree_of
    updates.tree_of = lambda c: old if c is contents else real(c)  # type: ignore[assignment]
    try:
        return make_update(contents, NEW_FRAMEWORK)
    finally:
        updates.tree_of = real


def test_a_store_from_before_snapshots_gets_them(fresh: Path) -> None:
    """A baseline that is no subvolume: its files are cloned once, into one."""
    base = write_tree(fresh / "base", OLD_FRAMEWORK)
    with new_store(fresh / "store", base, strategy="reflink") as store:
        assert store.live_path.stat().st_ino != 256
        update = written(fresh / "a.bsi", make_update())
        assert apply(store, update, now=NOW, strategy="snapshot").generation.number == 1
        assert store.live_path.stat().st_ino == 256
        assert walk(store.live_path) == tree_of(NEW_FRAMEWORK)


@pytest.mark.parametrize("strategy", ["reflink", "hardlink", "copy"])
def test_every_lesser_way_works_from_a_snapshot(fresh: Path, strategy: str) -> None:
    base = write_tree(fresh / "base", OLD_FRAMEWORK)
    with new_store(fresh / "store", base) as store:
        done = apply(store, written(fresh / "a.bsi", make_update()), now=NOW, strategy=strategy)
        assert done.generation.strategy == strategy
        assert walk(store.live_path) == tree_of(NEW_FRAMEWORK)


def test_subvolumes_are_made_snapshotted_and_deleted(fresh: Path) -> None:
    fd = os.open(fresh, os.O_RDONLY)
    try:
        assert btrfs.create(fd, "one")
        (fresh / "one/file").write_text("x")
        one = os.open(fresh / "one", os.O_RDONLY)
        try:
            assert btrfs.snapshot(one, fd, "two")
        finally:
            os.close(one)
        (fresh / "two/file").write_text("changed")
        assert (fresh / "one/file").read_text() == "x"
        (fresh / "folder").mkdir()
        assert not btrfs.delete(fd, "folder")
        assert not btrfs.snapshot(fd, fd, "three")
        for name in ("", "a/b", "..\0", "x" * 300):
            with pytest.raises(OSError, match="Invalid"):
                btrfs.create(fd, name)
        (fresh / "link").symlink_to("one")
        assert not btrfs.delete(fd, "link")
        assert (fresh / "one/file").exists()
        assert btrfs.delete(fd, "one")
        assert btrfs.delete(fd, "two")
    finally:
        os.close(fd)


def test_an_overlay_over_xfs_clones(on_xfs: Path, tmp_path: Path) -> None:
    folder = on_xfs / "overlay"
    for name in ("lower", "upper", "work", "merged"):
        (folder / name).mkdir(parents=True)
    options = ",".join(
        f"{key}={folder / value}"
        for key, value in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    )
    merged = folder / "merged"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"NOT TESTED on overlay: {done.stderr.strip()}")
    try:
        base = write_tree(tmp_path / "base", OLD_FRAMEWORK)
        with new_store(merged / "store", base) as store:
            assert store.live().strategy == "reflink"
            apply(store, written(tmp_path / "a.bsi", make_update()), now=NOW)
            assert walk(store.live_path) == tree_of(NEW_FRAMEWORK)
            store.revert()
            assert check(store).sound
    finally:
        subprocess.run(["umount", str(merged)], check=True)


@pytest.mark.parametrize("kind", ["on_btrfs", "on_xfs"])
def test_a_live_directory_is_exchanged_on(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    place: Path = request.getfixturevalue(kind)
    base = write_tree(tmp_path / "base", OLD_FRAMEWORK)
    live = place / "exchange/Demo.framework"
    live.parent.mkdir()
    with new_store(place / "exchanged", base, live_path=live, live_mode="exchange") as store:
        apply(store, written(tmp_path / "a.bsi", make_update()), now=NOW)
        assert walk(live) == tree_of(NEW_FRAMEWORK)
        store.revert()
        assert walk(live) == tree_of(OLD_FRAMEWORK)
        store.collect()
        assert check(store).sound


@pytest.mark.parametrize("kind", ["on_btrfs", "on_xfs"])
def test_disk_use_tells_shared_from_exclusive(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    place: Path = request.getfixturevalue(kind)
    size = 4 << 20
    old: dict[str, Content] = {"big": os.urandom(size), "small": os.urandom(200_000)}
    new = {**old, "small": os.urandom(300_000)}
    base = write_tree(tmp_path / "base", old)
    with new_store(place / "disk", base) as store:
        alone = disk_usage.measure(store.fd, "store")
        assert [one.generation for one in alone.generations] == [0]
        assert alone.generations[0].shared < 100_000
        apply(store, written(tmp_path / "a.bsi", make_update(old, new)), now=NOW)
        os.sync()
        both = disk_usage.measure(store.fd, "store")
        first, second = both.generations
        assert first.shared == second.shared == size
        assert 200_000 <= first.exclusive < 230_000
        assert 300_000 <= second.exclusive < 330_000
        assert both.apparent == 2 * size + 500_000
        assert size + 500_000 <= both.total < size + 560_000


@pytest.mark.parametrize("kind", ["on_btrfs", "on_xfs"])
@pytest.mark.parametrize("change", ["middle", "ends", "shifted", "longer", "shorter", "fills"])
def test_a_sharing_writer_makes_exactly_the_new_file(
    request: pytest.FixtureRequest, kind: str, change: str
) -> None:
    place: Path = request.getfixturevalue(kind)
    size = 3 << 20
    had = os.urandom(size + 1234)
    made, fills = bytearray(had), []
    if change == "middle":
        made[1_000_000:1_000_010] = b"0123456789"
    elif change == "ends":
        made[:1], made[-1:] = b"!", b"!"
    elif change == "shifted":
        made[100:100] = b"ten bytes!"
    elif change == "longer":
        made += os.urandom(1 << 20)
    elif change == "shorter":
        del made[2_000_001:]
    else:
        fills = [(1_000_001, 70_000), (2_500_000, 4096)]
        made[1_000_005:1_000_009] = b"fill"
    old, new = place / "writer.old", place / "writer.new"
    old.write_bytes(had)
    new.unlink(missing_ok=True)
    old_fd = os.open(old, os.O_RDONLY)
    new_fd = os.open(new, os.O_RDWR | os.O_CREAT)
    try:
        writer = SharingWriter(old_fd, new_fd)
        writer.begin(len(made), fills)
        wrong = bytearray(made)
        for at, length in fills:  # what comes first within a fill is not final
            wrong[at : at + length] = bytes(length)
        step = 1 << 20
        with memoryview(wrong) as view, memoryview(made) as right:
            for at in range(0, len(wrong), step):
                writer.write(at, view[at : at + step])
            for at, length in fills:
                writer.fill(at, right[at : at + length])
        writer.finish()
        assert new.read_bytes() == made
        assert writer.shared + writer.written == len(made)
        if change in ("middle", "ends", "fills"):
            assert writer.written < 100_000
        if change == "shifted":
            assert writer.shared == 0
    finally:
        os.close(old_fd)
        os.close(new_fd)


def test_where_nothing_clones_it_is_said(tmp_path: Path) -> None:
    fd = os.open("/dev/shm", os.O_RDONLY)
    try:
        assert snapshot.probe(fd) in ("hardlink", "copy")
        with pytest.raises(StoreStateError, match="cannot do snapshot"):
            snapshot.choose("snapshot", fd)
    finally:
        os.close(fd)
