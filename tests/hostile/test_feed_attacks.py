"""The attacks on a feed, one after the other: each ends in a refusal and changes nothing.

Each test names the line that is the defence.  Where taking it away is easy the test does that
too (`without`), and the attack then succeeds: so none of these tests passes by accident.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from bsipatch.device.downloading import Downloads
from bsipatch.device.state.floor import Floor
from bsipatch.errors import (
    BsipatchError,
    ExpiredError,
    FeedError,
    MismatchError,
    RollbackError,
    StoreDamagedError,
    ThresholdError,
    TransferError,
    TrustError,
    WrongProductError,
)
from bsipatch.store import Store
from tests.support.feed_attacks import (
    a,
    device,
    fails,
    payload_digest,
    repository,
    untouched,
)
from tests.support.mirrors import Handler, serving
from tests.support.stores import THIRD, base, store
from tests.support.tuf_feeds import (
    DAY,
    NOW,
    Device,
    Repository,
    metafile,
    new_key,
    offer_of,
    sha256,
    sign,
    update,
)
from tests.support.updates import key, make_manifest, pack

__all__ = ["a", "base", "device", "repository", "store"]


# --- arbitrary software ---


def test_a_mirror_serves_other_bytes(
    device: Device, repository: Repository, a: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defence: the digest in Downloads._try, before a payload gets its name."""
    path = next(name for name in repository.files if name.startswith("targets/"))
    repository.files[path] = bytes(len(repository.files[path]))
    fails(device, TransferError)
    folder = device.feed.folder / "downloads"
    assert not list(folder.glob("*.bsi"))
    # without
    monkeypatch.setattr(Downloads, "_digest", lambda self, fd: a.id and payload_digest(repository))
    with pytest.raises(BsipatchError):  # the package's own signature is the second line
        device.install()
    assert list(folder.glob("*.bsi"))
    untouched(device)


def test_a_stolen_channel_key_lists_software_of_its_own(
    device: Device, repository: Repository
) -> None:
    """Defence: store.verify in store.apply: a feed names updates, the store's keys sign them."""
    made, bodies = make_manifest()
    data = pack(made, bodies, [key(7)])
    repository.add(offer_of(made, data), data)
    repository.publish()
    fails(device, TrustError)
    assert not [name for name in os.listdir(device.store.root) if name.endswith(".tmp")]


def test_an_offer_that_lies_about_its_update(device: Device, repository: Repository) -> None:
    """Defence: eligibility.check_device in store.apply, on the signed manifest itself."""
    made, bodies = make_manifest(product="Other")
    data = pack(made, bodies)
    offer = offer_of(made, data, product="Demo", id=f"Demo-26.3.1-a-{sha256(data)[:12]}")
    repository.add(offer, data)
    repository.publish()
    fails(device, WrongProductError)


# --- rollback, fast-forward, freeze ---


def test_rollback_to_an_older_feed(device: Device, repository: Repository, a: Any) -> None:
    """Defence: the accepted metadata in STORE/feed/metadata, which TUF compares with."""
    old = repository.mirror()
    repository.publish()
    device.refresh()
    device.server.files = old
    fails(device, RollbackError)


def test_rollback_after_the_metadata_was_lost(
    device: Device, repository: Repository, a: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defence: Floor.check_roles; the metadata's own memory is gone."""
    old = repository.mirror()
    repository.publish()
    device.refresh()
    (device.feed.folder / "metadata").unlink()
    device.server.files = old
    fails(device, RollbackError)
    # without
    (device.feed.folder / "metadata").unlink()
    monkeypatch.setattr(Floor, "check_roles", lambda self, roles: None)
    device.install()
    assert device.live == "26.3.1 (a)"


def test_a_lost_floor_is_not_an_empty_floor(device: Device, a: Any) -> None:
    """Defence: floor.read, which takes absence for damage."""
    device.refresh()
    (device.feed.folder / "floor.json").unlink()
    with pytest.raises(StoreDamagedError):
        device.refresh()
    (device.feed.folder / "floor.json").write_text("{}garbage")
    with pytest.raises(StoreDamagedError):
        device.refresh()


def test_a_feed_that_lists_only_older_updates(device: Device, repository: Repository) -> None:
    """Defence: floor.installed after each install, and DeviceFacts.floor from it."""
    older, older_data = update(offer={"sequence": 1})
    newer, newer_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    path = repository.add(newer, newer_data)
    repository.publish()
    device.install()
    assert device.live == "26.3.1 (b)"
    del repository.delegated["release"].targets[path]
    repository.add(older, older_data)
    repository.publish()
    assert "rollback" in device.codes(older)
    assert device.install().plan is None
    assert device.live == "26.3.1 (b)"


def test_fast_forward_and_the_recovery_from_it(
    device: Device, repository: Repository, a: Any
) -> None:
    """Defence: each mark of the floor binds only under the keys that had set it."""
    life = repository.mirror()
    repository.timestamp.version = 2_000_000_000
    repository.snapshot.version = 2_000_000_000
    repository.publish()
    device.refresh()
    device.server.files = life
    fails(device, RollbackError)
    # The publisher rotates the stolen keys and goes on counting where it was.
    device.server.files = repository.files
    for role in ("timestamp", "snapshot"):
        repository.signers[role] = [new_key()]
    repository.timestamp.version = repository.snapshot.version = 10
    repository.new_root()
    repository.publish()
    view = device.refresh()
    assert view.versions["timestamp"] == 11
    assert device.feed.floor().roles["timestamp"].number == 11


def test_the_root_never_goes_back(device: Device, repository: Repository, a: Any) -> None:
    """Defence: Floor.check_roles, which binds the root's version under whatever keys."""
    old = repository.mirror()
    for role in ("root", "timestamp", "snapshot"):  # no other mark binds then
        repository.signers[role] = [new_key()]
    repository.new_root()
    repository.publish()
    device.refresh()
    (device.feed.folder / "metadata").unlink()
    device.server.files = old
    assert "role root" in str(fails(device, RollbackError))


def test_freeze(
    device: Device, repository: Repository, a: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defence: Client sets TUF's reference time to the floor's idea of now."""
    device.refresh()
    device.now += 3 * DAY
    assert "expired" in str(fails(device, ExpiredError))
    # without: a device that believes its clock can be held in the past for ever
    device.now -= 3 * DAY
    device.install()
    assert device.live == "26.3.1 (a)"


def test_clock_set_back(
    device: Device, repository: Repository, a: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defence: Floor.now, the later of the clock and what it was at the last good refresh."""
    frozen = repository.mirror()
    device.now += 5 * DAY
    repository.now = int(device.now)
    repository.publish()
    device.refresh()
    device.now = NOW  # back to when the old timestamp was good
    (device.feed.folder / "metadata").unlink()
    device.server.files = frozen
    fails(device, ExpiredError)
    # without (and without the versions' memory, which would notice as well)
    monkeypatch.setattr(Floor, "now", lambda self, clock: int(clock))
    monkeypatch.setattr(Floor, "check_roles", lambda self, roles: None)
    device.install()
    assert device.live == "26.3.1 (a)"


def test_clock_set_forward_poisons_nothing(device: Device, a: Any) -> None:
    """Defence: the floor's time is written only after a refresh that ended well."""
    device.refresh()
    before = device.feed.floor().time
    device.now += 20 * 365 * DAY
    fails(device, ExpiredError)
    assert device.feed.floor().time == before
    device.now = NOW + 60
    device.install()
    assert device.live == "26.3.1 (a)"


# --- mixing ---


def test_mix_and_match(device: Device, repository: Repository, a: Any) -> None:
    """Defence: the timestamp's digest of the snapshot, and the snapshot's of each role."""
    first = repository.mirror()
    repository.publish()
    for role in ("snapshot", "targets", "release"):
        served = repository.mirror()
        served[f"metadata/2.{role}.json"], served[f"metadata/3.{role}.json"] = (
            first.get(f"metadata/2.{role}.json", b""),
            first[f"metadata/2.{role}.json"],
        )
        device.server.files = served
        fails(device, MismatchError)
    device.server.files = repository.files
    device.install()


def test_mirrors_of_different_ages(store: Store, repository: Repository, a: Any) -> None:
    """Defence: _Refresh.over keeps the newest set that verifies, whole, and names the laggard."""
    old = repository.mirror()
    repository.publish()
    with (
        serving(old) as lagging,
        serving(repository.files) as fresh,
        Device(store, repository, lagging.url, fresh.url) as device,
    ):
        view = device.refresh()
    assert view.versions["timestamp"] == 3
    assert [(p.mirror, p.code) for p in view.problems] == [(lagging.url, "stale")]


def test_redirected_metadata(device: Device, repository: Repository, a: Any) -> None:
    """Defence: every role is verified from the pinned root, wherever it came from."""
    other = Repository()
    offer, data = update(new=THIRD, letter="c", build="evil1", offer={"sequence": 9})
    other.add(offer, data)
    other.timestamp.version = 50
    other.publish()
    with serving(other.files) as elsewhere:

        def redirect(handler: Handler, path: str, body: bytes | None) -> bool:
            if path.startswith("metadata/") and "root" not in path:
                handler.answer(302, b"", {"Location": elsewhere.url + path})
                return True
            return False

        device.server.behaviour = redirect
        fails(device, ThresholdError)


def test_redirected_to_a_file_of_this_machine(device: Device, a: Any) -> None:
    """Defence: Transport._request follows http and https only, never from https to http."""

    def redirect(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.answer(302, b"", {"Location": "file:///etc/passwd"})
        return True

    device.server.behaviour = redirect
    assert "weaker" in str(fails(device, TransferError))


# --- keys ---


def resigned(repository: Repository, role: str, edit: Any) -> None:
    """Edits the JSON of a role as a mirror could, and of what vouches for its digest."""
    name = f"metadata/{repository.snapshot.version}.{role}.json"
    document = json.loads(repository.files[name])
    edit(document)
    repository.files[name] = json.dumps(document).encode()


def test_one_stolen_key_of_two(device: Device, repository: Repository, a: Any) -> None:
    """Defence: the threshold that the root sets for a role."""
    repository.signers["timestamp"] = [new_key(), new_key()]
    repository.thresholds["timestamp"] = 2
    repository.new_root()
    repository.publish()
    device.refresh()
    stolen = repository.signers["timestamp"][:1]
    repository.timestamp.version += 1
    repository.files["metadata/timestamp.json"] = sign(repository.timestamp, stolen)
    fails(device, ThresholdError)


@pytest.mark.parametrize("role", ["root", "release"])
def test_one_stolen_key_of_two_for(
    role: str, device: Device, repository: Repository, a: Any
) -> None:
    """Defence: the threshold of the root itself, and of a channel in its delegation."""
    repository.signers[role] = [new_key(), new_key()]
    repository.thresholds[role] = 2
    repository.new_root()
    repository.publish()
    device.refresh()
    repository.signers[role] = repository.signers[role][:1]
    if role == "root":
        repository.signers["root before"] = repository.signers["root"]
        repository.thresholds["root"] = 1
        repository.new_root()
    else:
        repository.delegate = lambda: None  # type: ignore[method-assign]
        repository.publish()
    fails(device, ThresholdError)


def test_the_same_signature_twice(device: Device, repository: Repository, a: Any) -> None:
    """Defence: signatures are counted by key."""
    repository.signers["timestamp"] = [new_key(), new_key()]
    repository.thresholds["timestamp"] = 2
    repository.new_root()
    repository.publish()
    document = json.loads(repository.files["metadata/timestamp.json"])
    document["signatures"] = [document["signatures"][0]] * 2
    repository.files["metadata/timestamp.json"] = json.dumps(document).encode()
    fails(device, ThresholdError, FeedError)


def test_one_key_under_two_ids(
    device: Device, repository: Repository, a: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defence: Client._check_keys: a threshold of two is two keys, not two names of one."""
    one = new_key()
    twin = new_key()
    twin_key = twin.public_key
    twin._private_key = one._private_key
    twin_key.keyval = dict(one.public_key.keyval)
    repository.signers["timestamp"] = [one, twin]
    repository.thresholds["timestamp"] = 2
    repository.new_root()
    repository.publish()
    fails(device, ThresholdError)
    # without
    from bsipatch.device.tuf_client import Client

    monkeypatch.setattr(Client, "_check_keys", lambda self: None)
    device.install()
    assert device.live == "26.3.1 (a)"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "release"])
@pytest.mark.parametrize("how", ["stripped", "emptied", "zeroed"])
def test_signatures_stripped(
    role: str, how: str, device: Device, repository: Repository, a: Any
) -> None:
    """Defence: a role without its threshold of valid signatures is nothing."""

    def edit(document: Any) -> None:
        if how == "stripped":
            document["signatures"] = []
        for signature in document["signatures"]:
            signature["sig"] = "" if how == "emptied" else "00" * 64

    if role == "timestamp":
        document = json.loads(repository.files["metadata/timestamp.json"])
        edit(document)
        repository.files["metadata/timestamp.json"] = json.dumps(document).encode()
    else:
        resigned(repository, role, edit)
        _vouch(repository, role)
    fails(device, ThresholdError, FeedError)


def _vouch(repository: Repository, role: str) -> None:
    """As if snapshot's and timestamp's keys were stolen: they vouch for the edited role."""
    if role != "snapshot":
        data = repository.files[f"metadata/{repository.snapshot.version}.{role}.json"]
        repository.snapshot.meta[f"{role}.json"] = metafile(repository.snapshot.version, data)
        data = sign(repository.snapshot, repository.signers["snapshot"])
        repository.files[f"metadata/{repository.snapshot.version}.snapshot.json"] = data
    data = repository.files[f"metadata/{repository.snapshot.version}.snapshot.json"]
    repository.renew(metafile(repository.snapshot.version, data))


def test_a_failed_root_is_never_trusted_later(
    device: Device, repository: Repository, a: Any
) -> None:
    """Defence: only verified files are in a stage, and every walk starts from the pinned root."""
    attacker = Repository()
    attacker.root.version = 1
    attacker.signers["root before"] = []
    attacker.new_root()
    attacker.publish()
    device.server.files = {**attacker.files}
    fails(device, ThresholdError)
    roots = device.feed.store.roots(device.feed.store.current())
    assert list(roots) == ["1.root.json"]
    # Not even one that someone managed to put among the accepted files.
    place = device.feed.store.current() / "root_history" / "2.root.json"
    place.write_bytes(attacker.files["metadata/2.root.json"])
    fails(device, ThresholdError)
    roots = device.feed.store.roots(device.feed.store.current())
    assert list(roots) == ["1.root.json"]
    device.server.files = repository.files
    device.install()
    assert device.live == "26.3.1 (a)"
