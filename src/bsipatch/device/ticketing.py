"""A device's personal permissions: asked for with a fresh nonce, kept, verified each time.

::

    STORE/feed/
      ticket.pem      the public key of the ticket service
      ticket.nonce    of the newest request; a ticket for any other is worthless
      ticket.dsse     the answer, as it was signed

A request and its answer can travel as files, for a device without a network.  Where the policy
names a ticket service, a device asks it by itself as soon as the feed has an update that needs a
ticket (`keep`).  A kept ticket that has run out still says what was granted: with it the update
is one that can be had, and the installation begins by asking again.
"""

from __future__ import annotations

import contextlib
import json
import os

from ..errors import (
    BsipatchError,
    CancelledError,
    ExpiredError,
    NotFoundError,
    StoreBusyError,
    StoreDamagedError,
    UsageError,
)
from ..feed.ticket import Ticket, new_nonce, verify_ticket
from ..store import durable
from ..trust import Policy, PublicKey
from .feed_client import FeedClient, FeedView
from .transport import HttpStatusError, Transport

KEY = "ticket.pem"
NONCE = "ticket.nonce"
TICKET = "ticket.dsse"
#: a service's answers that say: nothing is granted to this device (any more)
_NOT_GRANTED = frozenset({403, 404, 410})


def trust_service(feed: FeedClient, pem: bytes) -> None:
    """Pins the key of the service whose tickets count. Raises KeyFileError, SystemCallError."""
    PublicKey.from_pem(pem, file=KEY)
    _write(feed, KEY, pem)


def request(feed: FeedClient) -> dict[str, str]:
    """What to send to the service. From now on no older ticket counts. Raises SystemCallError."""
    nonce = new_nonce()
    _write(feed, NONCE, nonce.encode())
    return {"device": feed.device_id, "nonce": nonce}


def accept(feed: FeedClient, envelope: bytes, clock: float) -> Ticket:
    """Keeps a ticket, once it is certain that it answers the newest request.

    Raises NotFoundError (no request, no key), TrustError and what else verify_ticket() raises.
    """
    _key(feed)
    ticket = _verify(feed, envelope, clock, _asked(feed))
    _write(feed, TICKET, envelope)
    return ticket


def ask(feed: FeedClient, url: str, transport: Transport, clock: float) -> Ticket:
    """Asks the service at `url` and keeps its answer.

    A service that does not answer, or not as it should, takes no ticket away.  Raises
    TransferError, and as accept().
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError("a ticket service's address begins with https:// or http://", file=url)
    _key(feed)
    nonce = new_nonce()
    body = json.dumps({"device": feed.device_id, "nonce": nonce}).encode()
    most = feed.limits.max_ticket + feed.limits.max_envelope
    envelope = transport.post(f"{url.rstrip('/')}/ticket", body, most)
    ticket = _verify(feed, envelope, clock, nonce)
    # Between the two no ticket holds, and the next one who needs one asks again.
    _write(feed, NONCE, nonce.encode())
    _write(feed, TICKET, envelope)
    return ticket


def keep(
    feed: FeedClient, view: FeedView, url: str, transport: Transport, clock: float
) -> BsipatchError | None:
    """Sees to it that a ticket is there for what the feed offers and lets only those have.

    Asks the service at `url` where the one that is kept does not hold for all of it; "" asks
    nobody.  Gives back why there is none, for the log: it keeps nobody from anything else.  A
    service that grants nothing ends what was kept.  Raises CancelledError, StoreBusyError.
    """
    if not url:
        return None
    try:
        if _demanded(view) <= allowed(feed, clock):
            return None
        ask(feed, url, transport, clock)
    except (CancelledError, StoreBusyError):
        raise
    except HttpStatusError as error:
        if error.status in _NOT_GRANTED:
            _forget(feed)
        return error
    except BsipatchError as error:
        return error
    return None


def granted(feed: FeedClient, clock: float) -> frozenset[str]:
    """As allowed(), and the ids of a ticket that was good and has run out.

    For whoever can ask again: what is to be installed is only what is allowed().
    """
    return _ids(feed, clock, late=True)


def allowed(feed: FeedClient, clock: float) -> frozenset[str]:
    """Ids that the kept ticket allows now; none without a ticket that holds.

    Raises SystemCallError, StoreDamagedError.
    """
    return _ids(feed, clock, late=False)


def _ids(feed: FeedClient, clock: float, *, late: bool) -> frozenset[str]:
    envelope = _read(feed, TICKET)
    if envelope is None:
        return frozenset()
    try:
        nonce = _asked(feed)
        try:
            ticket = _verify(feed, envelope, clock, nonce)
        except ExpiredError as error:
            if not late or not isinstance(error.expected, int):
                raise
            ticket = _verify(feed, envelope, clock, nonce, now=error.expected - 1)
        return frozenset(ticket.updates)
    except StoreDamagedError:
        raise
    except BsipatchError:
        return frozenset()  # expired, or made worthless by a newer request


def _demanded(view: FeedView) -> frozenset[str]:
    return frozenset(
        offer.id for offer in view.offers if offer.ticket_required and offer.withdrawn is None
    )


def _key(feed: FeedClient) -> PublicKey:
    pem = _read(feed, KEY)
    if pem is None:
        raise NotFoundError(
            "the ticket service's key is not known",
            file=feed.folder / KEY,
            hint="Give it with `bsipatch ticket --key`.",
        )
    return PublicKey.from_pem(pem, file=feed.folder / KEY)


def _asked(feed: FeedClient) -> str:
    """The newest request's nonce. Raises NotFoundError, SystemCallError."""
    nonce = _read(feed, NONCE)
    if nonce is None:
        raise NotFoundError(
            "no ticket was asked for",
            file=feed.folder / NONCE,
            hint="Ask with `bsipatch ticket --request`.",
        )
    return nonce.decode("ascii", "replace")


def _verify(
    feed: FeedClient, envelope: bytes, clock: float, nonce: str, *, now: int | None = None
) -> Ticket:
    return verify_ticket(
        envelope,
        Policy([_key(feed)], 1, limits=feed.limits),
        device=feed.device_id,
        nonce=nonce,
        now=feed.floor().now(clock) if now is None else now,
        limits=feed.limits,
    )


def _forget(feed: FeedClient) -> None:
    with feed.store.changing("ticket"), contextlib.suppress(OSError):
        os.unlink(TICKET, dir_fd=feed.store.fd)


def _read(feed: FeedClient, name: str) -> bytes | None:
    most = feed.limits.max_ticket + feed.limits.max_envelope
    try:
        with durable.system_calls("reading a ticket", feed.folder / name):
            return durable.read_file(name, dir_fd=feed.store.fd, limit=most)
    except NotFoundError:
        return None


def _write(feed: FeedClient, name: str, data: bytes) -> None:
    with feed.store.changing("ticket"), durable.system_calls("writing", feed.folder / name):
        durable.replace_file(name, data, dir_fd=feed.store.fd, mode=0o600)
