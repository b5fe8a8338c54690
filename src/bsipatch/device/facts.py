"""What a device knows of itself, read from its store and put together for feed.decide."""

from __future__ import annotations

import os

from ..errors import BsipatchError, TreeDriftError
from ..feed.decide import DeviceFacts
from ..limits import Limits
from ..store import Store, records
from ..store.beneath import Beneath
from ..store.eligibility import check_drift, without_xattrs
from ..tree import Tree
from .feed_client import FeedClient, FeedView
from .state import adopted


def gather(
    store: Store,
    feed: FeedClient,
    view: FeedView,
    *,
    tickets: frozenset[str] = frozenset(),
    memory: int | None = None,
    asked: str | None = None,
) -> DeviceFacts:
    """The facts of this moment, against what the feed says.

    tickets: ids that a verified ticket allows. memory: bytes that applying may use.
    asked: the update that its owner wants by name; that they once took it off does not count.
    Reads no file of the tree: drift is looked for by kind, mode, size and link target.
    Raises StoreDamagedError, SystemCallError.
    """
    identity, live = store.identity, store.live()
    baseline, _ = store.expected_tree(records.BASELINE)
    on_baseline = live.number == records.BASELINE
    series = (identity.product, identity.baseline)
    return DeviceFacts(
        device_id=feed.device_id,
        product=identity.product,
        platform=identity.platform,
        architectures=identity.architectures,
        version=identity.version,
        build=identity.build,
        baseline_digests=tuple(dict.fromkeys((identity.baseline, baseline.digest))),
        live_digests=() if on_baseline else _live_digests(store, live.number, live.tree),
        live_letter=None if on_baseline else live.letter,
        drifted=_drift(store, baseline),
        floor=max(feed.floor().sequence(series, view.keys), view.reached(live.tree, series)),
        barred=_barred(store, view, asked),
        contained=adopted.contained(feed.folder, store.limits),
        tickets=tickets,
        free_space=_free(store.fd, store.limits),
        memory=memory,
        feed_expired="" if view.now < view.expires else f"at {view.expires}",
    )


def _live_digests(store: Store, number: int, digest: str) -> tuple[str, ...]:
    """An improvement may stack on the tree with or without its extended attributes."""
    try:
        tree, _ = store.expected_tree(number)
    except BsipatchError:
        return (digest,)
    return tuple(dict.fromkeys((digest, without_xattrs(tree).digest)))


def _drift(store: Store, baseline: Tree) -> str:
    shown = str(store.tree_path(records.BASELINE))
    try:
        place = f"{records.generation_name(records.BASELINE)}/{records.TREE}"
        with Beneath(place, dir_fd=store.fd) as tree:
            check_drift(tree, baseline, shown)
    except TreeDriftError as error:
        return error.detail.removeprefix("baseline drifted: ")
    except OSError as error:
        return f"{shown}: {error.strerror}"
    return ""


def _barred(store: Store, view: FeedView, asked: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for bar in store.bars():
        for offer in view.offers:
            if bar.why == "owner" and offer.id == asked:
                continue
            same = (offer.product, offer.version, offer.letter, offer.build)
            if same == (bar.product, bar.version, bar.letter, bar.build):
                found[offer.id] = f"{bar.reason} (since {bar.time})"
    return found


def _free(fd: int, limits: Limits) -> int:
    status = os.fstatvfs(fd)
    return max(0, status.f_bavail * status.f_frsize - limits.reserve_space)
