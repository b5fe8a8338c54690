"""The base moves on by other means: what the store adopts, retires and keeps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import adoption
from bsipatch.device.adoption import adopt
from bsipatch.errors import CancelledError, NotFoundError, StoreStateError
from bsipatch.store import Store, durable
from tests.support.mirrors import serving
from tests.support.stores import THIRD, base, live_tree, store
from tests.support.trees import NEW_FRAMEWORK, tree_of, write_tree
from tests.support.tuf_feeds import Device, Repository, update

__all__ = ["base", "store"]


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    made.offer, data = update()
    made.add(made.offer, data)
    made.publish()
    return made


def test_an_improvement_that_the_base_contains(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    with serving(repository.files) as server:
        with Device(store, repository, server.url) as device:
            device.install()
        tree = write_tree(tmp_path / "next", {**NEW_FRAMEWORK, "Versions/A/more": b"26.4"})
        done = adopt(store.root, tree, version="26.4", build="25E1")
        assert [(item.display, item.contained) for item in done.retired] == [("26.3.1 (a)", True)]
        assert done.was == "26.3.1 (a)"
        with Store(store.root) as moved, Device(moved, repository, server.url) as device:
            assert device.live == "26.4"
            assert live_tree(moved).digest == moved.identity.baseline
            assert device.codes(repository.offer) == {"contained-in-base"}
            assert [event.event for event in moved.history()][-1] == "adopt"
            assert "apply" in [event.event for event in moved.history()]
            assert device.feed.device_id == "device-1"
            # what is built for the new base is offered and installed
            fresh, data = update(
                {**NEW_FRAMEWORK, "Versions/A/more": b"26.4"},
                THIRD,
                version="26.4",
                build="25E1a",
                baseline=_baseline(moved),
                offer={"sequence": 1},
            )
            repository.add(fresh, data)
            repository.publish()
            device.install()
            assert device.live == "26.4 (a)"
    assert not [name for name in os.listdir(store.root.parent) if "adopting" in name]


def _baseline(store: Store) -> Any:
    from bsipatch.manifest import Baseline

    return Baseline(
        version=store.identity.version, build=store.identity.build, digest=store.identity.baseline
    )


def test_an_improvement_that_it_lacks_is_told(
    store: Store, repository: Repository, base: Path, tmp_path: Path
) -> None:
    with serving(repository.files) as server, Device(store, repository, server.url) as device:
        device.install()
    tree = write_tree(tmp_path / "next", THIRD)
    done = adopt(store.root, tree, version="26.4", build="25E1")
    (retired,) = done.retired
    assert not retired.contained
    assert retired.live
    assert "Versions/A/Demo" in (*retired.missing, "Versions/A/Demo")
    assert retired.missing


def test_the_same_tree_again(store: Store, base: Path) -> None:
    done = adopt(store.root, base, version="26.3.1", build="25D2128")
    assert done.already
    assert store.live().display == "26.3.1"


def test_the_managed_tree_was_updated(
    store: Store, repository: Repository, tmp_path: Path, base: Path
) -> None:
    managed = tmp_path / "managed"
    shutil.copytree(base, managed, symlinks=True)
    with (
        serving(repository.files) as server,
        Device(store, repository, server.url, managed=str(managed)) as device,
    ):
        assert device.choose().plan is not None
        assert device.choose().moved == ""
        shutil.rmtree(managed)
        write_tree(managed, {**NEW_FRAMEWORK, "Versions/A/more": b"26.4"})
        choice = device.choose()
        assert "another tree" in choice.moved
        assert choice.plan is None
        assert {r.code for r in choice.reasons(repository.offer)} == {"wrong-baseline"}
        assert device.install().plan is None
        assert device.live == "26.3.1"


def test_a_change_that_keeps_size_and_mode_is_seen(
    store: Store, repository: Repository, tmp_path: Path, base: Path
) -> None:
    managed = tmp_path / "managed"
    shutil.copytree(base, managed, symlinks=True)
    with (
        serving(repository.files) as server,
        Device(store, repository, server.url, managed=str(managed)) as device,
    ):
        assert device.choose().moved == ""
        plist = managed / "Versions/A/Resources/Info.plist"
        plist.write_bytes(bytes(len(plist.read_bytes())))
        assert device.choose().moved


def test_failures_leave_the_old_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "next", NEW_FRAMEWORK)
    with pytest.raises(NotFoundError):
        adopt(store.root, tmp_path / "nowhere", version="26.4", build="25E1")

    def failing(*arguments: object, **named: object) -> None:
        raise CancelledError

    for owner, name in (
        (adoption, "_judge"),
        (adoption, "_carry"),
        (adoption, "_put_in_place"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, failing)
            with pytest.raises(CancelledError):
                adopt(store.root, tree, version="26.4", build="25E1")
        with Store(store.root) as still:
            assert still.live().display == "26.3.1"
        assert sorted(os.listdir(store.root.parent)) == ["base", "next", "store"]

    def refused(*arguments: object, **named: object) -> None:
        import errno

        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(durable, "exchange", refused)
    with pytest.raises(StoreStateError, match="mount point"):
        adopt(store.root, tree, version="26.4", build="25E1")
    assert sorted(os.listdir(store.root.parent)) == ["base", "next", "store"]


def test_what_an_interrupted_adoption_left_is_cleared(store: Store, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "next", NEW_FRAMEWORK)
    left = store.root.parent / ".store.adopting"
    (left / "generations/0").mkdir(parents=True)
    (left / "strange").write_text("x")
    adopt(store.root, tree, version="26.4", build="25E1")
    assert not left.exists()
    with Store(store.root) as moved:
        assert moved.live().tree == tree_of(NEW_FRAMEWORK).digest


def test_settings_and_bars_stay(store: Store, repository: Repository, tmp_path: Path) -> None:
    with serving(repository.files) as server, Device(store, repository, server.url) as device:
        device.install()
        store.revert(reason="did not like it")
    (store.root / "health.toml").write_text("")
    tree = write_tree(tmp_path / "next", NEW_FRAMEWORK)
    adopt(store.root, tree, version="26.4", build="25E1")
    with Store(store.root) as moved:
        assert [bar.reason for bar in moved.bars()] == ["did not like it"]
    assert (store.root / "health.toml").exists()
