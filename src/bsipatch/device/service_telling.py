"""What a device's service writes into the device's log, and the words of its outcomes.

A log that cannot be written must not keep an installation from being reported as what it
was, so nothing here raises for that.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import BsipatchError, CancelledError, InternalError, StoreBusyError
from ..feed.model import Offer
from .logs import Log
from .service_state import Operation, Outcome
from .telemetry import record

if TYPE_CHECKING:
    from .feed_client import FeedView
    from .installing import Installed

#: installations that the next one is measured by
_FEW = 5


def checked(log: Log, view: FeedView, offer: Offer | None, text: str) -> None:
    """A check that came through, and the update that it found."""
    data = None
    if offer is not None:
        data = record.Seen(published=offer.published, ring=_ring(offer, view))
    with contextlib.suppress(BsipatchError):
        record.checked(log, text, update="" if offer is None else offer.id, data=data)


def check_failed(log: Log, error: BsipatchError) -> None:
    """A check that did not."""
    with contextlib.suppress(BsipatchError):
        record.check_failed(log, error.code, error.message)


def installed(log: Log, view: FeedView, done: Installed) -> None:
    """What was taken off, and what went live."""
    with contextlib.suppress(BsipatchError):
        if done.withdrawn is not None:
            reason = done.withdrawn.notice.reason
            record.taken_off(log, done.withdrawn.offer.id, "withdrawn", reason)
        if done.plan is not None:
            offer = done.plan.offers[-1]
            data = record.Installation(
                published=offer.published,
                ring=_ring(offer, view),
                route=done.plan.kind,
                received=done.received,
                full=done.full,
                applied=sum(applied.size for applied in done.applied),
                seconds=sum(applied.seconds for applied in done.applied),
                fallbacks=tuple(fell.code for fell in done.fallbacks),
            )
            text = f"{offer.product} {offer.display_version} is live"
            record.installed(log, offer.id, data, text)


def install_failed(
    log: Log,
    view: FeedView,
    update: str | None,
    error: BsipatchError,
    fallbacks: tuple[str, ...],
) -> None:
    """An update that did not go live, for another reason than that it was not its turn."""
    offer = next((one for one in view.offers if one.id == update), None)
    if offer is None or isinstance(error, CancelledError | StoreBusyError):
        return
    data = record.Failure(
        published=offer.published,
        ring=_ring(offer, view),
        reason=error.code,
        fallbacks=fallbacks,
    )
    with contextlib.suppress(BsipatchError):
        record.failed(log, offer.id, data, error.message)


def taken_off(log: Log, update: str, text: str) -> None:
    """What its owner removed."""
    with contextlib.suppress(BsipatchError):
        record.taken_off(log, update, "owner", text)


def words(done: Installed, update: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(id, sentence, notes) of an installation's outcome."""
    notes = [f"the {fell.kind} way failed: {fell.reason}" for fell in done.fallbacks]
    if done.withdrawn is not None:
        left, reason = done.withdrawn.left.display, done.withdrawn.notice.reason
        notes.insert(0, f"{left} was withdrawn by its publisher: {reason}")
    if done.plan is not None:
        return done.plan.offers[-1].id, f"{done.live.display} is installed", tuple(notes)
    if done.withdrawn is not None:
        return done.withdrawn.offer.id, f"{done.live.display} is live again", tuple(notes)
    return update or "", "nothing to install", tuple(notes)


def took(log: Log) -> float | None:
    """Seconds of work that an installation took here, by the newest few; None before the first."""
    seconds: list[float] = []
    with contextlib.suppress(BsipatchError):
        found = (data for _, data in record.read(log.read()))
        seconds = [one.seconds for one in found if isinstance(one, record.Installation)]
    newest = sorted(seconds[-_FEW:])
    return newest[len(newest) // 2] if newest else None


def ended_badly(operation: Operation, update: str, error: BaseException, time: str) -> Outcome:
    """The outcome of an operation that raised."""
    if not isinstance(error, BsipatchError):
        error = InternalError(f"{type(error).__name__}: {error}")
    return Outcome(
        operation=operation,
        update=update,
        ok=False,
        time=time,
        text=error.message,
        error=error.code,
        hint=error.hint,
    )


def _ring(offer: Offer, view: FeedView) -> int:
    """Of a hundred devices, how many it was offered to."""
    return 100 if offer.rollout is None else offer.rollout.percent(view.now)
