"""What a store refuses, and the reason that it gives and remembers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bsipatch import errors
from bsipatch.errors import (
    ExpiredError,
    MismatchError,
    NoSpaceError,
    SignatureError,
    ThresholdError,
    TreeDriftError,
    WrongBaselineError,
    WrongPlatformError,
    WrongProductError,
)
from bsipatch.store import (
    Store,
    apply,
    check,
    eligibility,
)
from tests.support import updates
from tests.support.stores import (
    NOW,
    THIRD,
    clean,
    live_tree,
    new_store,
    written,
)
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, File, tree_of
from tests.support.updates import key, make_manifest, make_update, pack

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
    with new_store(tmp_path / "store", base, platform="macos", architectures=["arm64"]) as store:
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
