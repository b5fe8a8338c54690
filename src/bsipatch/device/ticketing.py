"""A device's personal permissions: asked for with a fresh nonce, kept, verified each time.

::

    STORE/feed/
      ticket.pem      the public key of the ticket service
      ticket.nonce    of the newest request; a ticket for any other is worthless
      ticket.dsse     the answer, as it was signed

A request and its answer can travel as files, for a device without a network.
"""

from __future__ import annotations

import json

from ..errors import BsipatchError, NotFoundError, StoreDamagedError, UsageError
from ..feed.ticket import Ticket, new_nonce, verify_ticket
from ..store import durable
from ..trust import Policy, PublicKey
from .feed_client import FeedClient
from .transport import Transport

KEY = "ticket.pem"
NONCE = "ticket.nonce"
TICKET = "ticket.dsse"


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
    ticket = _verify(feed, envelope, clock)
    _write(feed, TICKET, envelope)
    return ticket


def ask(feed: FeedClient, url: str, transport: Transport, clock: float) -> Ticket:
    """Asks the service at `url` and keeps its answer. Raises TransferError, and as accept()."""
    if not url.startswith(("http://", "https://")):
        raise UsageError("a ticket service's address begins with https:// or http://", file=url)
    body = json.dumps(request(feed)).encode()
    most = feed.limits.max_ticket + feed.limits.max_envelope
    return accept(feed, transport.post(f"{url.rstrip('/')}/ticket", body, most), clock)


def allowed(feed: FeedClient, clock: float) -> frozenset[str]:
    """Ids that the kept ticket allows now; none without a ticket that holds.

    Raises SystemCallError, StoreDamagedError.
    """
    envelope = _read(feed, TICKET)
    if envelope is None:
        return frozenset()
    try:
        return frozenset(_verify(feed, envelope, clock).updates)
    except StoreDamagedError:
        raise
    except BsipatchError:
        return frozenset()  # expired, or made worthless by a newer request


def _verify(feed: FeedClient, envelope: bytes, clock: float) -> Ticket:
    pem, nonce = _read(feed, KEY), _read(feed, NONCE)
    if pem is None:
        raise NotFoundError(
            "the ticket service's key is not known",
            file=feed.folder / KEY,
            hint="Give it with `bsipatch ticket --key`.",
        )
    if nonce is None:
        raise NotFoundError(
            "no ticket was asked for",
            file=feed.folder / NONCE,
            hint="Ask with `bsipatch ticket --request`.",
        )
    return verify_ticket(
        envelope,
        Policy([PublicKey.from_pem(pem, file=feed.folder / KEY)], 1, limits=feed.limits),
        device=feed.device_id,
        nonce=nonce.decode("ascii", "replace"),
        now=feed.floor().now(clock),
        limits=feed.limits,
    )


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
