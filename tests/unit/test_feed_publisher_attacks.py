"""What a feed's publisher must survive: planted files, wrong names, old copies, other keys."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    FeedError,
    RollbackError,
    SignatureError,
    ThresholdError,
    UnsafePathError,
    UsageError,
)
from bsipatch.limits import DEFAULT
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed import roots
from bsipatch.publish.feed.checks import check_feed
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.repository import Feed
from bsipatch.publish.feed.state import delegated, trusted_root
from bsipatch.publish.feed.storage import open_storage
from tests.support.feeds import START, Clock, add, copy_feed, described, new_feed, reopen


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    new_feed(folder, root_count=3, root_threshold=2)
    return folder


@pytest.fixture
def feed(template: Path, tmp_path: Path, clock: Clock) -> Feed:
    return copy_feed(template, tmp_path, clock)


@pytest.fixture
def other(tmp_path: Path, clock: Clock) -> Feed:
    (tmp_path / "other").mkdir()
    return new_feed(tmp_path / "other", clock=clock)


# --- a bucket that others can write to ---


def plant(folder: Path, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "feed/metadata" / path
    document = json.loads(file.read_bytes())
    change(document["signed"])
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "path", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.beta.json"]
)
def test_a_publisher_signs_nothing_that_was_planted(
    feed: Feed, tmp_path: Path, clock: Clock, path: str
) -> None:
    plant(tmp_path, path, lambda signed: signed.update(planted=1))
    with pytest.raises((ThresholdError, CorruptError)):
        reopen(tmp_path, clock=clock)


def test_stripped_signatures_are_no_signatures(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "feed/metadata/timestamp.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "signatures": []}))
    with pytest.raises(ThresholdError):
        reopen(tmp_path, clock=clock)


def test_a_planted_root_is_refused(feed: Feed, other: Feed, tmp_path: Path, clock: Clock) -> None:
    root = Metadata[Root].from_bytes(other.state.root_bytes)
    root.signed.version = 2
    md.sign(root, other.keys.available(root.signed.roles["root"].keyids))
    (tmp_path / "feed/metadata/2.root.json").write_bytes(md.to_bytes(root))
    with pytest.raises(ThresholdError):
        reopen(tmp_path, clock=clock)


def test_check_trusts_only_the_given_root(feed: Feed, other: Feed) -> None:
    with pytest.raises(BsipatchError, match="could not read"):
        check_feed(feed.storage, trusted_root(other.keys), now=START)


def test_an_old_copy_put_back_is_noticed(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    shutil.copytree(tmp_path / "feed", tmp_path / "old")
    add(feed, described(tmp_path))
    shutil.rmtree(tmp_path / "feed")
    (tmp_path / "old").rename(tmp_path / "feed")
    with pytest.raises(RollbackError):
        reopen(tmp_path, clock=clock)


@pytest.mark.parametrize(
    "path",
    ["release/Demo/{}.bsi", "beta/Demo/../{}.bsi", "beta/Other/{}.bsi", "../beta/Demo/{}.bsi"],
)
def test_a_channels_key_cannot_list_what_is_not_its_own(
    feed: Feed, tmp_path: Path, path: str
) -> None:
    update = described(tmp_path)
    add(feed, update)
    made = Metadata[Targets].from_bytes(md.to_bytes(feed.state.channels["beta"])).signed
    assert md.offers_of(made, "beta", DEFAULT)
    made.targets[path.format(update.sha256)] = made.targets.pop(f"beta/Demo/{update.sha256}.bsi")
    with pytest.raises(BsipatchError):
        md.offers_of(made, "beta", DEFAULT)


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "nightly", "root", "targets"])
def test_a_delegation_to_a_path_is_refused(feed: Feed, name: str) -> None:
    targets = Metadata[Targets].from_bytes(md.to_bytes(feed.state.targets)).signed
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    role = targets.delegations.roles.pop("beta")
    role.name, role.paths = name, [f"{name}/*/*"]
    targets.delegations.roles[name] = role
    with pytest.raises(CorruptError, match="delegation"):
        delegated(targets)


def test_a_delegation_to_other_paths_is_refused(feed: Feed) -> None:
    targets = Metadata[Targets].from_bytes(md.to_bytes(feed.state.targets)).signed
    targets.get_delegated_role("beta").paths = ["*/*/*"]
    with pytest.raises(CorruptError, match="delegation"):
        delegated(targets)


@pytest.mark.parametrize("product", ["../x", "..", "a/b", "x\0"])
def test_a_product_never_becomes_a_path(feed: Feed, tmp_path: Path, product: str) -> None:
    update = described(tmp_path)
    lying = msgspec.structs.replace(update.offer, product=product)
    with pytest.raises(UnsafePathError):
        add(feed, dataclasses.replace(update, offer=lying))
    assert not (tmp_path / "feed/targets").exists()


# --- other keys ---


def first_root(folder: Path) -> bytes:
    return (folder / "feed/metadata/1.root.json").read_bytes()


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp", "beta"])
def test_every_role_gets_another_key(feed: Feed, tmp_path: Path, clock: Clock, role: str) -> None:
    add(feed, described(tmp_path))
    old, new = feed.key_ids(role), feed.keys.make("new", None)
    assert feed.rotate(role, add=[new], drop=old).published
    assert feed.key_ids(role) == [new.key_id]
    shutil.rmtree(tmp_path / "keys" / role)  # the old one is never needed again
    again = reopen(tmp_path, clock=clock)
    add(again, described(tmp_path, "b"))
    again.refresh()
    found = check_feed(again.storage, first_root(tmp_path), now=START)
    assert (found.offers, found.findings) == (2, ())


def test_root_keys_change_by_the_old_and_the_new_threshold(feed: Feed, tmp_path: Path) -> None:
    stolen = feed.key_ids("root")[0]
    new = feed.keys.make("root-new", None)
    feed.rotate("root", add=[new], drop=[stolen], threshold=3)
    root = feed.state.root.signed
    assert root.version == 2
    assert root.roles["root"].threshold == 3
    assert stolen not in root.keys
    assert check_feed(feed.storage, first_root(tmp_path), now=START).findings == ()


def without(folder: Path, *names: str) -> Feed:
    """The feed as somebody has it who holds fewer keys."""
    (folder / "away").mkdir()
    for name in names:
        (folder / "keys" / name).rename(folder / "away" / name)
    return reopen(folder, clock=Clock())


def private(folder: Path, name: str) -> trust.PrivateKey:
    return trust.load_private(folder / name / "private.pem")


def test_an_offline_root_travels_and_is_signed_in_turn(feed: Feed, tmp_path: Path) -> None:
    poor = without(tmp_path, "root-1", "root-2", "root-3")
    old = poor.state.root
    new = poor.keys.make("timestamp-2", None)
    report = poor.rotate("timestamp", add=[new], drop=poor.key_ids("timestamp"))
    assert not report.published
    assert report.pending is not None
    assert not (tmp_path / "feed/metadata/2.root.json").exists()
    root = roots.read(report.pending, "root.json")
    with pytest.raises(ThresholdError, match="new root"):
        poor.publish_root(md.to_bytes(root), file="root.json")
    for name, lacking in (("root-1", 1), ("root-1", 1), ("root-3", 0)):
        roots.add_signature(root, old, private(tmp_path / "away", name), "root.json")
        assert roots.missing(old, root) == lacking, "one holder counts once"
    with pytest.raises(SignatureError):
        roots.add_signature(root, old, trust.generate(), "root.json")
    assert poor.publish_root(md.to_bytes(root), file="root.json").published
    assert poor.key_ids("timestamp") == [new.key_id]
    assert check_feed(poor.storage, first_root(tmp_path), now=START).findings == ()
    with pytest.raises(CorruptError, match="not the next root"):
        poor.publish_root(md.to_bytes(root), file="root.json")


def test_fewer_root_keys_than_the_threshold_change_nothing(feed: Feed, tmp_path: Path) -> None:
    thief = without(tmp_path, "root-1", "root-2")
    mine = trust.generate()
    leaving = thief.key_ids("root")
    report = thief.rotate("root", add=[mine.public], drop=leaving, threshold=1)
    assert report.pending is not None
    root = roots.read(report.pending, "root.json")
    roots.add_signature(root, thief.state.root, mine, "root.json")
    assert roots.missing(None, root) == 0, "its own threshold of one is met"
    with pytest.raises(ThresholdError, match="current root"):
        thief.publish_root(md.to_bytes(root), file="root.json")


def test_a_root_of_another_shape_is_refused(feed: Feed) -> None:
    spoils: list[Callable[[Root], None]] = [
        lambda root: setattr(root, "consistent_snapshot", False),
        lambda root: setattr(root, "version", 4),
    ]
    for spoil in spoils:
        root = roots.propose(feed.state.root, "root", [], [], None, START)
        roots.check_next(feed.state.root, root, "root.json")
        spoil(root.signed)
        with pytest.raises(CorruptError):
            roots.check_next(feed.state.root, root, "root.json")
    for data in (b"", b"{}", b"[" * 10_000, md.to_bytes(feed.state.targets)):
        with pytest.raises(CorruptError):
            roots.read(data, "root.json")


def test_rotations_that_make_no_sense_are_refused(feed: Feed) -> None:
    def public(name: str) -> trust.PublicKey:
        found = feed.keys.public(name)
        assert found is not None
        return found

    own = feed.key_ids("timestamp")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("timestamp", {"add": [public("snapshot")]}),
        ("timestamp", {"drop": ["0" * 16]}),
        ("timestamp", {"drop": [own[0][:4]]}),
        ("timestamp", {"drop": own}),
        ("timestamp", {"threshold": 2}),
        ("beta", {"add": [public("beta")]}),
        ("release", {"add": [public("beta")]}),
        ("root", {"add": [public("root-1")]}),
    ]
    for role, options in wrong:
        with pytest.raises(UsageError):
            feed.rotate(role, **options)
    for role in ("../root", "mirror", "1.root"):
        with pytest.raises(UnsafePathError):
            feed.rotate(role)


def test_a_missing_private_key_is_named(feed: Feed, tmp_path: Path) -> None:
    key = feed.key_ids("beta")[0]
    poor = without(tmp_path, "beta")
    before = sorted((tmp_path / "feed").rglob("*"))
    with pytest.raises(ThresholdError) as error:
        add(poor, described(tmp_path))
    assert key[:16] in str(error.value)
    assert sorted((tmp_path / "feed").rglob("*")) == before


def test_a_wrong_private_half_is_refused(feed: Feed, tmp_path: Path) -> None:
    (tmp_path / "keys/beta/private.pem").write_bytes(trust.generate().pem(None))
    with pytest.raises(BsipatchError, match="private half"):
        add(reopen(tmp_path, clock=Clock()), described(tmp_path))


def test_private_keys_are_opened_only_to_sign(template: Path, tmp_path: Path) -> None:
    copy_feed(template, tmp_path, Clock())
    opened: list[str] = []

    def load(path: Path) -> trust.PrivateKey:
        opened.append(path.parent.name)
        return trust.load_private(path)

    keys = KeyRing(tmp_path / "keys", load)
    feed = Feed(open_storage(str(tmp_path / "feed")), keys, clock=Clock())
    assert opened == []
    add(feed, described(tmp_path))
    assert sorted(opened) == ["beta", "snapshot", "timestamp"]


def test_stolen_online_keys_alone_offer_nothing(feed: Feed, tmp_path: Path) -> None:
    """Whoever has the timestamp's key can hold devices up, and make them take nothing."""
    snapshot = Metadata[Snapshot].from_bytes(md.to_bytes(feed.state.snapshot))
    snapshot.signed.version += 1
    data = md.to_bytes(snapshot)
    timestamp = Metadata[Timestamp].from_bytes(md.to_bytes(feed.state.timestamp))
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = md.metafile(snapshot.signed.version, data)
    timestamp.signatures.clear()
    md.sign(timestamp, feed.keys.available(feed.key_ids("timestamp")))
    (tmp_path / "feed/metadata/2.snapshot.json").write_bytes(data)
    (tmp_path / "feed/metadata/timestamp.json").write_bytes(md.to_bytes(timestamp))
    with pytest.raises(FeedError):
        check_feed(feed.storage, first_root(tmp_path), now=START)


def test_an_expired_feed_is_refused_by_devices_and_renewed_by_publishers(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    clock.now += 4 * md.DAY
    with pytest.raises(FeedError):
        check_feed(feed.storage, first_root(tmp_path), now=clock.now)
    again = reopen(tmp_path, clock=clock)
    again.refresh()
    assert check_feed(again.storage, first_root(tmp_path), now=clock.now).findings == ()


def test_a_channel_whose_key_was_stolen_begins_anew(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    """The thief, who has the online keys too, lists nonsense that no publisher would go on from."""
    add(feed, described(tmp_path), "beta")
    beta = feed.state.channels["beta"]
    target = next(iter(beta.signed.targets.values()))
    target.custom[md.KEY]["sequence"] = 1 << 60
    beta.signed.unrecognized_fields[md.KEY] = {"sequences": "nonsense"}
    publish_by_force(feed, tmp_path, "beta")
    with pytest.raises(FeedError):
        reopen(tmp_path, clock=clock)
    with pytest.raises(UnsafePathError):
        reopen(tmp_path, clock=clock, ignore="../beta")
    again = reopen(tmp_path, clock=clock, ignore="beta")
    with pytest.raises(UsageError):
        add(again, described(tmp_path, "b"), "beta")
    with pytest.raises(UsageError):
        again.rotate("release", add=[again.keys.make("other", None)])
    new = again.keys.make("beta-2", None)
    again.rotate("beta", add=[new], drop=again.key_ids("beta"))
    assert again.state.listings["beta"] == {}
    add(again, described(tmp_path, "b"), "beta")
    assert [o.sequence for o in again.state.listings["beta"].values()] == [1]
    assert check_feed(again.storage, first_root(tmp_path), now=START).findings == ()


def publish_by_force(feed: Feed, folder: Path, channel: str) -> None:
    """Signs a channel as it stands, and all that hangs on it, without any check."""
    state, keys = feed.state, feed.keys
    made: list[tuple[str, Metadata[Any]]] = [
        (channel, state.channels[channel]),
        ("snapshot", state.snapshot),
        ("timestamp", state.timestamp),
    ]
    meta = None
    for role, metadata in made:
        metadata.signed.version += 1
        if role == "snapshot":
            metadata.signed.meta[f"{channel}.json"] = meta
        if role == "timestamp":
            metadata.signed.snapshot_meta = meta
        metadata.signatures.clear()
        md.sign(metadata, keys.available(feed.key_ids(role)))
        data = md.to_bytes(metadata)
        meta = md.metafile(metadata.signed.version, data)
        name = "timestamp.json" if role == "timestamp" else f"{meta.version}.{role}.json"
        (folder / "feed/metadata" / name).write_bytes(data)


@pytest.mark.parametrize(
    "memory", [1, [], {"sequences": 1}, {"sequences": [["a", "b"]]}, {"sequences": [[1, "b", 2]]}]
)
def test_a_channels_memory_is_read_with_care(feed: Feed, memory: Any) -> None:
    targets = feed.state.channels["beta"].signed
    assert md.sequences_of(targets) == {}
    targets.unrecognized_fields[md.KEY] = memory
    with pytest.raises(CorruptError):
        md.sequences_of(targets)
    feed.state.root.signed.unrecognized_fields[md.KEY] = memory
    assert md.periods_of(feed.state.root.signed) == md.DEFAULT_PERIODS
