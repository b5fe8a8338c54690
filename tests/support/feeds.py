"""Small feeds: keys in the clear, a clock that tests set, and updates that are made by hand."""

from __future__ import annotations

import functools
import hashlib
import shutil
from pathlib import Path
from typing import Any

from bsipatch import trust
from bsipatch.limits import DEFAULT
from bsipatch.publish.feed import edits
from bsipatch.publish.feed.checks import check_feed
from bsipatch.publish.feed.keys import KeyRing
from bsipatch.publish.feed.offers import Described, describe
from bsipatch.publish.feed.repository import Feed, Report, create
from bsipatch.publish.feed.setup import channel_keys, prepare
from bsipatch.publish.feed.state import load_state
from bsipatch.publish.feed.storage import Storage, open_storage
from tests.support import updates
from tests.support.trees import NEW_FRAMEWORK, Content

#: when the feeds of tests begin
START = 1_780_000_000


class Clock:
    """Seconds since 1970 that only tests move."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def new_feed(
    folder: Path,
    *,
    clock: Clock | None = None,
    storage: Storage | None = None,
    hook: Any = None,
    **options: Any,
) -> Feed:
    """A feed in folder/feed (or in `storage`) with its keys in folder/keys."""
    ticking = clock or Clock()
    made = prepare(folder / "keys", trust.load_private, lambda: None, ticking(), **options)
    return create(
        storage or open_storage(str(folder / "feed")),
        made.keys,
        made.root,
        channel_keys(made.keys),
        clock=ticking,
        **({"hook": hook} if hook else {}),
    )


def copy_feed(template: Path, folder: Path, clock: Clock) -> Feed:
    """A feed like the one in `template`, in `folder`: quicker than making one."""
    shutil.copytree(template / "feed", folder / "feed")
    shutil.copytree(template / "keys", folder / "keys")
    return reopen(folder, clock=clock)


def reopen(folder: Path, *, clock: Clock, storage: Storage | None = None, **options: Any) -> Feed:
    """The same feed as another process would open it."""
    keys = KeyRing(folder / "keys", trust.load_private)
    place = storage or open_storage(str(folder / "feed"))
    return Feed(place, keys, clock=clock, **options)


@functools.cache
def _update(text: str, letter: str, changes: tuple[tuple[str, Any], ...]) -> bytes:
    new: dict[str, Content] = {**NEW_FRAMEWORK, "note.txt": text.encode()}
    return updates.make_update(None, new, letter=letter, **dict(changes))


def write_update(folder: Path, letter: str = "a", *, text: str = "", **changes: Any) -> Path:
    """An update file; another `text` or letter gives another result."""
    data = _update(text or letter, letter, tuple(sorted(changes.items())))
    path = folder / f"{letter}-{hashlib.sha256(data).hexdigest()[:12]}.bsi"
    path.write_bytes(data)
    return path


def described(folder: Path, letter: str = "a", *, now: int = START, **changes: Any) -> Described:
    """An update file and its offer."""
    return describe(write_update(folder, letter, **changes), updates.policy(), now)


def add(
    feed: Feed, update: Described, channel: str = "beta", *, dry_run: bool = False, **options: Any
) -> Report:
    """Offers it."""
    return feed.edit(
        lambda draft, now: edits.add(draft, update.offer, update.sha256, channel, now, **options),
        sources={update.sha256: update.file},
        dry_run=dry_run,
    )


def device_sees(
    storage: Storage, root: bytes, keys: Path, now: int = START
) -> dict[str, list[str]]:
    """What a device that trusts `root` sees: channel -> ids, and the root's version.

    Raises FeedError where it could read nothing, AssertionError for anything that is not whole.
    """
    report = check_feed(storage, root, policy=updates.policy(), now=now)
    assert report.findings == (), report.findings
    state = load_state(storage, KeyRing(keys, trust.load_private), limits=DEFAULT)
    seen = {
        channel: sorted(
            f"{offer.id}{' withdrawn' if offer.withdrawn else ''}" for offer in listing.values()
        )
        for channel, listing in state.listings.items()
    }
    return {**seen, "root": [str(state.root.signed.version)]}
