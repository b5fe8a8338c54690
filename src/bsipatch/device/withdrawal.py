"""Acting on a signed withdrawal: back to where its notice says, barred, and told why.

Only a notice that the verified, unexpired feed lists now is ever acted on; decide() has
checked that it is of the improvement that is live and has not expired itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..errors import PolicyError
from ..feed.model import Offer, Withdrawal
from ..store import Generation, Store, bars, durable, live, moving, records
from ..store.records import Pending
from .feed_client import FeedClient, FeedView

#: in the history, who took off what a notice withdrew
PUBLISHER = "its publisher, by a signed notice in the feed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What was done. seconds: the work under the store's lock."""

    offer: Offer
    notice: Withdrawal
    left: Generation
    live: Generation
    notes: tuple[str, ...]
    seconds: float


def act(store: Store, feed: FeedClient, view: FeedView, offer: Offer) -> Withdrawn:
    """Takes the live improvement off, as the offer's notice says.

    Raises PolicyError when the notice does not ask for that or is not in force,
    StoreStateError when another improvement is live by now, StoreBusyError.
    """
    notice = offer.withdrawn
    if notice is None or not notice.revert_installed or view.now >= notice.expires:
        raise PolicyError("no withdrawal is in force for it", file=offer.id, hint="")
    began = time.perf_counter()
    reason = f"its publisher has withdrawn it: {notice.reason}"
    with store.writing("withdrawal"), durable.system_calls("withdrawing", store.root):
        left = store.live()
        if offer.result_digest != left.tree:
            from ..store.store import refuse_state

            raise refuse_state(f"{offer.display_version} is not live any more", store.file)
        target = _target(store, view, left, notice)
        made = bars.make(left, "publisher", reason)
        notes = moving.move(
            store.fd,
            store.file,
            store.limits,
            Pending(
                new=target.number,
                old=left.number,
                source="",
                started=records.now(),
                verb="revert",
                bars=() if made is None else (made,),
                reason=reason,
                by=PUBLISHER,
            ),
        )
    _lower_floor(feed, view, target, offer)
    return Withdrawn(
        offer=offer,
        notice=notice,
        left=left,
        live=target,
        notes=tuple(notes),
        seconds=time.perf_counter() - began,
    )


def _target(store: Store, view: FeedView, left: Generation, notice: Withdrawal) -> Generation:
    """The baseline, or the nearest generation before that is neither withdrawn nor barred."""
    reachable = live.reachable(store.fd, left, store.file, store.limits)
    if notice.to == "baseline":
        return reachable[-1]
    bad = {offer.result_digest for offer in view.offers if offer.withdrawn is not None}
    barred = {bar.manifest for bar in store.bars() if bar.why != "owner"}
    for generation in reachable:
        if generation.tree not in bad and generation.manifest not in barred:
            return generation
    return reachable[-1]


def settle(store: Store, feed: FeedClient, view: FeedView) -> None:
    """Lowers the floor for a withdrawal that was acted on, but whose end a power cut took.

    The floor stands at what was withdrawn while something older is live.
    """
    series = (store.identity.product, store.identity.baseline)
    floor, live = feed.floor().sequence(series, view.keys), store.live()
    for offer in view.offers:
        notice = offer.withdrawn
        if notice is not None and notice.revert_installed and view.now < notice.expires:
            ours = offer.series == series and offer.sequence == floor
            if ours and view.reached(live.tree, series) < floor:
                _lower_floor(feed, view, live, offer)
                return


def _lower_floor(feed: FeedClient, view: FeedView, target: Generation, offer: Offer) -> None:
    sequence = view.reached(target.tree, offer.series)
    feed.raise_floor(lambda floor: floor.withdrawn(offer.series, sequence, view.keys))
