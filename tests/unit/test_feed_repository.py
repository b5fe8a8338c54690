"""A publisher's feed: every change, every refusal, and no half-published state at any step."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import Metadata, Root

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    ExistsError,
    KeyFileError,
    NotFoundError,
    PublishError,
    UnsafePathError,
    UsageError,
)
from bsipatch.feed.model import Offer
from bsipatch.publish.feed import edits, roots
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.checks import check_feed
from bsipatch.publish.feed.edits import Draft
from bsipatch.publish.feed.keys import KeyRing, from_tuf, to_tuf
from bsipatch.publish.feed.repository import Feed, Report
from bsipatch.publish.feed.state import trusted_root
from bsipatch.publish.feed.status import status_of
from bsipatch.publish.feed.transaction import JOURNAL
from tests.support import updates
from tests.support.feeds import START, Clock, add, copy_feed, described, new_feed, reopen

DAY = 86400


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    new_feed(folder)
    return folder


@pytest.fixture
def feed(template: Path, tmp_path: Path, clock: Clock) -> Feed:
    return copy_feed(template, tmp_path, clock)


def run(feed: Feed, verb: Callable[..., Draft], *args: Any, **options: Any) -> Report:
    return feed.edit(lambda draft, now: verb(draft, *args, now, **options))


def listed(feed: Feed, channel: str) -> list[Offer]:
    return sorted(feed.state.listings[channel].values(), key=lambda offer: offer.sequence)


# --- making one ---


def test_a_new_feed_is_whole_and_empty(feed: Feed, tmp_path: Path) -> None:
    report = check_feed(feed.storage, trusted_root(feed.keys), now=START)
    assert (report.offers, report.findings) == (0, ())
    assert list(feed.state.channels) == ["developer", "beta", "release"]
    assert feed.state.root.signed.consistent_snapshot
    roles = feed.state.targets.signed.delegations
    assert roles is not None
    assert roles.roles is not None
    assert {n: r.paths for n, r in roles.roles.items()} == {
        n: [f"{n}/*/*"] for n in ("developer", "beta", "release")
    }
    assert not any(role.terminating for role in roles.roles.values())
    assert not (tmp_path / "feed" / JOURNAL).exists()
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_a_feed_is_never_made_over_another(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ExistsError):
        new_feed(tmp_path, clock=clock)


def test_keys_that_are_shared_or_too_few_are_refused(tmp_path: Path) -> None:
    key, other = trust.generate().public, trust.generate().public
    roles = {r: [trust.generate().public] for r in ("targets", "snapshot", "timestamp")}
    with pytest.raises(UsageError, match="share a key"):
        md.new_root({"root": [key], **roles, "targets": [key]}, {}, md.DEFAULT_PERIODS, START)
    with pytest.raises(UsageError, match="share a key"):
        md.new_root({"root": [key, key], **roles}, {"root": 2}, md.DEFAULT_PERIODS, START)
    with pytest.raises(UsageError, match="threshold"):
        md.new_root({"root": [key, other], **roles}, {"root": 3}, md.DEFAULT_PERIODS, START)
    with pytest.raises(UsageError, match="valid"):
        md.new_root({"root": [key], **roles}, {}, {**md.DEFAULT_PERIODS, "root": 5}, START)


def test_one_key_in_two_folders_is_refused(feed: Feed, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "keys" / "beta", tmp_path / "keys" / "zeta")
    with pytest.raises(KeyFileError, match="same key"):
        KeyRing(tmp_path / "keys", trust.load_private)
    with pytest.raises(UsageError):
        feed.keys.make("../escaped", None)


def test_one_key_under_two_ids_never_counts_twice(feed: Feed) -> None:
    root = Metadata[Root].from_bytes(feed.state.root_bytes)
    key = root.signed.get_key(root.signed.roles["root"].keyids[0])
    twin = to_tuf(from_tuf(key))
    twin.keyid = "f" * 64
    root.signed.keys[twin.keyid] = twin
    root.signed.roles["root"].keyids.append(twin.keyid)
    with pytest.raises(KeyFileError, match="not its own"):
        roots.read(md.to_bytes(root), "root.json")
    with pytest.raises(KeyFileError):
        md.check_signed(root.signed, "root", root, "root")


# --- changes ---


def test_an_update_is_added_and_stands_where_the_contract_says(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    report = add(feed, update, percents=(5, 25, 100), ticket=True)
    assert report.published
    assert [c.what for c in report.changes] == ["offer"]
    offer = listed(feed, "beta")[0]
    assert offer.rollout is not None
    assert offer.rollout.steps == ((5, START), (25, START + DAY), (100, START + 2 * DAY))
    assert offer.rollout.salt == offer.id
    assert (offer.sequence, offer.published, offer.ticket_required) == (1, START, True)
    path = f"beta/Demo/{update.sha256}.{update.sha256}.bsi"
    assert (tmp_path / "feed" / "targets" / path).read_bytes() == update.file.read_bytes()
    assert list(feed.state.listings["beta"]) == [f"beta/Demo/{update.sha256}.bsi"]
    with pytest.raises(ExistsError):
        add(feed, update)


def test_a_dry_run_tells_the_same_and_changes_nothing(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "feed").rglob("*") if p.is_file()}
    dry = add(feed, update, dry_run=True)
    after = {p: p.read_bytes() for p in (tmp_path / "feed").rglob("*") if p.is_file()}
    assert before == after
    assert not dry.published
    wet = add(feed, update)
    assert (dry.changes, dry.versions) == (wet.changes, wet.versions)


def test_sequences_grow_over_all_channels(feed: Feed, tmp_path: Path) -> None:
    a, b, c = (described(tmp_path, letter) for letter in "abc")
    add(feed, a, "beta")
    add(feed, b, "developer")
    run(feed, edits.expire, names=[b.offer.id])
    add(feed, c, "beta")
    assert [o.sequence for o in listed(feed, "beta")] == [1, 3], "2 was b's, and stays so"
    other = described(tmp_path, "a", product="Other")
    add(feed, other, "beta")
    assert [o.sequence for o in listed(feed, "beta") if o.product == "Other"] == [1]


def test_another_way_to_the_same_result_shares_sequence_and_ring(
    feed: Feed, tmp_path: Path
) -> None:
    first = described(tmp_path, "a")
    second = described(tmp_path, "a", text="a", created=updates.CREATED + 1)
    assert first.sha256 != second.sha256
    add(feed, first, percents=(5, 100))
    add(feed, second, percents=(5, 100))
    one, two = listed(feed, "beta")
    assert one.sequence == two.sequence == 1
    assert one.rollout is not None
    assert two.rollout is not None
    assert one.rollout.salt == two.rollout.salt


def test_promoting_keeps_the_offer_and_its_sequence(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    add(feed, update, "developer", percents=(5,))
    run(feed, edits.promote, update.offer.id, "release")
    offer = listed(feed, "release")[0]
    assert (offer.id, offer.sequence, offer.rollout) == (update.offer.id, 1, None)
    payload = tmp_path / "feed/targets/release/Demo" / f"{update.sha256}.{update.sha256}.bsi"
    assert payload.stat().st_nlink == 2, "a local feed stores it once"
    with pytest.raises(ExistsError):
        run(feed, edits.promote, update.offer.id, "release")
    with pytest.raises(UsageError, match="promoting leads"):
        run(feed, edits.promote, update.offer.id, "beta")
    for channel in ("../beta", "root", "nightly"):
        with pytest.raises(UnsafePathError):
            run(feed, edits.promote, update.offer.id, channel)
        with pytest.raises(UnsafePathError):
            add(feed, described(tmp_path, "b"), channel)


def test_a_channel_never_goes_back(feed: Feed, tmp_path: Path) -> None:
    a, b = described(tmp_path, "a"), described(tmp_path, "b")
    add(feed, a, "beta")
    add(feed, b, "beta")
    run(feed, edits.promote, b.offer.id, "release")
    with pytest.raises(PublishError, match="devices never go back"):
        run(feed, edits.promote, a.offer.id, "release")


def test_a_rollout_only_grows(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    update = described(tmp_path)
    add(feed, update, percents=(5, 50, 100))
    name = update.sha256[:12]
    clock.now += DAY
    with pytest.raises(UsageError, match="who is in stays in"):
        run(feed, edits.roll_out, name, percents=(25, 100), every=DAY)
    run(feed, edits.roll_out, name, percents=(60, 100), every=3600)
    plan = listed(feed, "beta")[0].rollout
    assert plan is not None
    assert plan.start == START
    assert plan.steps[-2:] == ((60, clock.now), (100, clock.now + 3600))
    assert plan.percent(clock.now - 1) == 5
    run(feed, edits.roll_out, name, percents=(100,), every=DAY)
    assert listed(feed, "beta")[0].rollout is None
    for bad in ((), (50,), (100, 5)):
        with pytest.raises(UsageError):
            run(feed, edits.roll_out, name, percents=bad, every=DAY)


def test_a_pause_freezes_and_a_resume_goes_on(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    update = described(tmp_path)
    add(feed, update, percents=(5, 50, 100))
    clock.now += DAY + 10
    with pytest.raises(UsageError, match="not paused"):
        run(feed, edits.resume, update.offer.id)
    run(feed, edits.pause, update.offer.id)
    plan = listed(feed, "beta")[0].rollout
    assert plan is not None
    assert plan.percent(clock.now + 99 * DAY) == 50
    assert status_of(feed.state, clock.now).channels["beta"]
    with pytest.raises(UsageError, match="paused already"):
        run(feed, edits.pause, update.offer.id)
    clock.now += 9 * DAY
    run(feed, edits.resume, update.offer.id)
    plan = listed(feed, "beta")[0].rollout
    assert plan is not None
    assert plan.steps[-1] == (100, clock.now + DAY - 10)
    assert plan.held == ()


def test_a_withdrawal_reaches_every_channel_and_every_way(feed: Feed, tmp_path: Path) -> None:
    first = described(tmp_path, "a")
    second = described(tmp_path, "a", text="a", created=updates.CREATED + 1)
    add(feed, first, "beta")
    add(feed, second, "beta")
    run(feed, edits.promote, first.offer.id, "release")
    options = {"reason": "Blank pages.", "revert_installed": True, "to": "baseline", "notice": 60}
    run(feed, edits.withdraw, first.offer.id, **options)
    told = [o.withdrawn for c in ("beta", "release") for o in listed(feed, c)]
    assert len(told) == 3
    assert all(n is not None and n.expires == START + 60 and n.revert_installed for n in told)
    for verb, extra in (
        (edits.promote, ["release"]),
        (edits.pause, []),
        (edits.resume, []),
    ):
        with pytest.raises((PublishError, ExistsError, UsageError)):
            run(feed, verb, second.offer.id, *extra)
    third = described(tmp_path, "a", text="a", created=updates.CREATED + 2)
    with pytest.raises(PublishError, match="has been withdrawn"):
        add(feed, third, "beta")
    with pytest.raises(UsageError, match="reason"):
        run(feed, edits.withdraw, first.offer.id, **{**options, "reason": " "})


def test_a_notice_stays_until_it_ends(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    update = described(tmp_path)
    add(feed, update)
    run(
        feed,
        edits.withdraw,
        update.offer.id,
        reason="x",
        revert_installed=False,
        to="previous",
        notice=DAY,
    )
    assert not run(feed, edits.expire).published
    with pytest.raises(PublishError, match="still stands"):
        run(feed, edits.expire, names=[update.offer.id])
    clock.now += DAY
    assert run(feed, edits.expire).published
    assert listed(feed, "beta") == []
    assert feed.state.numbers()[update.offer.series] == 1


def test_superseding_needs_something_newer(feed: Feed, tmp_path: Path) -> None:
    a, b = described(tmp_path, "a"), described(tmp_path, "b")
    other = described(tmp_path, "a", product="Other")
    for update in (a, b, other):
        add(feed, update)
    feed.edit(lambda draft, now: edits.supersede(draft, a.offer.id, b.offer.id))
    assert listed(feed, "beta")[-1].supersedes == (a.offer.id,)
    for old, new in ((b, a), (a, a), (a, other)):
        with pytest.raises(UsageError):
            feed.edit(
                lambda draft, now, old=old, new=new: edits.supersede(
                    draft, old.offer.id, new.offer.id
                )
            )


def test_names_must_fit_one_update(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    add(feed, update, "beta")
    run(feed, edits.promote, update.sha256[6:12], "release")
    with pytest.raises(NotFoundError):
        run(feed, edits.pause, "a")
    with pytest.raises(UsageError, match="several channels"):
        run(feed, edits.pause, update.offer.id)
    with pytest.raises(NotFoundError):
        run(feed, edits.pause, update.offer.id, channel="developer")


# --- times ---


def test_expiry_is_warned_of_and_renewed(tmp_path: Path, clock: Clock, feed: Feed) -> None:
    assert status_of(feed.state, clock.now).warnings == ()
    clock.now += 85 * DAY
    told = " ".join(status_of(feed.state, clock.now).warnings)
    assert "timestamp expired" in told
    assert "snapshot expired" in told
    assert "beta expires in 5 days" in told
    assert "targets" not in told
    report = reopen(tmp_path, clock=clock).refresh()
    assert set(report.versions) == {"developer", "beta", "release", "snapshot", "timestamp"}
    assert status_of(reopen(tmp_path, clock=clock).state, clock.now).warnings == ()
    clock.now += 260 * DAY
    assert any("rotate root" in w for w in status_of(feed.state, clock.now).warnings)


def test_status_tells_what_each_channel_offers(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    a, b = described(tmp_path, "a"), described(tmp_path, "b")
    add(feed, a)
    add(feed, b, percents=(5, 100))
    group = next(iter(status_of(feed.state, clock.now).channels["beta"].values()))
    assert [(o.offer.letter, o.state, o.percent) for o in group] == [
        ("b", "rollout", 5),
        ("a", "everyone", 100),
    ]
    assert group[0].next == (100, START + DAY)
    group = next(iter(status_of(feed.state, clock.now + DAY).channels["beta"].values()))
    assert [(o.offer.letter, o.state) for o in group] == [("b", "everyone"), ("a", "superseded")]


# --- what is wrong is found ---


def tamper(folder: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    file = folder / "feed" / path
    data = change(file.read_bytes())
    file.unlink()  # payloads are hard links of one another
    file.write_bytes(data)


def test_check_finds_a_payload_that_was_changed_or_is_gone(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    add(feed, update)
    path = f"targets/beta/Demo/{update.sha256}.{update.sha256}.bsi"
    root = trusted_root(feed.keys)
    tamper(tmp_path, path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    assert "not the one" in check_feed(feed.storage, root, now=START).findings[0].what
    tamper(tmp_path, path, lambda data: data + b"x")
    assert "not the one" in check_feed(feed.storage, root, now=START).findings[0].what
    (tmp_path / "feed" / path).unlink()
    assert "not there" in check_feed(feed.storage, root, now=START).findings[0].what


def test_check_finds_an_offer_that_lies(feed: Feed, tmp_path: Path) -> None:
    update = described(tmp_path)
    lying = msgspec.structs.replace(update.offer, memory=1, platform="linux")
    add(feed, dataclasses.replace(update, offer=lying))
    found = check_feed(feed.storage, trusted_root(feed.keys), now=START).findings
    assert "memory" in found[0].what
    assert "platform" in found[0].what


def test_check_wants_the_update_signed_by_whom_it_must_be(feed: Feed, tmp_path: Path) -> None:
    add(feed, described(tmp_path))
    root = trusted_root(feed.keys)
    assert check_feed(feed.storage, root, now=START, policy=updates.policy()).findings == ()
    found = check_feed(feed.storage, root, now=START, policy=updates.policy(1)).findings
    assert "no trusted key" in found[0].what


def test_check_trusts_only_the_given_root(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "other").mkdir()
    other = new_feed(tmp_path / "other", clock=clock)
    with pytest.raises(BsipatchError, match="could not read"):
        check_feed(feed.storage, trusted_root(other.keys), now=START)
