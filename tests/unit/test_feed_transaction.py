"""A publication is whole or nothing: killed at each step, raced by others, failed and undone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bsipatch import trust
from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    CorruptError,
    FeedError,
    MismatchError,
    PublishError,
    TransferError,
)
from bsipatch.publish.feed import edits
from bsipatch.publish.feed.edits import Draft
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.offers import Described
from bsipatch.publish.feed.repository import Feed
from bsipatch.publish.feed.storage import ConflictError, open_storage
from bsipatch.publish.feed.transaction import JOURNAL, LEASE, Journal
from tests.support.feeds import (
    Clock,
    add,
    copy_feed,
    described,
    device_sees,
    new_feed,
    reopen,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed with an update in beta, and keys that its roles may get."""
    folder = tmp_path_factory.mktemp("feed")
    feed = new_feed(folder)
    add(feed, described(folder, "a"))
    for name in ("spare-1", "spare-2"):
        feed.keys.make(name, None)
    return folder


@pytest.fixture
def feed(template: Path, tmp_path: Path, clock: Clock) -> Feed:
    return copy_feed(template, tmp_path, clock)


def offers(feed: Feed, channel: str = "beta") -> list[str]:
    return sorted(offer.letter for offer in feed.state.listings[channel].values())


def first_root(folder: Path) -> bytes:
    return (folder / "feed/metadata/1.root.json").read_bytes()


# --- killed at each write ---


class Died(Exception):
    """The power went, or somebody killed the process."""


class Mortal:
    """A storage whose user dies at its Nth write: just before it, or just after."""

    def __init__(self, inner: Any, at: int, *, after: bool) -> None:
        self.name, self._inner = inner.name, inner
        self._left, self._after, self.dead = at, after, False

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._inner, verb)

        def run(*arguments: Any) -> Any:
            if self.dead:
                raise Died
            if verb in ("read", "size", "stream"):
                return call(*arguments)
            self._left -= 1
            if self._left >= 0:
                return call(*arguments)
            self.dead = True
            if self._after:
                call(*arguments)
            raise Died

        return run


Deed = Callable[[Feed, Path], object]


def offer_b(feed: Feed, folder: Path) -> object:
    return add(feed, described(folder, "b"))


def promote(feed: Feed, folder: Path) -> object:
    name = next(iter(feed.state.listings["beta"].values())).id
    return feed.edit(lambda draft, now: edits.promote(draft, name, "release", now))


def withdraw(feed: Feed, folder: Path) -> object:
    name = next(iter(feed.state.listings["beta"].values())).id

    def edit(draft: Draft, now: int) -> Draft:
        return edits.withdraw(draft, name, now, reason="x", revert_installed=True, to="baseline")

    return feed.edit(edit)


def spare(feed: Feed, number: int) -> trust.PublicKey:
    key = feed.keys.public(f"spare-{number}")
    assert key is not None
    return key


def rotate_timestamp(feed: Feed, folder: Path) -> object:
    return feed.rotate("timestamp", add=[spare(feed, 1)], drop=feed.key_ids("timestamp"))


def rotate_lost_timestamp(feed: Feed, folder: Path) -> object:
    shutil.rmtree(folder / "keys/timestamp", ignore_errors=True)
    keys = KeyRing(folder / "keys", trust.load_private)
    return rotate_timestamp(Feed(feed.storage, keys, clock=Clock()), folder)


def rotate_beta(feed: Feed, folder: Path) -> object:
    return feed.rotate("beta", add=[spare(feed, 2)], drop=feed.key_ids("beta"))


DEEDS: list[Deed] = [
    offer_b,
    promote,
    withdraw,
    rotate_timestamp,
    rotate_lost_timestamp,
    rotate_beta,
]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_killed_at_each_write(template: Path, tmp_path: Path, deed: Deed) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    feed = copy_feed(template, whole, Clock())
    root = first_root(whole)
    before = device_sees(feed.storage, root, whole / "keys")
    deed(feed, whole)
    goal = device_sees(feed.storage, root, whole / "keys")
    outcomes = set()
    for number in range(40):
        ended = False
        for after in (False, True):
            own = tmp_path / f"{number}-{after}"
            own.mkdir()
            copy_feed(template, own, Clock())
            outcome = die_and_recover(own, number, after, deed, root, before, goal)
            ended = outcome is None
            outcomes.add(outcome)
        if ended:
            break
    assert number >= 5, "a publication has its steps"
    assert "finished" in outcomes
    assert ("discarded" in outcomes) == (deed is offer_b), "only a new file can be missing"


def die_and_recover(
    own: Path, number: int, after: bool, deed: Deed, root: bytes, before: Any, goal: Any
) -> str | None:
    """What became of a publication that died at its Nth write; None when it came to its end."""
    mortal: Any = Mortal(open_storage(str(own / "feed")), number, after=after)
    with contextlib.suppress(Died):
        deed(reopen(own, clock=Clock(), storage=mortal), own)
    if not mortal.dead:
        return None
    # Devices see the state before or the one after, never anything between.
    try:
        assert device_sees(open_storage(str(own / "feed")), root, own / "keys") in (before, goal)
    except FeedError:
        assert deed is rotate_lost_timestamp, "only a lost key can make devices wait"
    # The next command finishes or discards it, by itself.
    again = reopen(own, clock=Clock())
    assert not (own / "feed" / JOURNAL).exists()
    now = device_sees(again.storage, root, own / "keys")
    if again.recovered == "finished":
        assert now == goal
    else:
        assert now in (before, goal)
    if now == before and before != goal:
        deed(again, own)
        assert device_sees(again.storage, root, own / "keys") == goal
    return again.recovered


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    for number in range(30):
        own = tmp_path / str(number)
        own.mkdir()
        mortal: Any = Mortal(open_storage(str(own / "feed")), number, after=False)
        with contextlib.suppress(Died):
            new_feed(own, storage=mortal)
        if not mortal.dead:
            break
        try:
            reopen(own, clock=Clock())
        except BsipatchError:
            new_feed(own)  # nothing was there yet: the same command again
        seen = device_sees(open_storage(str(own / "feed")), first_root(own), own / "keys")
        assert seen == {"developer": [], "beta": [], "release": [], "root": ["1"]}
    assert number >= 7


# --- two publishers ---


def test_two_publishers_cannot_overwrite_each_other(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    b, c = described(tmp_path, "b"), described(tmp_path, "c")
    second = reopen(tmp_path, clock=clock)
    add(feed, b)
    before = files(tmp_path)
    with pytest.raises(ConflictError, match="meanwhile"):
        add(second, c)
    assert files(tmp_path) == before
    add(reopen(tmp_path, clock=clock), c)
    assert offers(reopen(tmp_path, clock=clock)) == ["a", "b", "c"]


def test_a_publication_under_way_keeps_others_out(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    told: list[BsipatchError] = []

    def meanwhile(step: str) -> None:
        if step == "timestamp":
            with pytest.raises(ConflictError, match="under way") as error:
                add(feed, described(tmp_path, "c"))
            told.append(error.value)

    add(reopen(tmp_path, clock=clock, hook=meanwhile), described(tmp_path, "b"))
    assert told
    assert offers(reopen(tmp_path, clock=clock)) == ["a", "b"]


# --- a failure that is not a death leaves nothing behind ---


class Failing:
    """A storage that fails at one verb on paths with a given ending."""

    def __init__(
        self, inner: Any, verb: str, ending: str, error: BsipatchError, *, late: bool = False
    ) -> None:
        self.name, self._inner = inner.name, inner
        self._verb, self._ending, self._error, self._late = verb, ending, error, late

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._inner, verb)

        def run(*arguments: Any) -> Any:
            if verb == self._verb and str(arguments[0]).endswith(self._ending):
                if self._late:
                    call(*arguments)
                raise self._error
            return call(*arguments)

        return run


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in (folder / "feed").rglob("*") if path.suffix == ".json"
    }


@pytest.mark.parametrize(
    ("verb", "ending"),
    [
        ("create", JOURNAL),
        ("upload", ".bsi"),
        ("create", ".beta.json"),
        ("create", ".snapshot.json"),
        ("replace", "timestamp.json"),
    ],
)
def test_a_failed_publication_is_undone(
    feed: Feed, tmp_path: Path, clock: Clock, verb: str, ending: str
) -> None:
    before = files(tmp_path)
    failing: Any = Failing(feed.storage, verb, ending, TransferError("the line is down"))
    with pytest.raises(TransferError):
        add(reopen(tmp_path, clock=clock, storage=failing), described(tmp_path, "b"))
    assert files(tmp_path) == before
    assert reopen(tmp_path, clock=clock).recovered == ""


def test_an_answer_that_was_lost_is_no_failure(feed: Feed, tmp_path: Path, clock: Clock) -> None:
    lost: Any = Failing(
        feed.storage, "replace", "timestamp.json", TransferError("timed out"), late=True
    )
    assert add(reopen(tmp_path, clock=clock, storage=lost), described(tmp_path, "b")).published
    assert offers(reopen(tmp_path, clock=clock)) == ["a", "b"]


def test_an_interrupt_before_the_end_changes_nothing(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    steps: list[str] = []

    def hook(step: str) -> None:
        steps.append(step.split()[0])
        if step == "timestamp":
            raise CancelledError

    before = files(tmp_path)
    with pytest.raises(CancelledError):
        add(reopen(tmp_path, clock=clock, hook=hook), described(tmp_path, "b"))
    assert files(tmp_path) == before
    assert steps == ["journal", "payload", "file", "file", "timestamp"]


def test_a_payload_that_the_storage_spoils_is_never_offered(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    class Spoiling(Failing):
        def __getattr__(self, verb: str) -> Any:
            if verb == "upload":
                return lambda path, file: self._inner.create(path, b"x" * file.stat().st_size)
            return super().__getattr__(verb)

    spoiling: Any = Spoiling(feed.storage, "", "", TransferError(""))
    before = files(tmp_path)
    with pytest.raises(MismatchError, match="something else"):
        add(reopen(tmp_path, clock=clock, storage=spoiling), described(tmp_path, "b"))
    assert files(tmp_path) == before
    add(reopen(tmp_path, clock=clock), described(tmp_path, "b"))
    assert offers(reopen(tmp_path, clock=clock)) == ["a", "b"]


def test_a_name_that_a_discarded_publication_left_is_not_used_again(
    feed: Feed, tmp_path: Path
) -> None:
    left = tmp_path / "feed/metadata/3.beta.json"
    left.write_bytes(b"left by somebody")
    add(feed, described(tmp_path, "b"))
    assert feed.state.channels["beta"].signed.version == 4
    assert left.read_bytes() == b"left by somebody"


# --- the journal is not signed ---


def journal_of(feed: Feed, folder: Path, update: Described) -> dict[str, Any]:
    """The journal of a publisher who died before the snapshot."""
    mortal: Any = Mortal(feed.storage, 3, after=False)
    with pytest.raises(Died):
        add(reopen(folder, clock=Clock(), storage=mortal), update)
    told: dict[str, Any] = json.loads((folder / "feed" / JOURNAL).read_bytes())
    assert msgspec.convert(told, Journal)
    return told


def leave(folder: Path, journal: dict[str, Any]) -> None:
    (folder / "feed" / JOURNAL).write_text(json.dumps(journal, separators=(",", ":")))


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"path": "metadata/../../x.json", "text": "x"}]},
        {"files": [{"path": "metadata/timestamp.json", "text": "x"}]},
        {"files": [{"path": "index.html", "text": "x"}]},
        {"root": {"path": "../root.json", "text": "x"}},
        {"payloads": [{"path": "targets/../../../x", "sha256": "0", "size": 1, "copy": ""}]},
        {"payloads": [{"path": "targets/a/b/c", "sha256": "0", "size": 1, "copy": "../../../x"}]},
        {"extra": 1},
        {"format": "1"},
    ],
    ids=str,
)
def test_a_planted_journal_names_nothing_else(
    feed: Feed, tmp_path: Path, clock: Clock, change: dict[str, Any]
) -> None:
    leave(tmp_path, {**journal_of(feed, tmp_path, described(tmp_path, "b")), **change})
    with pytest.raises(CorruptError):
        reopen(tmp_path, clock=clock)


def test_another_machines_publication_is_left_alone_for_a_while(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    told = journal_of(feed, tmp_path, described(tmp_path, "b"))
    leave(tmp_path, {**told, "host": "elsewhere.example", "pid": 1})
    with pytest.raises(PublishError, match="elsewhere"):
        reopen(tmp_path, clock=clock)
    clock.now += LEASE
    again = reopen(tmp_path, clock=clock)
    assert again.recovered == "finished"
    assert offers(again) == ["a", "b"]


def test_a_living_process_is_waited_for_unless_one_takes_over(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    told = journal_of(feed, tmp_path, described(tmp_path, "b"))
    leave(tmp_path, {**told, "pid": os.getppid()})
    clock.now += 10 * LEASE
    with pytest.raises(PublishError, match="has been publishing"):
        reopen(tmp_path, clock=clock)
    assert reopen(tmp_path, clock=clock, take_over=True).recovered == "finished"


def test_what_somebody_else_has_overtaken_is_discarded(
    feed: Feed, tmp_path: Path, clock: Clock
) -> None:
    told = journal_of(feed, tmp_path, described(tmp_path, "b"))
    (tmp_path / "feed" / JOURNAL).unlink()
    add(reopen(tmp_path, clock=clock), described(tmp_path, "c"))
    leave(tmp_path, told)
    again = reopen(tmp_path, clock=clock)
    assert again.recovered == "discarded"
    assert offers(again) == ["a", "c"]
    assert not (tmp_path / "feed" / JOURNAL).exists()
