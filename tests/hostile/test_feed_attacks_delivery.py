"""More attacks on a feed: on transfers, names, the wrong device, and what was verified already.

As in test_feed_attacks: each test names its defence, and some take it away.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from bsipatch import store as stores
from bsipatch.device import downloading, feed_client, withdrawal
from bsipatch.device.state.config import FeedConfig, check
from bsipatch.device.transport import Pace
from bsipatch.errors import (
    BsipatchError,
    ConfigError,
    PolicyError,
    TransferError,
)
from bsipatch.feed.model import Withdrawal, to_custom
from bsipatch.store import Store
from tests.support.feed_attacks import (
    a,
    device,
    fails,
    payload_digest,
    repository,
    untouched,
)
from tests.support.mirrors import POURED, Handler, serving
from tests.support.stores import THIRD, base, store
from tests.support.tuf_feeds import (
    DAY,
    NOW,
    Device,
    Repository,
    offer_of,
    sha256,
    update,
)
from tests.support.updates import make_manifest, pack

__all__ = ["a", "base", "device", "repository", "store"]


# --- too much, too slowly ---


def test_endless_metadata(device: Device, a: Any) -> None:
    """Defence: max_timestamp and its like in Client's config."""

    def endless(handler: Handler, path: str, body: bytes | None) -> bool:
        if path != "metadata/timestamp.json":
            return False
        handler.pour(b"")
        return True

    device.server.behaviour = endless
    fails(device, TransferError)
    assert max(device.server.poured, default=0) < POURED


@pytest.mark.parametrize("length", [1 << 40, None])
def test_endless_payload(
    length: int | None, device: Device, repository: Repository, a: Any
) -> None:
    """Defence: the signed size in Downloads._receive, before a byte beyond it is written."""

    def endless(handler: Handler, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/") or body is None:
            return False
        handler.pour(body, length=length)
        return True

    device.server.behaviour = endless
    fails(device, TransferError)
    assert max(device.server.poured, default=0) < POURED
    assert all(file.stat().st_size <= a.size for file in device.downloads.iterdir())


def test_slow_payload(device: Device, a: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defence: Meter.took, which counts what arrives in each window; a socket's own
    timeout starts anew with every byte."""

    def slow(handler: Handler, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/") or body is None:
            return False
        handler.drip(body)
        return True

    device.server.behaviour = slow
    monkeypatch.setattr(downloading, "_TRIES", 0)
    with pytest.raises(TransferError, match="too slow"):
        device.install(pace=Pace(min_rate=100_000, window=0.1))
    untouched(device)


@pytest.mark.parametrize("part", ["header", "body"])
def test_slow_metadata(part: str, device: Device, a: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defence: the watch, which ends a connection from outside when time is up."""
    sent = []

    def slow(handler: Handler, path: str, body: bytes | None) -> bool:
        if path != "metadata/timestamp.json" or body is None:
            return False
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if part == "body" else b"X-A: "))
        with contextlib.suppress(OSError):
            while len(sent) < 300 and not handler.server.done.is_set():
                handler.wfile.write(b"a")
                sent.append(1)
                time.sleep(0.02)
        return True

    device.server.behaviour = slow
    monkeypatch.setattr(feed_client, "_METADATA_TIME", 0.4)
    assert "longer than it may" in str(fails(device, TransferError))
    assert len(sent) < 300


# --- names ---


def test_a_role_name_as_a_path(device: Device, repository: Repository, a: Any) -> None:
    """Defence: python-tuf quotes a role's name before it makes a file's name of it."""
    evil = "../../../evil"
    repository.intruders[evil] = ["release/*/*"]
    repository.signers[evil] = repository.signers["release"]
    repository.delegated[evil] = copy.deepcopy(repository.delegated["developer"])
    repository.publish()
    served = repository.files[f"metadata/{repository.snapshot.version}.{evil}.json"]
    version = repository.delegated[evil].version
    repository.files[f"metadata/{version}.{evil.replace('/', '%2F')}.json"] = served
    device.install()
    found = [path for path in device.store.root.parent.rglob("*") if "evil" in path.name]
    assert found
    assert all(device.feed.folder in path.parents for path in found)


@pytest.mark.parametrize(
    "name", ["../x", "release/../beta", "", "RELEASE", "timestamp", "release\0"]
)
def test_a_channel_name_as_a_path(name: str) -> None:
    """Defence: check_channel, which knows three names and makes none."""
    with pytest.raises(ConfigError):
        check(FeedConfig(mirrors=("https://example.org/",), channel=name), "config.toml")


@pytest.mark.parametrize(
    "path",
    [
        "release/../../../x.bsi",
        "release/Demo/" + "0" * 64 + ".exe",
        "release/Demo/../" + "0" * 64 + ".bsi",
        "release//" + "0" * 64 + ".bsi",
        "release/Demo/x\n.bsi",
    ],
)
def test_a_target_path_that_is_none(path: str, device: Device, repository: Repository) -> None:
    """Defence: parse_target in read_offer."""
    offer, data = update()
    repository.list_as(path, data, to_custom(offer), "release")
    repository.publish()
    view = device.refresh()
    assert not view.offers
    assert view.problems


# --- what is not for this device ---


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"product": "Other"}, "wrong-product"),
        ({"platform": "macos"}, "wrong-platform"),
        ({"architectures": ("riscv64",)}, "wrong-architecture"),
        ({"version": "26.4"}, "wrong-baseline"),
    ],
)
def test_not_for_this_device(
    changes: dict[str, Any], code: str, repository: Repository, tmp_path: Path, base: Path
) -> None:
    """Defence: feed.decide before anything is fetched, store.eligibility on the manifest again."""
    from tests.support.stores import new_store

    made, bodies = make_manifest(**changes)
    if "version" in changes:
        made, bodies = make_manifest(
            baseline=make_manifest()[0].baseline.__class__(
                version="26.4", build="25D2128", digest=made.baseline.digest
            ),
            **changes,
        )
    data = pack(made, bodies)
    offer = offer_of(made, data)
    repository.add(offer, data)
    repository.publish()
    with (
        serving(repository.files) as server,
        new_store(tmp_path / "s", base, platform="linux", architectures=["x86_64"]) as made_store,
        Device(made_store, repository, server.url) as device,
    ):
        assert device.codes(offer) == {code}
        assert device.install().plan is None
        with pytest.raises(BsipatchError):
            device.install(offer.id)
        assert not any(path.startswith("targets/") for path, _ in server.asked)
        untouched(device)


def test_another_channel(device: Device, repository: Repository) -> None:
    """Defence: the delegation's paths, asked through TUF's own walk in Client.listed."""
    offer, data = update()
    repository.add(offer, data, "beta")
    path = repository.path = f"beta/Demo/{sha256(data)}.bsi"
    repository.delegated["release"].targets[path] = repository.delegated["beta"].targets[path]
    del repository.delegated["beta"].targets[path]
    repository.publish()
    view = device.refresh()
    assert not view.offers
    assert [problem.code for problem in view.problems] == ["wrong-role"]


# --- after verification ---


def test_payload_swapped_after_verification(
    device: Device, repository: Repository, a: Any, tmp_path: Path
) -> None:
    """Defence: the descriptor that was verified is the one that is applied, never the name."""
    _, other = update(new=THIRD, letter="b", build="25D771280b")

    def swapping(by_name: bool) -> Any:
        def apply(store: Store, fd: int, offer: Any, view: Any) -> Any:
            name = device.feed.folder / "downloads" / f"{payload_digest(repository)}.bsi"
            name.unlink()
            name.write_bytes(other)
            return stores.apply(store, name if by_name else fd, now=view.now)

        return apply

    device.install(apply=swapping(by_name=False))
    assert device.live == "26.3.1 (a)"
    device.store.revert(baseline=True)
    device.store.allow("all")
    # without: the name leads to another update, which is signed as well
    device.install(apply=swapping(by_name=True))
    assert device.live == "26.3.1 (b)"


# --- withdrawals ---


def test_an_expired_withdrawal_is_not_acted_on(
    device: Device, repository: Repository, a: Any
) -> None:
    """Defence: decide() and withdrawal.act compare the notice's own end with now."""
    device.install()
    notice = Withdrawal(reason="old news", at=NOW - 9, expires=NOW - 1, revert_installed=True)
    repository.change(repository.path, withdrawn=notice)
    repository.publish()
    assert device.install().withdrawn is None
    assert device.live == "26.3.1 (a)"
    view = device.refresh()
    with pytest.raises(PolicyError):
        withdrawal.act(device.store, device.feed, view, view.offers[0])
    assert device.live == "26.3.1 (a)"


def test_a_withdrawal_that_nobody_signed(device: Device, repository: Repository, a: Any) -> None:
    """Defence: a notice stands in the channel's signed role, and nowhere else."""
    device.install()
    name = f"metadata/{repository.snapshot.version}.release.json"
    document = json.loads(repository.files[name])
    target = next(iter(document["signed"]["targets"].values()))
    target["custom"]["bsipatch"]["withdrawn"] = {
        "reason": "x",
        "at": NOW,
        "expires": NOW + DAY,
        "revert_installed": True,
    }
    document["signed"]["version"] += 1
    repository.files[f"metadata/{document['signed']['version']}.release.json"] = json.dumps(
        document
    ).encode()
    repository.files[name] = json.dumps(document).encode()
    device.install()
    assert device.live == "26.3.1 (a)"
