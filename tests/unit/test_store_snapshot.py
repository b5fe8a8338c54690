"""What is shared and what is read again: writers, witnesses, directories reached in order."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsipatch.errors import TreeDriftError, UnsafePathError
from bsipatch.store import Store, apply, check, durable, sharing, snapshot
from bsipatch.store.beneath import DIRECTORY, Beneath
from bsipatch.store.sharing import SharingWriter
from bsipatch.store.witness import WITNESS, Notes, Seen, Witness
from tests.support.stores import NOW, base, live_tree, store, update
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of

__all__ = ["base", "store", "update"]

KEPT = {e.path for e in tree_of(NEW_FRAMEWORK).files if tree_of(OLD_FRAMEWORK).get(e.path) == e}
SAME = "Versions/A/Resources/same.dat"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that are read back."""
    paths: list[str] = []
    real = Notes.note

    def noting(self: Notes, path: str, status: os.stat_result) -> None:
        paths.append(path)
        real(self, path, status)

    monkeypatch.setattr(Notes, "note", noting)
    return paths


# --- the witness ---


@pytest.mark.parametrize("strategy", ["hardlink", "reflink"])
def test_what_is_kept_is_not_read_again(
    store: Store, update: Path, read: list[str], strategy: str
) -> None:
    if snapshot.STRATEGIES.index(snapshot.probe(store.fd)) > snapshot.STRATEGIES.index(strategy):
        pytest.skip(f"NOT TESTED: this file system cannot do {strategy}")
    for _ in range(3):  # later on the hard links' change times are those of the other generation
        read.clear()
        apply(store, update, now=NOW, strategy=strategy)
        assert read
        assert not set(read) & KEPT
        assert live_tree(store) == tree_of(NEW_FRAMEWORK)
        store.revert()


def test_copies_are_always_read_again(store: Store, update: Path, read: list[str]) -> None:
    apply(store, update, now=NOW, strategy="copy")
    assert set(read) >= KEPT


def test_a_file_that_was_written_to_is_read_and_found_out(
    store: Store, update: Path, read: list[str]
) -> None:
    same = store.live_path / SAME
    data, status = same.read_bytes(), same.stat()
    same.write_bytes(data[::-1])
    os.utime(same, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(TreeDriftError, match=r"same\.dat"):
        apply(store, update, now=NOW)
    assert SAME in read
    same.write_bytes(data)
    os.utime(same, ns=(status.st_atime_ns, status.st_mtime_ns))
    read.clear()
    apply(store, update, now=NOW)
    assert SAME in read


@pytest.mark.parametrize("harm", ["missing", "rubbish", "other tree", "other format"])
def test_without_a_good_witness_everything_is_read(
    store: Store, update: Path, read: list[str], harm: str
) -> None:
    path = store.tree_path(0).parent / WITNESS
    if harm == "missing":
        path.unlink()
    elif harm == "rubbish":
        path.write_text('{"format": 1')
    elif harm == "other tree":
        path.write_text(path.read_text().replace(store.live().tree, "0" * 64))
    else:
        path.write_text("[2" + path.read_text()[2:])
    apply(store, update, now=NOW)
    assert set(read) >= KEPT
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)


def test_check_reads_everything_and_renews_the_witness(
    store: Store, update: Path, read: list[str]
) -> None:
    (store.tree_path(0).parent / WITNESS).unlink()
    assert check(store).sound
    assert set(read) == {entry.path for entry in tree_of(OLD_FRAMEWORK).files}
    read.clear()
    apply(store, update, now=NOW)
    assert (set(read) & KEPT == set()) == (store.live().strategy != "copy")


def test_a_witness_vouches_only_for_what_looks_the_same(store: Store) -> None:
    witness = Witness(store.fd, 0, store.live().tree)
    same = store.live_path / SAME
    assert witness.vouches(SAME, same.stat())
    assert not witness.vouches("Versions/A/Demo", same.stat())
    assert not witness.vouches("unknown", same.stat())
    same.chmod(0o600)
    assert not witness.vouches(SAME, same.stat())
    assert not Witness(store.fd, 0, "0" * 64).vouches(SAME, same.stat())
    assert not Witness(store.fd, 7, store.live().tree).vouches(SAME, same.stat())


def test_what_changed_within_a_tick_of_the_clock_is_not_noted(tmp_path: Path, folder: int) -> None:
    old = tmp_path / "old"
    old.write_text("x")
    notes = Notes()
    young = tmp_path / "young"
    young.write_text("x")
    notes.note("old", old.stat())
    notes.note("young", young.stat())
    notes.write(folder, "0" * 64)
    text = (tmp_path / WITNESS).read_text()
    assert "old" in text
    assert "young" not in text
    assert Seen.of(old.stat()).size == 1


# --- sharing blocks ---


def _through(tmp_path: Path, had: bytes, made: bytes, fills: list[tuple[int, int]]) -> bytes:
    (tmp_path / "old").write_bytes(had)
    old = os.open(tmp_path / "old", os.O_RDONLY)
    new = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        writer = SharingWriter(old, new)
        writer.begin(len(made), fills)
        with memoryview(made) as view:
            for at in range(0, len(made), 1 << 16):
                writer.write(at, view[at : at + (1 << 16)])
            for at, length in fills:
                writer.fill(at, view[at : at + length])
        writer.finish()
        assert writer.shared + writer.written == len(made)
        return (tmp_path / "new").read_bytes()
    finally:
        os.close(old)
        os.close(new)


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 300_001])
@pytest.mark.parametrize("fills", [[], [(0, 10)], [(5000, 70_000), (290_000, 10_001)]])
def test_a_writer_makes_the_file_whether_blocks_can_be_shared_or_not(
    tmp_path: Path, size: int, fills: list[tuple[int, int]]
) -> None:
    had = os.urandom(200_000)
    made = (had * 2)[:size]
    inside = [(at, length) for at, length in fills if at + length <= size]
    assert _through(tmp_path, had, made, inside) == made


def test_a_writer_only_ever_shares_equal_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a kernel that takes every request: what is asked for is equal, aligned, long enough."""
    asked: list[tuple[int, int]] = []
    had = os.urandom(400_000)
    made = bytearray(had)
    made[100_000] ^= 1
    made[250_000:260_000] = os.urandom(10_000)

    def share(self: SharingWriter, offset: int, length: int) -> bool:
        asked.append((offset, length))
        os.pwrite(self._new, had[offset : offset + length], offset)
        self.shared += length
        return True

    monkeypatch.setattr(SharingWriter, "_share", share)
    assert _through(tmp_path, had, bytes(made), [(300_000, 50_000)]) == made
    assert asked
    for offset, length in asked:
        assert offset % 4096 == length % 4096 == 0
        assert length >= sharing.LEAST_RUN
        assert had[offset : offset + length] == made[offset : offset + length]


def test_a_writer_stops_comparing_where_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    real = SharingWriter._equal_runs

    def counting(self: SharingWriter, first: int, made: bytes) -> list[tuple[int, int]]:
        compared.append(first)
        return real(self, first, made)

    monkeypatch.setattr(SharingWriter, "_equal_runs", counting)
    had = os.urandom(4 << 20)
    made = b"moved" + had[:-5]
    assert _through(tmp_path, had, made, []) == made
    assert len(compared) == sharing._PATIENCE


def test_a_failing_clone_is_an_error_not_a_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def broken(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", broken)
    had = os.urandom(100_000)
    with pytest.raises(Exception, match="Input/output error"):
        _through(tmp_path, had, had, [])


# --- directories in order ---


def test_paths_in_order_open_each_directory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1", "a/2", "b/c/3", "b/c/4", "top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    opened: list[str] = []
    real = Beneath.open

    def counting(self: Beneath, path: str, *arguments: int) -> int:
        opened.append(path)
        return real(self, path, *arguments)

    monkeypatch.setattr(Beneath, "open", counting)
    with Beneath(tmp_path) as tree, tree.in_order() as reached:
        for name in ("a/1", "a/2", "b/c/3", "b/c/4", "top"):
            assert reached.stat(name).st_size == len(name)
        assert opened == ["a", "b/c", ""]
        for wrong in ("../x", "/etc/passwd", "a/..", "a//1", ""):
            with pytest.raises(UnsafePathError):
                reached.stat(wrong)
        (tmp_path / "link").symlink_to("a")
        with pytest.raises(UnsafePathError):
            reached.stat("link/1")


def test_moving_and_exchanging_replace_nothing(tmp_path: Path, folder: int) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    with pytest.raises(FileExistsError):
        durable.move_new("one", "two", old_dir=folder, new_dir=folder)
    durable.exchange("one", "two", old_dir=folder, new_dir=folder)
    assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        durable.exchange("one", "none", old_dir=folder, new_dir=folder)


def test_a_tree_starts_empty_where_there_are_no_subvolumes(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot.btrfs, "create", lambda fd, name: False)
    monkeypatch.setattr(snapshot.btrfs, "snapshot", lambda old, fd, name: False)
    (tmp_path / "base").mkdir()
    begun = snapshot.start_tree("snapshot", folder, "new", base_dir=folder, base="base")
    assert not begun
    assert os.listdir(tmp_path / "new") == []
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
