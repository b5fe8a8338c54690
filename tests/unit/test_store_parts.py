"""The store's parts by themselves: paths, durable files, the lock, clones, the history."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import StoreBusyError, StoreStateError, UnsafePathError
from bsipatch.store import durable, history, snapshot
from bsipatch.store import lock as lock_module
from bsipatch.store.beneath import CREATE, DIRECTORY, Beneath, has_openat2
from bsipatch.store.lock import holder, locked


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, DIRECTORY)
    yield fd
    os.close(fd)


# --- beneath ---


@pytest.fixture(params=[False, True], ids=["walk", "openat2"])
def beneath(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Beneath]:
    if request.param and not has_openat2():
        pytest.skip("this kernel has no openat2")
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    (root / "out").symlink_to("../outside")
    (root / "a/link").symlink_to("b/file")
    (root / "abs").symlink_to(tmp_path / "outside")
    with Beneath(root, openat2=request.param) as opened:
        yield opened


def test_beneath_opens_what_is_inside(beneath: Beneath) -> None:
    with beneath.opened("a/b/file") as fd:
        assert os.read(fd, 10) == b"inside"
    with beneath.opened("", DIRECTORY) as fd:
        assert sorted(os.listdir(fd)) == ["a", "abs", "out"]
    with beneath.opened("a/new", CREATE) as fd:
        os.write(fd, b"x")
    assert beneath.stat("a/new").st_size == 1
    assert beneath.stat("").st_mode & 0o170000 == 0o040000


@pytest.mark.parametrize(
    "path", ["../outside/file", "/etc/passwd", "a/../../outside", "a//b", ".", "a/\0"]
)
def test_beneath_refuses_paths_that_are_not_plain(beneath: Beneath, path: str) -> None:
    with pytest.raises(UnsafePathError):
        beneath.open(path)


@pytest.mark.parametrize("path", ["out/file", "abs/file", "a/link", "out"])
def test_beneath_follows_no_link_anywhere(beneath: Beneath, path: str) -> None:
    with pytest.raises(UnsafePathError):
        beneath.open(path)


def test_beneath_creates_nothing_through_a_link(beneath: Beneath, tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError):
        beneath.open("out/planted", CREATE)
    assert not (tmp_path / "outside/planted").exists()


def test_beneath_says_what_is_missing(beneath: Beneath) -> None:
    with pytest.raises(FileNotFoundError):
        beneath.open("a/none")


# --- durable ---


def test_replace_file_leaves_old_or_new(folder: int, tmp_path: Path) -> None:
    durable.replace_file("record", b"one", dir_fd=folder)
    durable.replace_file("record", b"two", dir_fd=folder)
    assert (tmp_path / "record").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["record"]


def test_a_failed_replace_leaves_the_old_file_and_no_debris(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.replace_file("record", b"one", dir_fd=folder)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(durable, "sync_fd", broken)
    with pytest.raises(OSError, match="broken"):
        durable.replace_file("record", b"two", dir_fd=folder)
    assert (tmp_path / "record").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["record"]


def test_rename_new_never_replaces(folder: int, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(FileExistsError):
        durable.rename_new("one", "two", dir_fd=folder)
    durable.rename_new("one", "three", dir_fd=folder)
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]


def test_replace_link_flips(folder: int, tmp_path: Path) -> None:
    for target in ("a", "b", "c"):
        durable.replace_link("current", target, dir_fd=folder)
        assert (tmp_path / "current").readlink() == Path(target)
    assert os.listdir(tmp_path) == ["current"]


def test_remove_tree_follows_no_link_and_opens_closed_folders(folder: int, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "gone/deep/er").mkdir(parents=True)
    (tmp_path / "gone/link").symlink_to("../kept")
    (tmp_path / "gone/deep/er/file").touch()
    (tmp_path / "gone/deep").chmod(0o500)
    durable.remove_tree("gone", dir_fd=folder)
    durable.remove_tree("never there", dir_fd=folder)
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_read_file_is_bounded_and_follows_no_link(folder: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert durable.read_file("file", dir_fd=folder, limit=5) == b"12345"
    with pytest.raises(OSError):
        durable.read_file("file", dir_fd=folder, limit=4)
    with pytest.raises(OSError):
        durable.read_file("link", dir_fd=folder, limit=9)


# --- lock ---


def test_the_lock_names_its_holder(folder: int, tmp_path: Path) -> None:
    assert holder(folder) is None
    with locked(folder, "apply", timeout=0, file="store"):
        told = holder(folder)
        assert told is not None
        assert str(os.getpid()) in told
        assert "apply" in told
        with (
            pytest.raises(StoreBusyError, match=str(os.getpid())),
            locked(folder, "gc", timeout=0, file="store"),
        ):
            pass
    assert holder(folder) is None
    with locked(folder, "gc", timeout=0, file="store"):
        pass


def test_the_lock_is_its_owners_alone(folder: int, tmp_path: Path) -> None:
    """Whoever may read a file may flock it, and so keep updates from the store."""
    path = tmp_path / "lock"
    with locked(folder, "apply", timeout=0, file="store"):
        assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # as earlier versions made it
    with locked(folder, "apply", timeout=0, file="store"):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("listed", [True, False])
def test_others_learn_that_somebody_holds_it(
    folder: int, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    real, real_list = os.open, lock_module._is_listed

    def opening(name: Any, *arguments: Any, **more: Any) -> int:
        if name == lock_module.LOCK:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, *arguments, **more)

    def listing(inode: int) -> bool:
        if not listed:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real_list(inode)

    def asked_by_another() -> str | None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", opening)
            patched.setattr(lock_module, "_is_listed", listing)
            return holder(folder)

    assert asked_by_another() is None
    with locked(folder, "apply", timeout=0, file="store"):
        told = asked_by_another()
        assert told is not None
        assert str(os.getpid()) not in told
    assert asked_by_another() is None


def test_locks_of_two_names_are_two(folder: int) -> None:
    with (
        locked(folder, "a", timeout=0, file="store"),
        locked(folder, "b", timeout=0, file="store", name="other"),
        pytest.raises(StoreBusyError, match="b"),
        locked(folder, "c", timeout=0, file="store", name="other"),
    ):
        pass


def test_a_killed_holder_leaves_no_lock(folder: int, tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from bsipatch.store.lock import locked\n"
        f"fd = os.open({str(tmp_path)!r}, os.O_RDONLY)\n"
        "with locked(fd, 'apply', timeout=0, file='store'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert str(child.pid) in (holder(folder) or "")
    child.kill()
    child.wait()
    child.stdout.close()
    assert holder(folder) is None
    with locked(folder, "apply", timeout=0, file="store"):
        pass


# --- snapshot ---


def test_probe_finds_something_that_works(folder: int, tmp_path: Path) -> None:
    assert snapshot.probe(folder) in snapshot.STRATEGIES
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("strategy", snapshot.STRATEGIES)
@pytest.mark.parametrize("private", [False, True])
def test_place_brings_bytes_mode_and_times(
    tmp_path: Path, folder: int, strategy: str, private: bool
) -> None:
    old = tmp_path / "old"
    old.write_bytes(os.urandom(200_000))
    old.chmod(0o751)
    os.utime(old, ns=(10**18, 10**18))
    how = snapshot.place(strategy, folder, "old", folder, "new", private=private)
    new = tmp_path / "new"
    assert new.read_bytes() == old.read_bytes()
    assert new.stat().st_mode == old.stat().st_mode
    assert new.stat().st_mtime_ns == 10**18
    assert (new.stat().st_ino == old.stat().st_ino) == (how == "hardlink")
    if private:
        assert how != "hardlink"


def test_place_follows_no_link(tmp_path: Path, folder: int) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "old").symlink_to("secret")
    with pytest.raises(OSError):
        snapshot.place("copy", folder, "old", folder, "new", private=True)


def test_choose_tries_nothing_where_the_base_is_a_subvolume(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = snapshot.btrfs.Subvolume("00", 1, 1)
    monkeypatch.setattr(snapshot.btrfs, "describe", lambda fd: known)
    monkeypatch.setattr(snapshot, "probe", lambda fd: pytest.fail("a subvolume was made"))
    for wanted, chosen in (("auto", "snapshot"), ("reflink", "reflink"), ("copy", "copy")):
        assert snapshot.choose(wanted, folder, base=folder) == chosen


def test_choose_refuses_what_the_file_system_cannot_do(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "probe", lambda fd: "hardlink")
    assert snapshot.choose("auto", folder) == "hardlink"
    assert snapshot.choose("copy", folder) == "copy"
    with pytest.raises(StoreStateError, match="reflink"):
        snapshot.choose("reflink", folder)


# --- history ---


def test_history_appends_and_survives_half_a_line(folder: int, tmp_path: Path) -> None:
    history.append(folder, history.event("init", 0))
    history.append(folder, history.event("apply", 1, was=0))
    with (tmp_path / history.HISTORY).open("ab") as file:
        file.write(b'{"time": "half')
    assert [event.event for event in history.read(folder)] == ["init", "apply"]
    last = history.last(folder)
    assert last is not None
    assert last.live == 1
    history.append(folder, history.event("revert", 0, was=1))
    lines = (tmp_path / history.HISTORY).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["init", "apply", "revert"]


def test_history_is_trimmed_from_the_front(folder: int) -> None:
    for number in range(10):
        history.append(folder, history.event("apply", number))
    assert history.trim(folder, 3) == 7
    assert [event.live for event in history.read(folder)] == [7, 8, 9]
    assert history.trim(folder, 3) == 0


def test_no_history_is_empty(folder: int) -> None:
    assert history.read(folder) == []
    assert history.last(folder) is None
