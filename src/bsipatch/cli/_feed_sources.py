"""Updates of the feed that hold what a store has lost, for `check-store --repair --from-feed`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _feed

if TYPE_CHECKING:
    from ..device.feed_client import FeedView
    from ..feed.model import Offer
    from ..store import CheckReport, Store

#: updates that are fetched for one repair; each brings the rest of what is missing
_MOST = 4


@dataclass(slots=True)
class Asked:
    """What the feed gave: updates, bytes that travelled; `problem`, why it gave no more."""

    fetched: list[str] = field(default_factory=list)
    received: int = 0
    problem: str = ""


def candidates(view: FeedView, store: Store, damaged: Iterable[int]) -> list[Offer]:
    """The offers that can hold what these generations must have, the likelier and smaller first.

    An update holds what it brings: one that leads to the damaged tree the files that it
    changed, a full one every file of its result, which are most of the baseline's as well.
    """
    from ..errors import BsipatchError

    identity = store.identity
    results = set()
    for number in damaged:
        try:
            results.add(store.generation(number).tree)
        except BsipatchError:  # its record is part of the damage
            continue
    ours = [
        offer
        for offer in view.offers
        if offer.series == (identity.product, identity.baseline)
        and (offer.kind == "full" or offer.result_digest in results)
    ]
    ours.sort(key=lambda offer: (offer.result_digest not in results, offer.size, offer.id))
    return ours[:_MOST]


def repair(
    root: Path,
    report: CheckReport,
    check: Callable[[Store, Sequence[Path]], CheckReport],
    *,
    progress: Any,
    stop: threading.Event,
) -> tuple[CheckReport, Asked]:
    """Goes on with a repair that left something, one update of the feed after the other.

    `check` repairs once more with further sources.  A feed that cannot be asked, or has
    nothing, leaves the report as it is and says why.  Raises NotFoundError when the store
    follows no feed, ConfigError, CancelledError, and what `check` raises.
    """
    from ..device.downloading import Downloads
    from ..device.feed_client import DOWNLOADS
    from ..errors import CancelledError, FeedError, MismatchError, NoSpaceError, TrustError

    asked = Asked()
    with _feed.session(root, progress=progress, stop=stop, asked=True) as opened:
        try:
            view = opened.view(stop=stop)
            offers = candidates(view, opened.store, {drift.generation for drift in report.drift})
            if not offers:
                asked.problem = "the feed lists no update that could hold it"
            for offer in offers:
                with (
                    opened.feed.transport(stop=stop) as transport,
                    Downloads(
                        opened.feed.folder / DOWNLOADS, limits=opened.store.limits, stop=stop
                    ) as downloads,
                    opened.feed.store.downloading("download"),
                ):
                    fetched = downloads.get(
                        view.wanted(offer), opened.feed.mirrors(), transport, progress=progress
                    )
                asked.fetched.append(offer.id)
                asked.received += fetched.received
                again = check(opened.store, [fetched.path])
                report = replace(again, repaired=(*report.repaired, *again.repaired))
                if report.sound:
                    break
        except CancelledError:
            raise
        except (FeedError, TrustError, MismatchError, NoSpaceError) as error:
            asked.problem = error.message
    return report, asked
