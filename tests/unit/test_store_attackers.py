"""Symlinks planted on every way to every destination, and packages that ask for what no tree holds.

Whatever happens, nothing is written outside the store, nothing from outside gets
in, and the live tree is the old one or the new one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.errors import BsipatchError, FormatError, UnsafePathError
from bsipatch.store import Store, apply, beneath, check, init, snapshot
from bsipatch.store.beneath import Beneath, open_folder
from bsipatch.tree import walk
from tests.support.stores import NOW, base, new_store, store, update, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, Content, File, tree_of, write_tree
from tests.support.updates import jsonable, key, make_manifest, make_update, pack, spelled

__all__ = ["base", "store", "update"]

SMALL_OLD: dict[str, Content] = {"a/b/kept": b"1" * 5000, "a/b/changed": b"2" * 99, "c/gone": b"3"}
SMALL_NEW: dict[str, Content] = {
    "a/b/kept": b"1" * 5000,
    "a/b/changed": b"two" * 99,
    "a/new/deep/file": File(b"4" * 500, 0o755),
    "a/b/copy": b"1" * 5000,
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A tree that an attacker would like to have read or written."""
    contents = dict.fromkeys((*SMALL_OLD, *OLD_FRAMEWORK, *NEW_FRAMEWORK), b"secret")
    return write_tree(tmp_path / "outside/tree", contents)  # type: ignore[arg-type]


def _settled(store: Store) -> None:
    """Clears what the attacker left in the stage, as the next command does."""
    with store.writing("gc"):
        pass


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])
def test_a_link_planted_before_any_step(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, openat2: bool
) -> None:
    """Before the Nth opening below the stage each ancestor in turn becomes a link, for every N."""
    if openat2 and not beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    monkeypatch.setattr(beneath, "has_openat2", lambda: openat2)
    base = write_tree(tmp_path / "base", SMALL_OLD)
    update = written(tmp_path / "a.bsi", make_update(SMALL_OLD, SMALL_NEW))
    secrets = walk(outside)
    outcomes = set()
    step = 0
    with new_store(tmp_path / "store", base) as store:
        while True:
            planted = _plant_at(store, outside, step, monkeypatch)
            try:
                apply(store, update, now=NOW)
                outcomes.add("applied")
            except BsipatchError as error:
                outcomes.add(type(error).__name__)
            monkeypatch.setattr(Beneath, "open", _REAL_OPEN)
            _settled(store)
            assert walk(outside) == secrets
            assert walk(store.live_path) == tree_of(SMALL_NEW if store.live().number else SMALL_OLD)
            if store.live().number:
                store.revert()
                store.collect()
            if not planted:
                break
            step += 1
    assert step > 10
    assert {"applied", "UnsafePathError"} <= outcomes


_REAL_OPEN = Beneath.open


def _plant_at(
    store: Store, outside: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Arms the trap; the list holds what was replaced, once it has been."""
    planted: list[Path] = []
    left = [step]

    def opening(self: Beneath, path: str, *arguments: Any) -> int:
        stages = list((store.root / "generations").glob("*.tmp/tree"))
        head = path.rpartition("/")[0]
        if stages and head and (stages[0] / head).is_dir() and not planted:
            if left[0] == 0:
                parts = head.split("/")
                victim = stages[0] / "/".join(parts[: 1 + step % len(parts)])
                victim.rename(victim.with_name(victim.name + ".away"))
                victim.symlink_to(outside / "/".join(parts[: 1 + step % len(parts)]))
                planted.append(victim)
            left[0] -= 1
        return _REAL_OPEN(self, path, *arguments)

    monkeypatch.setattr(Beneath, "open", opening)
    return planted


@contextlib.contextmanager
def _attacker(folders: list[Path], outside: Path) -> Iterator[None]:
    """A process that swaps folders for links to outside and back, as fast as it can."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            while os.getppid() != 1:
                for folder in folders:
                    away = folder.with_name(folder.name + ".away")
                    with contextlib.suppress(OSError):
                        folder.rename(away)
                        folder.symlink_to(outside)
                    with contextlib.suppress(OSError):
                        folder.unlink()
                    with contextlib.suppress(OSError):
                        away.rename(folder)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _restore(folders: list[Path]) -> None:
    for folder in folders:
        away = folder.with_name(folder.name + ".away")
        if folder.is_symlink():
            folder.unlink()
        if away.exists() and not folder.exists():
            away.rename(folder)


@pytest.mark.parametrize("where", ["stage", "base"])
def test_an_attacker_in_a_loop_beside_the_applier(
    tmp_path: Path, outside: Path, where: str
) -> None:
    """Whoever may rename folders of the store may also spoil its trees: then check-store says so.

    What nobody gets is a write outside, or the other generation spoiled along with it.
    """
    base = write_tree(tmp_path / "base", SMALL_OLD)
    update = written(tmp_path / "a.bsi", make_update(SMALL_OLD, SMALL_NEW))
    secrets = walk(outside)
    for round_ in range(12):
        with new_store(tmp_path / f"store{round_}", base) as store:
            folder = store.root / f"generations/{'1.tmp' if where == 'stage' else '0'}"
            names = ["a", "a/b", *(["a/new", "a/new/deep", ""] if where == "stage" else ["c"])]
            name = names[round_ % len(names)]
            aim = folder / "tree" / name
            with _attacker([aim], outside / name), contextlib.suppress(BsipatchError):
                apply(store, update, now=NOW)
            if where == "base":
                _restore([aim])
            assert walk(outside) == secrets
            assert os.listdir(outside.parent) == ["tree"]
            _settled(store)
            if where == "stage":
                assert walk(store.tree_path(0)) == tree_of(SMALL_OLD)
            number = store.live().number
            with contextlib.suppress(BsipatchError):
                if walk(store.live_path) == tree_of(SMALL_NEW if number else SMALL_OLD):
                    continue
            assert where == "stage"
            assert not check(store).sound


def test_an_attacker_beside_init(tmp_path: Path, outside: Path) -> None:
    """The baseline's own folder is writable by others: the store gets that tree or none."""
    base = write_tree(tmp_path / "base", SMALL_OLD)
    for round_ in range(6):
        aim = [base / "a", base / "a/b", base / "c"][round_ % 3]
        with _attacker([aim], outside / aim.relative_to(base)):
            try:
                made = new_store(tmp_path / f"store{round_}", base)
            except BsipatchError:
                made = None
        _restore([aim])
        if made is not None:
            with made:
                for path in made.tree_path(0).rglob("*"):
                    assert path.is_symlink() or path.is_dir() or path.read_bytes() != b"secret"
    assert walk(base) == tree_of(SMALL_OLD)


def test_a_stage_that_is_a_link_is_not_entered(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations/1.tmp").symlink_to(outside)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for path in ("generations/1.tmp", "generations/1.tmp/a"):
            with pytest.raises(UnsafePathError):
                open_folder(fd, path)
    finally:
        os.close(fd)


def test_a_file_that_became_a_device_is_not_copied(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UnsafePathError, match="no longer a regular file"):
            snapshot.place("copy", fd, "fifo", fd, "new", private=True)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == ["fifo"]


def _tampered(change: Any) -> bytes:
    made, bodies = make_manifest()
    document = jsonable(made)
    change(next(a for a in document["actions"] if a["path"] == "Versions/A/Resources/fresh.txt"))
    return pack(spelled(document), bodies)


TAMPERINGS: dict[str, Any] = {
    "setuid": lambda action: action["new"].update(mode=0o4755),
    "setgid": lambda action: action["new"].update(mode=0o2755),
    "sticky": lambda action: action["new"].update(mode=0o1755),
    "device": lambda action: action["new"].update(kind="device"),
    "fifo": lambda action: action["new"].update(kind="fifo"),
    "hard link": lambda action: action["new"].update(kind="hardlink"),
    "link deed": lambda action: action.update(do="link"),
    "above": lambda action: action.update(path="../fresh.txt"),
    "absolute": lambda action: action.update(path="/tmp/fresh.txt"),
    "through a link": lambda action: action.update(path="Resources/fresh.txt"),
    "link out": lambda action: action.update(
        do="symlink", new={"kind": "symlink", "target": "../../../../../etc"}, payload=None
    ),
    "foreign xattr": lambda action: action["new"].update(xattrs=[["security.capability", "AA=="]]),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_packages_that_ask_for_what_no_tree_holds(
    store: Store, tmp_path: Path, outside: Path, how: str
) -> None:
    """Signed by the right key all the same: the gate trusts no publisher with that."""
    secrets = walk(outside)
    hostile = written(tmp_path / "hostile.bsi", _tampered(TAMPERINGS[how]))
    with pytest.raises(FormatError):
        apply(store, hostile, now=NOW)
    assert walk(store.live_path) == tree_of(OLD_FRAMEWORK)
    assert walk(outside) == secrets
    assert [event.event for event in store.history()] == ["init"]


def test_a_baseline_with_special_files_is_refused(tmp_path: Path, base: Path) -> None:
    os.mkfifo(base / "fifo")
    with pytest.raises(UnsafePathError, match="device, fifo or socket"):
        new_store(tmp_path / "store", base)
    (base / "fifo").unlink()
    (base / "Versions/A/Demo").chmod(0o4755)
    with pytest.raises(UnsafePathError, match="setuid"):
        new_store(tmp_path / "store", base)
    assert not (tmp_path / "store").exists()


def test_hard_links_in_a_baseline_are_parted(tmp_path: Path, base: Path) -> None:
    """A second name elsewhere must not stay a way into the store."""
    os.link(base / "Versions/A/Demo", tmp_path / "elsewhere")
    with init(
        tmp_path / "store", base, product="Demo", version="1", build="1", keys=[key().public]
    ) as store:
        (tmp_path / "elsewhere").write_bytes(b"changed")
        assert walk(store.live_path) == tree_of(OLD_FRAMEWORK)
