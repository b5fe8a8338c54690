"""Tickets on the device: asked for, kept, and worth nothing to or from anybody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bsipatch.device import ticketing
from bsipatch.device.transport import HttpStatusError, Transport
from bsipatch.errors import BsipatchError, ExpiredError, NotFoundError, TransferError, TrustError
from bsipatch.feed.ticket import issue
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Handler, serving
from tests.support.stores import base, store
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, update
from tests.support.updates import key

__all__ = ["base", "device", "repository", "server", "store"]


def ticket(asked: dict[str, str], *updates: str, valid: int = DAY, number: int = 3) -> bytes:
    return issue(asked["device"], asked["nonce"], updates, [key(number)], now=NOW, valid=valid)


@pytest.fixture
def offered(device: Device, repository: Repository) -> str:
    """The id of an update that needs a ticket."""
    offer, data = update(offer={"ticket_required": True})
    listed(repository, offer, data)
    ticketing.trust_service(device.feed, key(3).public.pem())
    return offer.id


def allowed(device: Device) -> frozenset[str]:
    return ticketing.allowed(device.feed, device.now)


def test_with_a_ticket_and_without(device: Device, offered: str) -> None:
    assert device.install().plan is None
    assert allowed(device) == frozenset()
    asked = ticketing.request(device.feed)
    ticketing.accept(device.feed, ticket(asked, offered), device.now)
    assert allowed(device) == {offered}
    device.install(tickets=allowed(device))
    assert device.live == "26.3.1 (a)"


def test_tickets_that_do_not_count(device: Device, offered: str) -> None:
    asked = ticketing.request(device.feed)
    for wrong in (
        ticket({**asked, "device": "another"}, offered),
        ticket({**asked, "nonce": "0" * 32}, offered),
        ticket(asked, offered, number=4),
        b"{}",
    ):
        with pytest.raises(BsipatchError):
            ticketing.accept(device.feed, wrong, device.now)
    with pytest.raises(ExpiredError):
        ticketing.accept(device.feed, ticket(asked, offered), device.now + 2 * DAY)
    assert allowed(device) == frozenset()
    assert not (device.feed.folder / "ticket.dsse").exists()


def test_a_newer_request_ends_an_older_ticket(device: Device, offered: str) -> None:
    asked = ticketing.request(device.feed)
    mine = ticket(asked, offered)
    ticketing.accept(device.feed, mine, device.now)
    ticketing.request(device.feed)
    assert allowed(device) == frozenset()
    with pytest.raises(TrustError):
        ticketing.accept(device.feed, mine, device.now)


def test_it_ends_by_itself(device: Device, offered: str) -> None:
    ticketing.accept(device.feed, ticket(ticketing.request(device.feed), offered), device.now)
    device.now += 2 * DAY
    assert allowed(device) == frozenset()


def test_nothing_was_asked_and_nobody_is_trusted(device: Device) -> None:
    with pytest.raises(NotFoundError, match="key"):
        ticketing.accept(device.feed, b"{}", device.now)
    ticketing.trust_service(device.feed, key(3).public.pem())
    with pytest.raises(NotFoundError, match="asked"):
        ticketing.accept(device.feed, b"{}", device.now)


def test_the_service_is_asked(device: Device, offered: str) -> None:
    def post(handler: Handler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.answer(200, ticket(json.loads(body), offered))

    Handler.do_POST = post  # type: ignore[attr-defined]
    try:
        with serving({}) as service, Transport(proxy="") as transport:
            ticketing.ask(device.feed, service.url, transport, device.now)
            assert allowed(device) == {offered}
            Handler.do_POST = lambda handler: handler.answer(403, b"")  # type: ignore[attr-defined]
            with pytest.raises(HttpStatusError, match="403"):
                ticketing.ask(device.feed, service.url, transport, device.now)
            Handler.do_POST = lambda handler: handler.pour(b"")  # type: ignore[attr-defined]
            with pytest.raises(TransferError, match="too long"):
                ticketing.ask(device.feed, service.url, transport, device.now)
    finally:
        del Handler.do_POST  # type: ignore[attr-defined]


def test_records_are_private(device: Device, offered: str) -> None:
    ticketing.request(device.feed)
    place: Path = device.feed.folder / "ticket.nonce"
    assert place.stat().st_mode & 0o777 == 0o600
