"""From what a check or an installation came to, to lines of the device's log.

What the agent calls after device.choosing and device.installing; telemetry.record
says what the lines hold.
"""

from __future__ import annotations

import time

from ...errors import BsipatchError, HealthError
from ...feed.model import Offer
from ...fleet.model import Route
from ..choosing import Choice
from ..installing import Installed
from ..logs import Log
from ..policy import Wait
from . import record

#: reasons of offers that are not this device's to wait for
_NOT_WAITING = frozenset(
    {
        "wrong-product",
        "wrong-platform",
        "wrong-architecture",
        "wrong-baseline",
        "installed",
        "contained-in-base",
        "superseded",
        "rollback",
        "expired-feed",
    }
)


def ring(offer: Offer, now: float) -> int:
    """To how many percent of devices an offer is open."""
    return 100 if offer.rollout is None else offer.rollout.percent(int(now))


def check(log: Log, choice: Choice, *, now: float | None = None) -> None:
    """Writes what a check found, and for each update that waits what it waits for.

    An update that still waits for the same things is not written again.
    Raises SystemCallError, NoSpaceError.
    """
    moment = time.time() if now is None else now
    if choice.plan is None:
        record.checked(log, "nothing to install now", now=moment)
    else:
        goal = choice.plan.offers[-1]
        data = record.Seen(published=goal.published, ring=ring(goal, moment))
        record.checked(
            log, f"{goal.display_version} can be installed", update=goal.id, data=data, now=moment
        )
    known = {
        entry.update: data.reasons if isinstance(data, record.Waiting) else ()
        for entry, data in record.read(log.read())
    }
    for offer in choice.view.offers:
        reasons = choice.reasons(offer)
        codes = tuple(reason.code for reason in reasons)
        if not codes or set(codes) & _NOT_WAITING or known.get(offer.id) == codes:
            continue
        waits = [Wait(code=r.code, text=r.text, evidence=dict(r.evidence)) for r in reasons]
        record.waiting(
            log, offer.id, waits, published=offer.published, ring=ring(offer, moment), now=moment
        )


def install(log: Log, done: Installed, *, now: float | None = None) -> None:
    """Writes what an installation did: taken off, gone live, or neither.

    Raises SystemCallError, NoSpaceError.
    """
    moment = time.time() if now is None else now
    if done.withdrawn is not None:
        record.taken_off(
            log,
            done.withdrawn.offer.id,
            "withdrawn",
            f"withdrawn by its publisher: {done.withdrawn.notice.reason}",
            now=moment,
        )
    if done.plan is None:
        return
    goal = done.plan.offers[-1]
    route: Route = done.plan.kind
    data = record.Installation(
        published=goal.published,
        ring=ring(goal, moment),
        route=route,
        received=done.received,
        full=done.full or done.received,
        applied=sum(one.size for one in done.applied),
        seconds=sum(one.seconds for one in done.applied),
        fallbacks=tuple(one.code for one in done.fallbacks),
    )
    text = f"{done.live.display} is live, {done.received:,} bytes received"
    record.installed(log, goal.id, data, text, now=moment)


def failure(log: Log, offer: Offer, error: BsipatchError, *, now: float | None = None) -> None:
    """Writes that an installation failed; a failed health check as a way back.

    Raises SystemCallError, NoSpaceError.
    """
    moment = time.time() if now is None else now
    data = record.Failure(
        published=offer.published,
        ring=ring(offer, moment),
        reason=error.code,
        reverted=isinstance(error, HealthError),
    )
    record.failed(log, offer.id, data, error.message, now=moment)
