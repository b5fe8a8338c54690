"""The store as a whole, on small updates made by hand: what is allowed, what is refused, and why."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bsipatch import errors, trust
from bsipatch.errors import (
    ExistsError,
    ExpiredError,
    MismatchError,
    NoSpaceError,
    NotFoundError,
    SignatureError,
    StoreBusyError,
    StoreDamagedError,
    StoreStateError,
    ThresholdError,
    TreeDriftError,
    UsageError,
    WrongBaselineError,
    WrongPlatformError,
    WrongProductError,
)
from bsipatch.manifest import StacksOn
from bsipatch.store import Store, Work, apply, check, init
from bsipatch.store import applying, durable, eligibility, live, making, records, snapshot
from bsipatch.tree import Tree, walk
from tests.support import updates
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, tree_of, write_tree
from tests.support.updates import CREATED, key, make_manifest, make_update, pack

NOW = CREATED + 1000
THIRD = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"<plist>3</plist>\n" * 8}


def new_store(root: Path, base: Path, **options: Any) -> Store:
    settings: dict[str, Any] = {
        "product": "Demo",
        "version": "26.3.1",
        "build": "25D2128",
        "keys": [key().public],
    }
    return init(root, base, **{**settings, **options})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "base", OLD_FRAMEWORK)


@pytest.fixture
def store(tmp_path: Path, base: Path) -> Iterator[Store]:
    with new_store(tmp_path / "store", base) as made:
        yield made


@pytest.fixture
def update(tmp_path: Path) -> Path:
    return written(tmp_path / "a.bsi", make_update())


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def live_tree(store: Store) -> Tree:
    return walk(store.live_path)


def clean(store: Store) -> None:
    """Nothing half made or unexpected lies in the store."""
    assert records.leftovers(store.fd) == []
    extra = set(os.listdir(store.root)) - {
        "store.json", "lock", "current", "history.jsonl", "generations"
    }  # fmt: skip
    assert extra == set()
    assert (store.root / "lock").read_bytes() == b""


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
    monkeypatch.setattr(making, "read_back", _raises(OSError(errno.EIO, "disk")))
    with pytest.raises(errors.SystemCallError):
        new_store(tmp_path / "empty", base)
    assert set(os.listdir(tmp_path / "empty")) <= {"lock"}
    monkeypatch.undo()
    new_store(tmp_path / "empty", base).close()


def _raises(error: BaseException) -> Any:
    def raiser(*args: object, **named: object) -> None:
        raise error

    return raiser


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
    assert phases == ["building", "checking"]
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


def test_a_second_improvement_replaces_the_first(store: Store, update: Path, tmp_path: Path) -> None:
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
    new = {
        **OLD_FRAMEWORK,
        "Versions/A/Resources/Info.plist": File(OLD_FRAMEWORK["Versions/A/Resources/Info.plist"], 0o600),  # type: ignore[arg-type]
        "Versions/A/Deep/er/file": b"x",
        "Versions/A/void": None,
    }
    apply(store, written(tmp_path / "a.bsi", make_update(new=new)), now=NOW)
    assert live_tree(store) == tree_of(new)
    plist = store.tree_path(0) / "Versions/A/Resources/Info.plist"
    assert stat.S_IMODE(plist.stat().st_mode) == 0o644, "the baseline's file keeps its mode"


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"product": "Other"}, WrongProductError),
        ({"baseline": "version"}, WrongBaselineError),
        ({"baseline": "build"}, WrongBaselineError),
        ({"expires": NOW - 1}, ExpiredError),
        ({"expires": NOW}, ExpiredError),
    ],
)
def test_what_is_not_for_this_store_is_refused_and_noted(
    store: Store, tmp_path: Path, changes: dict[str, Any], error: type[errors.BsipatchError]
) -> None:
    wrong = {"version": "26.3.2", "build": "25D9999"}
    if isinstance(named := changes.get("baseline"), str):
        good = {"version": "26.3.1", "build": "25D2128", "digest": tree_of(OLD_FRAMEWORK).digest}
        changes = {"baseline": updates.Baseline(**{**good, named: wrong[named]})}
    update = written(tmp_path / "u.bsi", make_update(**changes))
    with pytest.raises(error):
        apply(store, update, now=NOW)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)
    last = store.history()[-1]
    assert last.event == "refused"
    assert last.error == error().code
    assert last.source == str(update)
    clean(store)


def test_another_baseline_tree_is_refused(store: Store, tmp_path: Path) -> None:
    update = written(tmp_path / "u.bsi", make_update(old=THIRD))
    with pytest.raises(WrongBaselineError, match="another baseline tree"):
        apply(store, update, now=NOW)


def test_platform_and_architecture(tmp_path: Path, base: Path) -> None:
    with new_store(
        tmp_path / "store", base, platform="macos", architectures=["arm64"]
    ) as store:
        for changes in (
            {"platform": "linux", "architectures": ("arm64",)},
            {"platform": "macos", "architectures": ("x86_64",)},
        ):
            update = written(tmp_path / "u.bsi", make_update(**changes))
            with pytest.raises(WrongPlatformError):
                apply(store, update, now=NOW)
        fat = make_update(platform="macos", architectures=("arm64", "x86_64"))
        apply(store, written(tmp_path / "u.bsi", fat), now=NOW)


def test_an_unsigned_update_changes_nothing_at_all(store: Store, tmp_path: Path) -> None:
    before = _everything(store.root)
    for keys in ([key(7)], [key(7), key(8)]):
        update = written(tmp_path / "u.bsi", pack(*make_manifest(), keys))
        with pytest.raises(SignatureError):
            apply(store, update, now=NOW)
    for data in (b"", b"junk", make_update()[:-1], make_update() + b"x"):
        with pytest.raises(errors.BsipatchError):
            apply(store, written(tmp_path / "u.bsi", data), now=NOW)
    assert _everything(store.root) == before


def _everything(root: Path) -> dict[str, Any]:
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = Path(folder, name)
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def test_the_threshold_counts_distinct_keys(tmp_path: Path, base: Path) -> None:
    keys = [key(n).public for n in range(3)]
    with new_store(tmp_path / "store", base, keys=keys, threshold=2) as store:
        one = written(tmp_path / "one.bsi", pack(*make_manifest(), [key(0)]))
        with pytest.raises(ThresholdError):
            apply(store, one, now=NOW)
        two = written(tmp_path / "two.bsi", pack(*make_manifest(), [key(0), key(2)]))
        apply(store, two, now=NOW)


def test_the_update_file_is_no_link_and_no_pipe(store: Store, update: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(update)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "none", "."):
        with pytest.raises(errors.BsipatchError):
            apply(store, tmp_path / name, now=NOW)


def test_a_wrong_payload_is_refused(store: Store, tmp_path: Path) -> None:
    data = bytearray(make_update())
    data[-3] ^= 1
    with pytest.raises(MismatchError):
        apply(store, written(tmp_path / "u.bsi", bytes(data)), now=NOW)
    assert live_tree(store) == tree_of(OLD_FRAMEWORK)
    assert store.history()[-1].event == "failed"
    clean(store)


def test_a_full_disk_is_noticed_before_anything_is_built(
    store: Store, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        eligibility.os,
        "fstatvfs",
        lambda fd: os.statvfs_result((4096, 4096, 1000, 10, 10, 0, 0, 0, 0, 255)),
    )
    with pytest.raises(NoSpaceError, match="needs"):
        apply(store, update, now=NOW)
    monkeypatch.undo()
    clean(store)


# --- drift ---


DRIFTS = {
    "content": (lambda p: p.write_bytes(b"x" * p.stat().st_size), "other content"),
    "size": (lambda p: p.write_bytes(b"x"), "bytes for"),
    "mode": (lambda p: p.chmod(0o664), "mode 0664 for 0644"),
    "missing": (lambda p: p.unlink(), "missing"),
    "link": (lambda p: (p.unlink(), p.symlink_to("empty")), "symlink for a file"),
}


@pytest.mark.parametrize("how", DRIFTS)
def test_a_drifted_file_is_named_with_its_reason(store: Store, update: Path, how: str) -> None:
    change, reason = DRIFTS[how]
    name = "Versions/A/Resources/same.dat"
    change(store.live_path / name)
    with pytest.raises(TreeDriftError) as caught:
        apply(store, update, now=NOW)
    assert "baseline drifted" in str(caught.value)
    assert name in str(caught.value)
    assert reason in str(caught.value)
    last = store.history()[-1]
    assert (last.event, last.error) == ("failed", "tree-drift")
    assert name in last.reason
    clean(store)


def test_a_drifted_patch_base_is_named(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("bsipatch._core._bsipatch")
    from bsipatch import delta

    name = "Versions/A/Demo"
    old, new = OLD_FRAMEWORK[name], NEW_FRAMEWORK[name]
    assert isinstance(old, File)
    assert isinstance(new, File)
    made, bodies = make_manifest()
    action = next(a for a in made.actions if a.path == name)
    index = action.payload
    assert index is not None
    patch = delta.diff_bytes(old.data, new.data)
    fresh: list[Any] = []
    offset = 0
    bodies[index] = patch
    import hashlib

    for number, payload in enumerate(made.payloads):
        if number == index:
            payload = msgspec.structs.replace(
                payload, kind="patch", decoded=1 << 20, memory=64 << 20
            )
        body = bodies[number]
        digest = hashlib.sha256(body).hexdigest()
        fresh.append(
            msgspec.structs.replace(payload, offset=offset, length=len(body), sha256=digest)
        )
        offset += len(body)
    actions = tuple(
        msgspec.structs.replace(a, do="patch") if a.path == name else a for a in made.actions
    )
    made = msgspec.structs.replace(made, payloads=tuple(fresh), actions=actions)
    update = written(tmp_path / "p.bsi", pack(made, bodies))
    target = store.live_path / name
    good = target.read_bytes()
    target.write_bytes(bytes(len(good)))
    with pytest.raises(TreeDriftError, match="Versions/A/Demo, other content"):
        apply(store, update, now=NOW)
    clean(store)
    target.write_bytes(good)
    apply(store, update, now=NOW)
    assert live_tree(store) == tree_of(NEW_FRAMEWORK)


def test_check_reports_every_drift(store: Store, update: Path) -> None:
    apply(store, update, now=NOW, strategy="copy")
    (store.live_path / "Versions/A/Demo").chmod(0o700)
    (store.live_path / "planted").write_text("x")
    (store.tree_path(0) / "Versions/A/Resources/gone.txt").unlink()
    report = check(store)
    assert not report.sound
    found = {(drift.generation, drift.path): drift.reason for drift in report.drift}
    assert found == {
        (1, "Versions/A/Demo"): "mode 0700 for 0755",
        (1, "planted"): "added",
        (0, "Versions/A/Resources/gone.txt"): "removed",
    }


# --- interruption and recovery ---


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (applying, "make_durable"),
        (applying, "read_back"),
        (applying.Stage, "build"),
        (durable, "rename_new"),
        (live, "flip"),
        (snapshot, "place"),
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
    monkeypatch.setattr(module, name, _raises(error))
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
    monkeypatch.setattr(applying.history, "append", _raises(OSError(errno.EIO, "disk")))
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
    from dataclasses import replace

    from bsipatch.limits import DEFAULT

    new_store(tmp_path / "store", base).close()
    with Store(tmp_path / "store", limits=replace(DEFAULT, max_generations=3)) as store:
        for index in range(5):
            new = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"%d" % index}
            made = make_update(new=new, letter="abcde"[index], build=f"1{index}")
            apply(store, written(tmp_path / f"{index}.bsi", made), now=NOW)
            assert len(store.status().generations) <= 3


def test_the_store_trusts_only_its_own_keys(store: Store) -> None:
    assert isinstance(store.policy(), trust.Policy)
    assert set(store.policy().keys) == {key().key_id}
