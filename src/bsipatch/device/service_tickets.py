"""What a device's service and agent do about tickets: have them renewed, and count on them."""

from __future__ import annotations

import contextlib

from ..errors import BsipatchError, StoreDamagedError, SystemCallError
from . import ticketing
from .feed_client import FeedClient, FeedView
from .logs import Log
from .policy import Policy
from .transport import Transport


def renew(
    feed: FeedClient, view: FeedView, policy: Policy, transport: Transport, log: Log, clock: float
) -> frozenset[str]:
    """Ids that a ticket allows now, after asking the policy's service where that is needed.

    That there is none is written into the log and is no error.  Raises CancelledError,
    StoreBusyError, StoreDamagedError, SystemCallError.
    """
    error = ticketing.keep(feed, view, policy.ticket_service, transport, clock)
    if error is not None:
        with contextlib.suppress(BsipatchError):
            log.write("ticket-failed", error.message, level="warning")
    return ticketing.allowed(feed, clock)


def counted_on(feed: FeedClient, policy: Policy, clock: float) -> frozenset[str]:
    """Ids that can be had by a ticket, renewed if need be. Raises StoreDamagedError.

    None for a user who may not read this device's tickets.
    """
    try:
        if policy.ticket_service:
            return ticketing.granted(feed, clock)
        return ticketing.allowed(feed, clock)
    except StoreDamagedError:
        raise
    except SystemCallError:
        return frozenset()
