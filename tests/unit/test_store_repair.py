"""check-store --repair: whatever is rotten, missing, added or of another kind is put right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bsipatch.errors import NotFoundError, SignatureError
from bsipatch.store import (
    CheckReport,
    Store,
    apply,
    check,
    durable,
    records,
    recover,
    repairing,
    sourcing,
)
from bsipatch.tree import block_digests, digest_of_blocks, verity_digest_fd, walk
from tests.support.stores import NOW, base, clean, live_tree, new_store, store, update, written
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of, write_tree
from tests.support.updates import key, make_manifest, pack

__all__ = ["base", "store", "update"]

SAME = "Versions/A/Resources/same.dat"
DEMO = "Versions/A/Demo"


def rot(path: Path, at: int = 5000) -> None:
    """Flips one bit in place, as a bad medium does: same inode, size, mode and times."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at % status.st_size)
        byte = file.read(1)
        file.seek(at % status.st_size)
        file.write(bytes([byte[0] ^ 16]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def two(store: Store, update: Path) -> Store:
    """Two generations that share no inode."""
    apply(store, update, now=NOW, strategy="copy")
    return store


def sound(store: Store) -> None:
    """Both generations are exactly what was signed, and nothing else lies about."""
    assert walk(store.tree_path(0)) == tree_of(OLD_FRAMEWORK)
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)
    assert check(store).sound
    clean(store)


def only(report: CheckReport) -> tuple[int, str, str, int | None]:
    assert report.sound, report.drift
    (one,) = report.repaired
    return one.generation, one.path, one.source, one.blocks


def test_rot_in_any_file_is_found_and_repaired_from_the_other_generation(two: Store) -> None:
    for number in (0, 1):
        other = {entry.path: entry for entry in walk(two.tree_path(1 - number)).files}
        for entry in walk(two.tree_path(number)).files:
            twins = [e for e in other.values() if (e.size, e.digest) == (entry.size, entry.digest)]
            if not entry.size or not twins:
                continue
            rot(two.tree_path(number) / entry.path)
            report = check(two)
            assert [(d.generation, d.path, d.reason) for d in report.drift] == [
                (number, entry.path, "other content")
            ]
            assert only(check(two, repair=True)) == (
                number, entry.path, f"generation {1 - number}", 1,
            )  # fmt: skip
    sound(two)


def test_content_that_no_generation_holds_is_named_and_left(two: Store) -> None:
    rot(two.live_path / DEMO)
    before = (two.live_path / DEMO).stat().st_ino
    report = check(two, repair=True)
    (drift,) = report.drift
    assert (drift.generation, drift.path) == (1, DEMO)
    assert "no other copy holds its content" in drift.reason
    assert report.repaired == ()
    assert (two.live_path / DEMO).stat().st_ino == before
    assert two.history()[-1].event == "repair"


def test_repair_from_an_update_and_from_a_folder(two: Store, update: Path, base: Path) -> None:
    rot(two.live_path / DEMO)
    assert only(check(two, repair=True, sources=[update])) == (1, DEMO, str(update), 1)
    rot(two.tree_path(0) / DEMO)
    assert only(check(two, repair=True, sources=[update, base])) == (0, DEMO, str(base), 1)
    sound(two)


def test_a_rotten_or_unsigned_source_is_of_no_use(two: Store, base: Path, tmp_path: Path) -> None:
    rot(two.tree_path(0) / DEMO)
    rot(base / DEMO, at=1)
    assert not check(two, repair=True, sources=[base]).sound
    foreign = written(tmp_path / "foreign.bsi", pack(*make_manifest(), keys=[key(1)]))
    with pytest.raises(SignatureError):
        check(two, repair=True, sources=[foreign])
    with pytest.raises(NotFoundError):
        check(two, repair=True, sources=[tmp_path / "none"])
    assert not check(two).sound


def test_a_source_may_not_lead_elsewhere(two: Store, tmp_path: Path) -> None:
    trap = write_tree(tmp_path / "trap", OLD_FRAMEWORK)
    (trap / "Versions/A").rename(tmp_path / "elsewhere")
    (trap / "Versions/A").symlink_to(tmp_path / "elsewhere")
    rot(two.tree_path(0) / DEMO)
    assert not check(two, repair=True, sources=[trap]).sound


def test_two_copies_rotten_in_different_blocks_make_one_sound(two: Store) -> None:
    rot(two.tree_path(0) / SAME, at=100)
    rot(two.live_path / SAME, at=5000)
    report = check(two, repair=True)
    assert report.sound
    assert [(r.generation, r.source, r.blocks) for r in report.repaired] == [
        (0, "the sound blocks of several copies", 1),
        (1, "generation 0", 1),
    ]
    sound(two)


def test_two_copies_rotten_in_the_same_block_are_beyond_repair(two: Store) -> None:
    rot(two.tree_path(0) / SAME, at=100)
    rot(two.live_path / SAME, at=101)
    report = check(two, repair=True)
    assert {(d.generation, d.path) for d in report.drift} == {(0, SAME), (1, SAME)}


def test_rot_behind_a_hard_link_says_so_and_is_repaired_in_every_generation(
    store: Store, update: Path, base: Path
) -> None:
    apply(store, update, now=NOW, strategy="hardlink")
    if (store.live_path / SAME).stat().st_nlink == 1:
        pytest.skip("this file system makes no hard links")
    rot(store.live_path / SAME)
    report = check(store, repair=True)
    assert {d.generation for d in report.drift} == {0, 1}
    assert all("hard link" in d.reason for d in report.drift)
    report = check(store, repair=True, sources=[base])
    assert [(r.generation, r.path) for r in report.repaired] == [(0, SAME), (1, SAME)]
    sound(store)


def _mode(tree: Path) -> None:
    (tree / DEMO).chmod(0o600)
    (tree / "Versions/A/Resources").chmod(0o700)


def _missing(tree: Path) -> None:
    (tree / SAME).unlink()
    (tree / "Resources").unlink()


def _missing_folder(tree: Path) -> None:
    for name in ("same.dat", "empty", "Info.plist"):
        (tree / "Versions/A/Resources" / name).unlink()


def _extra(tree: Path) -> None:
    (tree / "planted").write_text("x")
    (tree / "Versions/A/more/deep").mkdir(parents=True)
    (tree / "Versions/A/more/deep/file").write_text("x")
    os.mkfifo(tree / "Versions/A/fifo")
    with (tree / os.fsdecode(b"not-utf8-\xff")).open("w"):
        pass


def _kind(tree: Path) -> None:
    (tree / SAME).unlink()
    (tree / SAME).mkdir()
    (tree / SAME / "inside").write_text("x")
    (tree / "Resources").unlink()
    (tree / "Resources").write_text("a file for a link")
    (tree / "Versions/A/Resources/empty").unlink()
    (tree / "Versions/A/Resources/empty").symlink_to("/etc/passwd")


def _target(tree: Path) -> None:
    (tree / "Resources").unlink()
    (tree / "Resources").symlink_to("../../../outside")


def _closed_folder(tree: Path) -> None:
    rot(tree / SAME)
    (tree / SAME).parent.chmod(0o500)


def _setuid(tree: Path) -> None:
    (tree / DEMO).chmod(0o4755)


def _truncated(tree: Path) -> None:
    os.truncate(tree / SAME, 100)


@pytest.mark.parametrize(
    "harm",
    [_mode, _missing, _extra, _kind, _target, _closed_folder, _setuid, _truncated],
    ids=lambda harm: harm.__name__.strip("_"),
)
@pytest.mark.parametrize("number", [0, 1])
def test_everything_else_that_can_drift(
    two: Store, base: Path, number: int, harm: Callable[[Path], None]
) -> None:
    harm(two.tree_path(number))
    found = check(two)
    assert found.drift
    assert {drift.generation for drift in found.drift} == {number}
    report = check(two, repair=True)
    assert report.sound, report.drift
    assert {(r.generation, r.path) for r in report.repaired} == {
        (drift.generation, drift.path) for drift in found.drift
    }
    sound(two)


def test_whole_folders_come_back(two: Store, base: Path) -> None:
    (two.tree_path(0) / "Versions").rename(two.root.parent / "stolen")
    report = check(two, repair=True, sources=[base])
    assert report.sound, report.drift
    sound(two)


def test_a_folder_replaced_by_a_link_is_not_followed(two: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (two.tree_path(1) / "Versions/A").rename(outside)
    before = walk(outside)
    (two.tree_path(1) / "Versions/A").symlink_to(outside)
    check(two, repair=True)
    assert walk(outside) == before
    assert not (two.tree_path(1) / "Versions/A").is_symlink()


def test_a_program_that_has_the_rotten_file_open_keeps_it(two: Store) -> None:
    path = two.live_path / SAME
    rot(path)
    rotten = path.read_bytes()
    with path.open("rb") as held:
        assert check(two, repair=True).sound
        assert held.read() == rotten
    assert path.read_bytes() != rotten


def test_damaged_records_are_named_and_nothing_is_guessed(two: Store) -> None:
    (two.tree_path(1).parent / "envelope.dsse").write_text("{}")
    rot(two.tree_path(0) / SAME)
    report = check(two, repair=True)
    assert {d.generation for d in report.drift} == {0, 1}
    assert not report.repaired


def test_a_file_that_cannot_be_read_is_one_finding(
    two: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A medium that answers EIO, as checksumming file systems do for rotten blocks."""
    from bsipatch.store import surveying

    real, inode = verity_digest_fd, (two.live_path / SAME).stat().st_ino

    def failing(fd: int, **more: object) -> tuple[str, int]:
        if os.fstat(fd).st_ino == inode:
            raise OSError(5, "Input/output error")
        return real(fd, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(surveying, "verity_digest_fd", failing)
    (drift,) = check(two).drift
    assert (drift.generation, drift.path) == (1, SAME)
    assert "Input/output error" in drift.reason
    assert only(check(two, repair=True))[:3] == (1, SAME, "generation 0")


def cut_off(store: Store, owner: object, function: str) -> None:
    """A repair in a process that is gone when it gets to this function."""
    child = os.fork()
    if child == 0:
        setattr(owner, function, lambda *_, **__: os._exit(9))
        try:
            check(store, repair=True)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def temporary(store: Store) -> list[str]:
    return [p.name for p in store.root.rglob(".bsipatch-repair.*")]


def test_recover_removes_what_a_repair_that_was_cut_off_left(two: Store) -> None:
    rot(two.tree_path(0) / SAME)
    cut_off(two, repairing._Repairer, "_put")
    assert len(temporary(two)) == 1
    assert two.status().unfinished == (records.REPAIRING,)
    (told,) = recover(two).done
    assert told.startswith("removed generations/0/tree/Versions/A/Resources/.bsipatch-repair.")
    assert temporary(two) == []
    assert recover(two).done == ()
    clean(two)
    assert check(two, repair=True).sound


def test_recover_removes_a_folder_that_a_repair_was_about_to_remove(two: Store) -> None:
    path = two.live_path / SAME
    path.unlink()
    (path / "below").mkdir(parents=True)
    (path / "below/file").write_bytes(b"x")
    (path / "below").chmod(0o500)
    cut_off(two, durable, "remove_tree")
    assert len(temporary(two)) == 1  # the folder, which was exchanged with the sound file
    assert len(recover(two).done) == 1
    assert temporary(two) == []
    sound(two)


def test_a_repair_that_fails_leaves_nothing(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (two.live_path / SAME).chmod(0o600)
    rot(two.tree_path(0) / SAME)
    monkeypatch.setattr(repairing._Repairer, "_put", failing)
    with pytest.raises(KeyboardInterrupt):
        check(two, repair=True)
    monkeypatch.undo()
    assert temporary(two) == []
    assert two.status().unfinished == ()


def test_a_clean_store_has_no_tree_looked_through(
    two: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bsipatch.store import sweeping

    monkeypatch.setattr(sweeping, "_sweep", lambda *_: pytest.fail("looked into a tree"))
    assert recover(two).done == ()


def test_a_damaged_note_of_a_repair_means_every_generation(two: Store) -> None:
    (two.root / records.REPAIRING).write_bytes(b"{")
    for number in (0, 1):
        (two.tree_path(number) / ".bsipatch-repair.0.tmp").write_bytes(b"x")
    assert len(recover(two).done) == 2
    assert temporary(two) == []


def test_the_digest_of_blocks_is_that_of_the_file(tmp_path: Path) -> None:
    for size in (0, 1, 4095, 4096, 4097, 4096 * 128, 4096 * 129 + 7):
        path = written(tmp_path / "file", os.urandom(size))
        with path.open("rb") as file:
            blocks = block_digests(file.fileno(), size)
            assert None not in blocks
            assert (
                digest_of_blocks([b for b in blocks if b], size)
                == verity_digest_fd(file.fileno())[0]
            )


def test_too_many_combinations_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(iter(tree_of({"f": os.urandom(4096 * 20)}).files))
    copies: list[list[bytes | None]] = [
        [os.urandom(32) for _ in range(20)], [os.urandom(32) for _ in range(20)],
    ]  # fmt: skip
    assert sourcing._combine(copies, entry) is None


def test_a_patched_file_comes_back_through_its_patch(tmp_path: Path) -> None:
    """The update holds a patch; its old file comes from the baseline."""
    from bsipatch import publish

    old, new = tmp_path / "old", tmp_path / "new"
    data = bytearray(os.urandom(300_000))
    write_tree(old, {"lib": bytes(data)})
    data[1000:1010] = b"0123456789"
    write_tree(new, {"lib": bytes(data)})
    update = tmp_path / "p.bsi"
    release = publish.Release(product="Demo", version="26.3.1", letter="a", build="b")
    report = publish.build(old, new, release, [key()], update, profile="fast", jobs=1)
    assert report
    with new_store(tmp_path / "store", old) as store:
        apply(store, update, strategy="copy")
        rot(store.live_path / "lib")
        assert not check(store, repair=True).sound
        assert only(check(store, repair=True, sources=[update])) == (1, "lib", str(update), 1)
