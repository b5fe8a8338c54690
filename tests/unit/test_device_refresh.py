"""Refreshing and following a feed: mirrors, folders, accepted sets, settings."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.feed_client import FeedClient
from bsipatch.device.following import follow
from bsipatch.device.state.config import FeedConfig
from bsipatch.errors import (
    BsipatchError,
    ConfigError,
    ExistsError,
    ExpiredError,
    FeedError,
    NotFoundError,
    StoreBusyError,
    UsageError,
)
from bsipatch.store import Store, durable
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Server, serving
from tests.support.stores import THIRD, base, store
from tests.support.tuf_feeds import DAY, Device, Repository, update

__all__ = ["base", "device", "repository", "server", "store"]


# --- the feed itself ---


def test_a_feed_on_a_stick(store: Store, repository: Repository, tmp_path: Path) -> None:
    offer, data = update()
    listed(repository, offer, data)
    url = repository.write(tmp_path / "a stick")
    with Device(store, repository, url.replace(" ", "%20")) as device:
        device.install()
        assert device.live == "26.3.1 (a)"


def test_offline(device: Device, repository: Repository) -> None:
    with pytest.raises(NotFoundError):
        device.feed.cached("Demo")
    offer, data = update()
    listed(repository, offer, data)
    device.refresh()
    view = device.feed.cached("Demo")
    assert [found.id for found in view.offers] == [offer.id]
    assert view.mirror == ""
    device.now += 3 * DAY
    with pytest.raises(ExpiredError):
        device.feed.cached("Demo")


def test_mirrors_that_are_down(
    store: Store, repository: Repository, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, data = update()
    listed(repository, offer, data)
    with serving({}) as empty:
        gone = empty.url
        with Device(store, repository, empty.url, server.url) as device:
            device.install()
            assert device.live == "26.3.1 (a)"
            assert [problem.mirror for problem in device.refresh().problems] == [empty.url]
            del repository.files["metadata/timestamp.json"]
            with pytest.raises(FeedError) as caught:
                device.refresh()
    assert gone in str(caught.value)
    assert server.url in str(caught.value)
    assert str(caught.value).count("the transfer failed") == 1


def test_a_mirror_half_way_through_a_copy(
    store: Store, repository: Repository, server: Server
) -> None:
    """It has the new timestamp and not yet the rest; the other one is whole but older."""
    offer, data = update()
    listed(repository, offer, data)
    old = repository.mirror()
    repository.publish()
    half = {**old, "metadata/timestamp.json": repository.files["metadata/timestamp.json"]}
    with (
        serving(half) as copying,
        serving(old) as whole,
        Device(store, repository, copying.url, whole.url) as device,
    ):
        device.install()
        assert device.live == "26.3.1 (a)"


def test_a_newer_root_of_a_broken_mirror_counts(
    store: Store, repository: Repository, server: Server
) -> None:
    """It revokes keys: the other mirror's metadata, signed by them, are worth nothing now."""
    from tests.support.tuf_feeds import new_key

    old = repository.mirror()
    for role in ("timestamp", "snapshot"):
        repository.signers[role] = [new_key()]
    repository.new_root()
    broken = {**old, "metadata/2.root.json": repository.files["metadata/2.root.json"]}
    del broken["metadata/timestamp.json"]
    for first, second in ((broken, old), (old, broken)):
        with (
            serving(first) as one,
            serving(second) as two,
            Device(store, repository, one.url, two.url) as device,
        ):
            with pytest.raises(BsipatchError):
                device.refresh()
            current = device.feed.store.current()
            assert current is not None
            assert "2.root.json" in device.feed.store.roots(current)
            (device.feed.folder / "metadata").unlink()


def test_a_refresh_is_whole_or_not_at_all(
    device: Device, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that makes metadata last fails in turn: the set before is still accepted."""
    device.refresh()
    before = device.feed.store.current()
    for owner, name in (
        (durable, "sync_fd"),
        (durable, "sync_dir"),
        (durable, "replace_link"),
        (os, "rename"),
    ):
        repository.publish()

        def failing(*arguments: Any, **named: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, failing)
            with pytest.raises(BsipatchError):
                device.refresh()
        assert device.feed.store.current() == before
    view = device.refresh()
    assert view.versions["timestamp"] == repository.timestamp.version
    current = device.feed.store.current()
    assert current is not None
    names = {name for name in os.listdir(device.feed.folder) if name.startswith("metadata")}
    assert names == {"metadata", current.name}


def test_every_file_is_synced_before_the_set_is_accepted(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real, link = durable.sync_fd, durable.replace_link

    def noting(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        real(fd)

    def accepting(name: str, target: str, **more: Any) -> None:
        folder = device.feed.folder / target
        files = [p for p in folder.rglob("*") if not p.is_symlink()]
        assert len(files) >= 6
        assert {path.stat().st_ino for path in files} <= synced
        link(name, target, **more)

    monkeypatch.setattr(durable, "sync_fd", noting)
    monkeypatch.setattr(durable, "replace_link", accepting)
    device.refresh()
    assert device.feed.store.current() is not None


def test_what_an_interrupted_refresh_left_is_cleared(device: Device) -> None:
    device.refresh()
    left = device.feed.folder / "metadata.abcdef.tmp"
    (left / "root_history").mkdir(parents=True)
    old = device.feed.folder / "metadata.99"
    old.mkdir()
    device.refresh()
    assert not left.exists()
    assert not old.exists()


def test_two_at_once(device: Device) -> None:
    with device.feed.store.changing("a long refresh"), pytest.raises(StoreBusyError):
        device.refresh()


def test_a_malformed_offer_hides_no_other(device: Device, repository: Repository) -> None:
    offer, data = update()
    bad, bad_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    path = listed(repository, bad, bad_data)
    target = repository.delegated["release"].targets[path]
    target.unrecognized_fields["custom"]["bsipatch"]["from_the_future"] = 1
    listed(repository, offer, data)
    view = device.refresh()
    assert [found.id for found in view.offers] == [offer.id]
    assert len(view.problems) == 1


# --- following ---


def test_following(store: Store, repository: Repository) -> None:
    config = FeedConfig(mirrors=("https://updates.example.org/x",), channel="beta")
    with pytest.raises(NotFoundError, match="follows no feed"):
        FeedClient(store.root / "feed")
    with pytest.raises(UsageError, match="root"):
        follow(store.root, config)
    with pytest.raises(FeedError):
        follow(store.root, config, root=b"{}")
    first = follow(store.root, config, root=repository.roots[0])
    assert first.new
    assert len(first.device_id) == 32
    again = follow(store.root, FeedConfig(mirrors=("file:///x/",), channel="release"))
    assert not again.new
    assert again.device_id == first.device_id
    with FeedClient(store.root / "feed") as feed:
        assert feed.config == FeedConfig(mirrors=("file:///x/",), channel="release")
    with pytest.raises(ExistsError, match="another root"):
        follow(store.root, config, root=Repository().roots[0])


def test_settings_survive_their_file(store: Store, repository: Repository) -> None:
    config = FeedConfig(
        mirrors=("https://a.example/", "file:///m%C3%BC/"),
        channel="developer",
        proxy="",
        bandwidth=17,
        managed='/Bibliothèque/"X"\\y',
    )
    follow(store.root, config, root=repository.roots[0], name="my-device")
    with FeedClient(store.root / "feed") as feed:
        assert feed.config == config
        assert feed.device_id == "my-device"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mirrors = 1",
        'mirrors = ["https://x/"]\nchannel = "x"',
        "{",
        'mirrors = []\nchannel = "beta"',
    ],
)
def test_settings_that_are_wrong(text: str, store: Store, repository: Repository) -> None:
    config = FeedConfig(mirrors=("https://x/",), channel="beta")
    follow(store.root, config, root=repository.roots[0])
    (store.root / "feed/config.toml").write_text(text)
    with pytest.raises(ConfigError):
        FeedClient(store.root / "feed")


def test_device_ids_that_are_none(store: Store, repository: Repository) -> None:
    config = FeedConfig(mirrors=("https://x/",), channel="beta")
    for bad in ("", "a b", "x" * 256, "-x", "a/b"):
        with pytest.raises(ConfigError):
            follow(store.root, config, root=repository.roots[0], name=bad)
