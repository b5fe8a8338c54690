"""What is known of a feed, read beside a refresh or a download, and after one that broke off."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from bsipatch.device.feed_client import FeedClient, FeedView
from bsipatch.device.installing import Installer
from bsipatch.device.metadata_store import CONSISTENT, LINK, MetadataStore
from bsipatch.device.service import DeviceService
from bsipatch.errors import (
    BsipatchError,
    MismatchError,
    RollbackError,
    StoreBusyError,
    StoreDamagedError,
    ThresholdError,
)
from bsipatch.feed.model import Withdrawal
from bsipatch.store import Work, durable
from tests.support.followed import device, listed, repository, server
from tests.support.served import managed, says, service
from tests.support.stores import base, store
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, new_key, update

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]

NOTICE = Withdrawal(
    reason="it eats cookies", at=NOW, expires=NOW + DAY, revert_installed=True, to="baseline"
)


def beside(device: Device) -> FeedClient:
    """The same feed, as another process has it open."""
    return FeedClient(device.feed.folder, clock=lambda: device.now)


def break_off(device: Device, repository: Repository, *, snapshot: bytes | None = None) -> None:
    """A refresh that gets the new timestamp and then nothing, or this in the snapshot's place."""
    repository.publish()
    name = f"metadata/{repository.snapshot.version}.snapshot.json"
    data = repository.files.pop(name)
    if snapshot is not None:
        repository.files[name] = snapshot
    with pytest.raises(BsipatchError):
        device.refresh()
    repository.files[name] = data


# --- without a lock ---


def test_reading_beside_a_refresh(device: Device) -> None:
    before = device.refresh()
    names = set(os.listdir(device.feed.folder))
    with beside(device) as other, other.store.changing("a long refresh"):
        assert device.feed.cached("Demo").versions == before.versions
    assert set(os.listdir(device.feed.folder)) == names


def test_a_set_that_is_swapped_while_it_is_read(
    device: Device, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.refresh()
    repository.publish()
    real, swaps = MetadataStore._read, [1]

    def reading(self: MetadataStore, name: str, dir_fd: int) -> bytes:
        if self is device.feed.store and swaps[0]:
            swaps[0] -= 1
            with beside(device) as other:
                other.refresh("Demo")
        return real(self, name, dir_fd)

    monkeypatch.setattr(MetadataStore, "_read", reading)
    view = device.feed.cached("Demo")
    assert view.versions["timestamp"] == repository.timestamp.version
    swaps[0] = 99
    with pytest.raises(StoreBusyError, match="renewed"):
        device.feed.cached("Demo")


def test_a_set_that_is_gone(device: Device) -> None:
    device.refresh()
    current = device.feed.store.current()
    assert current is not None
    durable.remove_tree(current.name, dir_fd=device.feed.store.fd)
    with pytest.raises(StoreDamagedError, match="gone"):
        device.feed.cached("Demo")
    device.refresh()
    assert device.feed.cached("Demo").offers == ()


def test_a_check_beside_a_download(device: Device, repository: Repository) -> None:
    offer, data = update()
    listed(repository, offer, data)
    view = device.refresh()
    seen: list[FeedView] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase != "downloading" or seen:
            return
        with beside(device) as other:
            seen.append(other.refresh("Demo"))
            with pytest.raises(StoreBusyError, match="download"), other.store.downloading("x"):
                pass

    with device.feed.transport() as transport:
        installer = Installer(device.store, device.feed, transport, work=Work(progress=progress))
        assert installer.fetch(view)[1]
    assert seen


def test_what_went_live_is_remembered_beside_a_refresh(device: Device) -> None:
    keys = device.refresh_keys()
    left = device.feed.folder / ".floor.json.abcdef.tmp"
    left.write_bytes(b"{")  # or of one that is being written right now
    with beside(device) as other, other.store.changing("a long refresh"):
        assert left.exists()
        series = ("Demo", "0" * 64)
        device.feed.raise_floor(lambda floor: floor.installed(series, 7, "release", keys))
    assert device.feed.floor().sequence(series, keys) == 7
    assert not left.exists()


def test_the_floor_of_one_that_went_live_meanwhile_stays(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, series, real = device.refresh_keys(), ("Demo", "0" * 64), MetadataStore.adopt

    def adopting(self: MetadataStore, *arguments: Any, **more: Any) -> Any:
        with beside(device) as other:
            other.raise_floor(lambda floor: floor.installed(series, 7, "release", keys))
        return real(self, *arguments, **more)

    monkeypatch.setattr(MetadataStore, "adopt", adopting)
    device.refresh()
    assert device.feed.floor().sequence(series, keys) == 7


# --- a refresh that broke off ---


def known(device: Device, repository: Repository) -> FeedView:
    """After a withdrawal of what is installed, and a check."""
    offer, data = update()
    path = listed(repository, offer, data)
    device.install()
    repository.change(path, withdrawn=NOTICE)
    repository.publish()
    return device.refresh()


def test_what_was_known_outlasts_it(device: Device, repository: Repository) -> None:
    before, old = known(device, repository), repository.mirror()
    for _ in range(3):
        break_off(device, repository)
        view = device.feed.cached("Demo")
        assert (view.offers, view.versions) == (before.offers, before.versions)
        assert view.offers[0].withdrawn == NOTICE
        assert "broke off" in view.problems[-1].reason
        sets = {name for name in os.listdir(device.feed.folder) if name.startswith("metadata.")}
        assert len(sets) == 2
    # What it did verify binds all the same: the mirror of before is too old by now.
    new = dict(repository.files)
    repository.files.clear()
    repository.files.update(old)
    with pytest.raises(RollbackError):
        device.refresh()
    repository.files.update(new)
    after = device.refresh()
    assert after.versions["timestamp"] == repository.timestamp.version
    assert device.feed.cached("Demo").problems == ()
    fd = device.feed.store.fd
    assert os.readlink(CONSISTENT, dir_fd=fd) == os.readlink(LINK, dir_fd=fd)


def test_a_known_withdrawal_is_honoured_after_it(
    service: DeviceService, device: Device, repository: Repository
) -> None:
    known(device, repository)
    break_off(device, repository, snapshot=b"{}")
    name = f"metadata/{repository.snapshot.version}.snapshot.json"
    repository.files[name] = b"{}"
    with pytest.raises(MismatchError):
        device.refresh()
    assert service.state().withdrawn == NOTICE.reason
    assert service.install().changed
    assert device.live == "26.3.1"


def test_a_store_from_before_there_was_a_consistent_link(
    device: Device, repository: Repository
) -> None:
    before = known(device, repository)
    (device.feed.folder / CONSISTENT).unlink()
    break_off(device, repository)
    assert device.feed.cached("Demo").versions == before.versions


def test_keys_that_a_newer_root_revokes_say_nothing_any_more(
    device: Device, repository: Repository
) -> None:
    device.refresh()
    for role in ("timestamp", "snapshot"):
        repository.signers[role] = [new_key()]
    repository.new_root()
    stamp = repository.files.pop("metadata/timestamp.json")
    with pytest.raises(BsipatchError):
        device.refresh()
    with pytest.raises(ThresholdError):
        device.feed.cached("Demo")
    repository.files["metadata/timestamp.json"] = stamp


def test_a_power_cut_between_the_two_links(
    device: Device, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = known(device, repository), durable.replace_link
    repository.publish()

    def failing(name: str, target: str, **more: Any) -> None:
        if name == LINK:
            raise OSError(errno.EIO, "Input/output error")
        real(name, target, **more)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "replace_link", failing)
        with pytest.raises(BsipatchError):
            device.refresh()
    assert device.feed.cached("Demo").versions == before.versions
    newest = repository.timestamp.version
    break_off(device, repository)
    assert device.feed.cached("Demo").versions["timestamp"] == newest


@pytest.mark.parametrize("link", [LINK, CONSISTENT])
def test_links_that_lead_elsewhere(device: Device, link: str) -> None:
    device.refresh()
    path = device.feed.folder / link
    path.unlink()
    path.symlink_to("/etc")
    with pytest.raises(StoreDamagedError, match=f"`{link}` leads elsewhere"):
        device.feed.cached("Demo")
