"""Tickets that a device gets by itself: asked for where the feed wants one, kept, renewed, lost."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bsipatch.device import policy_files, ticketing
from bsipatch.device.agent.working import Agent
from bsipatch.device.conditions import Answer
from bsipatch.device.logs import Log
from bsipatch.device.service import DeviceService
from bsipatch.errors import BsipatchError, ConfigError
from bsipatch.feed.ticket import issue
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Handler, Server, serving
from tests.support.served import ME, Says, managed, says, service
from tests.support.stores import base, store
from tests.support.tuf_feeds import DAY, Device, Repository, update
from tests.support.updates import key

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]

HOUR = 3600
IN_USE = Answer(name="idle", ok=False, code="idle", text="in use: somebody is using it")


class Tickets:
    """A service that answers as a test says. asked: the devices that came."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.granted: tuple[str, ...] = ()
        self.status, self.valid, self.number = 200, HOUR, 3
        self.asked: list[str] = []

    def answer(self, handler: Handler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        assert handler.path == "/ticket"
        self.asked.append(body["device"])
        if self.status != 200:
            handler.answer(self.status, b"")
            return
        nonce, signers, now = body["nonce"], [key(self.number)], int(self.device.now)
        granted = self.granted
        handler.answer(
            200, issue(body["device"], nonce, granted, signers, now=now, valid=self.valid)
        )


@pytest.fixture
def tickets(device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tickets, Server]]:
    made = Tickets(device)
    monkeypatch.setattr(Handler, "do_POST", lambda handler: made.answer(handler), raising=False)
    with serving({}) as at:
        ticketing.trust_service(device.feed, key(3).public.pem())
        policy_files.write_settings(device.store.root, {"ticket_service": at.url})
        yield made, at


@pytest.fixture
def offered(repository: Repository, tickets: tuple[Tickets, Server]) -> str:
    """The id of an update that needs a ticket, and has one granted."""
    offer, data = update(offer={"ticket_required": True})
    listed(repository, offer, data)
    tickets[0].granted = (offer.id,)
    return offer.id


def standing(service: DeviceService) -> str:
    (one,) = service.state().listed
    return one.standing


@pytest.fixture
def agent(device: Device, says: Says, managed: object) -> Iterator[Agent]:
    root = device.store.root
    with Agent(
        root, clock=lambda: device.now, conditions=says, managed=root / "etc", managed_owner=ME
    ) as made:
        yield made


def test_the_agent_gets_one_and_installs(
    agent: Agent, device: Device, offered: str, tickets: tuple[Tickets, Server]
) -> None:
    agent.work()
    assert device.live == "26.3.1 (a)"
    assert tickets[0].asked == [device.feed.device_id]


def test_nobody_is_asked_without_need(
    agent: Agent, device: Device, repository: Repository, tickets: tuple[Tickets, Server]
) -> None:
    listed(repository, *update())
    agent.work()
    assert device.live == "26.3.1 (a)"
    assert tickets[0].asked == []


def test_nobody_is_asked_whom_the_policy_does_not_name(
    agent: Agent, device: Device, offered: str, tickets: tuple[Tickets, Server]
) -> None:
    policy_files.write_settings(device.store.root, {"ticket_service": None})
    rest = agent.work()
    assert device.live == "26.3.1"
    assert tickets[0].asked == []
    assert "ticket" not in rest.why  # it is not this device's, so nothing is waited for


def test_one_that_ran_out_while_the_device_was_in_use_is_renewed(
    agent: Agent, device: Device, offered: str, tickets: tuple[Tickets, Server], says: Says
) -> None:
    says.answers.append(IN_USE)
    assert "somebody is using it" in agent.work().why
    says.answers.clear()
    device.now += 2 * HOUR  # no check is due yet
    assert ticketing.allowed(device.feed, device.now) == frozenset()
    assert ticketing.granted(device.feed, device.now) == {offered}
    agent.work()
    assert device.live == "26.3.1 (a)"
    assert len(tickets[0].asked) == 2


def test_a_service_that_is_away_takes_nothing_and_holds_up_nothing(
    service: DeviceService, device: Device, offered: str, tickets: tuple[Tickets, Server]
) -> None:
    service.check()
    tickets[0].status, tickets[0].valid = 503, 10
    assert standing(service) == "available"
    service.check()
    assert tickets[0].asked == [device.feed.device_id]  # the kept one holds
    device.now += 2 * HOUR
    service.check()
    assert [e.event for e in Log(device.store.root).read()][-2:] == ["ticket-failed", "check"]
    with pytest.raises(BsipatchError, match="needs a ticket"):
        service.install(offered)
    tickets[0].status = 200
    service.install(offered)
    assert device.live == "26.3.1 (a)"


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_granted_no_longer_is_not_counted_on(
    service: DeviceService,
    device: Device,
    offered: str,
    tickets: tuple[Tickets, Server],
    status: int,
) -> None:
    service.check()
    device.now += 2 * HOUR
    tickets[0].status = status
    service.check()
    assert ticketing.granted(device.feed, device.now) == frozenset()
    assert standing(service) == "refused"


def test_one_of_a_foreign_key_does_not_count(
    service: DeviceService, device: Device, offered: str, tickets: tuple[Tickets, Server]
) -> None:
    tickets[0].number = 4
    service.check()
    assert standing(service) == "refused"
    assert ticketing.granted(device.feed, device.now) == frozenset()
    with pytest.raises(BsipatchError, match="needs a ticket"):
        service.install(offered)


def test_a_failed_request_leaves_the_kept_one(
    device: Device, offered: str, tickets: tuple[Tickets, Server]
) -> None:
    from bsipatch.device.transport import Transport

    with Transport(proxy="") as transport:
        ticketing.ask(device.feed, tickets[1].url, transport, device.now)
        tickets[0].status = 500
        with pytest.raises(BsipatchError):
            ticketing.ask(device.feed, tickets[1].url, transport, device.now)
    assert ticketing.allowed(device.feed, device.now) == {offered}


@pytest.mark.parametrize(
    "address",
    [
        "http://tickets.example.org/",
        "ftp://tickets.example.org/",
        "file:///tickets",
        "https://user:word@tickets.example.org/",
        "http://127.0.0.1.example.org/",
        "http://localhost@example.org/",
        "https://",
    ],
)
def test_addresses_that_would_tell_the_device_in_the_open(device: Device, address: str) -> None:
    with pytest.raises(ConfigError):
        policy_files.write_settings(device.store.root, {"ticket_service": address})


def test_days(device: Device, offered: str, tickets: tuple[Tickets, Server], agent: Agent) -> None:
    """A ticket of a day needs no second one on that day."""
    tickets[0].valid = 2 * DAY
    policy_files.write_settings(device.store.root, {"automatic": False})
    for _ in range(4):
        agent.work(now=True)
        device.now += HOUR
    assert len(tickets[0].asked) == 1
