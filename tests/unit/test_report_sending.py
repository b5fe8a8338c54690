"""Reports that are sent: only where everybody agrees, when they are due, and whatever answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import policy_files
from bsipatch.device.agent.working import Agent
from bsipatch.device.logs import Log
from bsipatch.device.policy_merge import merge
from bsipatch.device.policy_schema import Settings
from bsipatch.device.telemetry import sending
from bsipatch.device.transport import Transport
from bsipatch.errors import CancelledError, ConfigError, PolicyError, TransferError
from bsipatch.fleet import model
from bsipatch.fleet.model import Report
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Handler, Server, serving
from tests.support.served import ME, Says, manage, managed, says
from tests.support.stores import base, store
from tests.support.tuf_feeds import Device, Repository, update

__all__ = ["base", "device", "managed", "repository", "says", "server", "store"]

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0


def made(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "device": "0123456789abcdef" * 2,
        "period": "2027-01",
        "made": int(NOW),
        "product": "Demo",
        "platform": "any",
        "version": "26.3.1",
        "channel": "release",
    }
    return Report(**{**fields, **changes})


# --- when ---


def test_the_first_ones_of_a_fleet_are_spread() -> None:
    moments = {sending.first(made(device=f"{n:032x}"), NOW).next - NOW for n in range(200)}
    assert len(moments) == 200
    assert 0 <= min(moments) < 0.1 * HOUR < 0.9 * HOUR < max(moments) < HOUR


def test_one_a_day_that_says_the_same() -> None:
    sent = sending.succeeded(made(), NOW)
    assert NOW + DAY <= sending.due(sent, made(made=int(NOW + HOUR)), NOW + HOUR) < NOW + 1.2 * DAY


def test_a_change_comes_sooner_and_not_at_once() -> None:
    sent = sending.succeeded(made(), NOW)
    moment = sending.due(sent, made(letter="a"), NOW + 60)
    assert NOW + HOUR <= moment < NOW + 2 * HOUR


def test_failures_put_it_off_up_to_a_day_whatever_changes() -> None:
    sent, waits = sending.succeeded(made(), NOW), []
    for _ in range(12):
        sent = sending.failed(sent, made(), NOW, "no")
        waits.append(sending.due(sent, made(letter="a"), NOW) - NOW)
    assert waits[0] >= 450
    assert waits[1] < waits[3] < waits[5]
    assert DAY / 2 <= waits[-1] <= DAY
    assert sending.succeeded(made(), NOW).failures == 0


@pytest.mark.parametrize("back", [2 * HOUR, 400 * DAY])
def test_a_clock_that_was_set_back_does_not_silence_a_device(back: float) -> None:
    sent = sending.succeeded(made(), NOW)
    assert sending.due(sent, made(), NOW - back) == NOW - back


def test_what_is_remembered(tmp_path: Path) -> None:
    assert sending.load(tmp_path) == sending.Sent()
    sent = sending.failed(sending.succeeded(made(), NOW), made(), NOW, "x" * 9000)
    sending.save(tmp_path, sent)
    assert sending.load(tmp_path) == sent
    for damage in (b"", b"\0" * 100, b"[]", b'{"failures": -1}', b'{"next": "x"}', b"[" * 9999):
        (tmp_path / sending.NAME).write_bytes(damage)
        assert sending.load(tmp_path) == sending.Sent()


# --- where to, and whether ---


@pytest.mark.parametrize(
    ("settings", "match"),
    [({}, "switched off"), ({"report_to": "file:///x"}, "off"), ({"reports": True}, "nobody")],
)
def test_nothing_goes_without_consent(settings: dict[str, Any], match: str) -> None:
    policy = merge(Settings(**settings))
    assert not sending.wanted(policy)
    with Transport(proxy="") as transport, pytest.raises(PolicyError, match=match):
        sending.send(policy, made(), transport, NOW)


@pytest.mark.parametrize(
    "address",
    ["http://example.org/", "https://user@example.org/", "https://", "file://host/x", "ftp://x/y"],
)
def test_addresses_that_are_refused(store: Any, address: str) -> None:
    with pytest.raises(ConfigError):
        policy_files.write_settings(store.root, {"report_to": address})


def test_into_a_folder(tmp_path: Path) -> None:
    policy = merge(Settings(reports=True, report_to=f"file://{tmp_path}"))
    with Transport(proxy="") as transport:
        for _ in range(2):
            sending.send(policy, made(), transport, NOW)
        (file,) = tmp_path.glob("2027-01-15/*.json")
        assert model.decode(file.read_bytes().strip()) == made()
        climbing = merge(Settings(reports=True, report_to=f"file://{tmp_path}/../x"))
        with pytest.raises(TransferError):
            sending.send(climbing, made(), transport, NOW)


# --- the agent ---


class Collector:
    """Answers as a test says. got: the requests' headers and bodies."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status, self.poured = 200, False

    @property
    def reports(self) -> list[Report]:
        return [model.decode(body.strip()) for _, body in self.got]

    def answer(self, handler: Handler) -> None:
        assert handler.path == "/report"
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.got.append((dict(handler.headers), body))
        if self.poured:
            handler.pour(b"")
        else:
            handler.answer(self.status, b"{}", {"Location": "/report", "Set-Cookie": "a=b"})


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Collector, Server]]:
    made = Collector()
    monkeypatch.setattr(Handler, "do_POST", lambda handler: made.answer(handler), raising=False)
    with serving({}) as at:
        yield made, at


@pytest.fixture
def agent(device: Device, says: Says, managed: Path) -> Iterator[Agent]:
    with Agent(
        device.store.root,
        clock=lambda: device.now,
        conditions=says,
        managed=managed,
        managed_owner=ME,
    ) as one:
        yield one


def agree(device: Device, server: Server, **more: Any) -> None:
    wish = {"reports": True, "report_to": server.url}
    policy_files.write_settings(device.store.root, {**wish, **more})


def run(agent: Agent, device: Device, after: float = 0.0) -> float:
    """Its work after so many seconds; how long it rests then."""
    device.now += after
    return agent.work().until - device.now


def said(device: Device) -> list[str]:
    return [e.event for e in Log(device.store.root).read() if e.event.startswith("report")]


@pytest.mark.parametrize("settings", [{}, {"reports": True}, {"report_to": "URL"}])
def test_off_by_default(
    agent: Agent,
    device: Device,
    collector: tuple[Collector, Server],
    settings: dict[str, Any],
) -> None:
    wish = {name: collector[1].url if v == "URL" else v for name, v in settings.items()}
    policy_files.write_settings(device.store.root, wish)
    for _ in range(4):
        run(agent, device, DAY)
    assert collector[0].got == []
    assert not (device.store.root / sending.NAME).exists()
    assert not (device.store.root / "report-key").exists()


def test_a_manager_cannot_make_a_device_report_against_its_owner(
    agent: Agent, device: Device, collector: tuple[Collector, Server], managed: Path
) -> None:
    policy_files.write_settings(device.store.root, {"reports": False})
    manage(managed, f'reports = true\nreport_to = "{collector[1].url}"')
    for _ in range(3):
        run(agent, device, DAY)
    assert collector[0].got == []


def test_days_of_a_device_that_reports(
    agent: Agent, device: Device, repository: Repository, collector: tuple[Collector, Server]
) -> None:
    agree(device, collector[1])
    assert run(agent, device) <= HOUR  # it wakes for the first one
    assert collector[0].got == []
    rest = run(agent, device, HOUR)
    assert len(collector[0].got) == 1
    assert rest > 0
    for _ in range(20):  # checks go on, and nothing has changed
        run(agent, device, HOUR)
    assert len(collector[0].got) == 1
    listed(repository, *update())
    for _ in range(9):
        run(agent, device, HOUR)
    assert device.live == "26.3.1 (a)"
    assert [one.letter for one in collector[0].reports][-1] == "a"
    assert len(collector[0].got) <= 4
    assert set(said(device)) == {"report-sent"}


def test_nothing_personal_goes_with_it(
    agent: Agent, device: Device, collector: tuple[Collector, Server]
) -> None:
    agree(device, collector[1])
    for _ in range(40):
        run(agent, device, HOUR)
    assert len(collector[0].got) == 2
    for headers, body in collector[0].got:
        assert not {"Cookie", "Authorization", "Referer", "From"} & set(headers)
        whole = json.dumps(headers).encode() + body
        for secret in (device.feed.device_id, str(device.store.root), "device-1"):
            assert secret.encode() not in whole


@pytest.mark.parametrize("status", [302, 307, 404, 413, 500])
def test_a_collector_that_refuses_is_left_alone_more_and_more(
    agent: Agent, device: Device, collector: tuple[Collector, Server], status: int
) -> None:
    collector[0].status = status
    agree(device, collector[1])
    for _ in range(4 * 48):
        run(agent, device, HOUR / 4)
    assert 3 <= len(collector[0].got) <= 10  # in two days
    assert said(device) == ["report-failed"]
    collector[0].status = 200
    for _ in range(26):
        run(agent, device, HOUR)
    assert said(device)[:2] == ["report-failed", "report-sent"]


def test_an_answer_without_end_and_a_server_that_is_away(
    agent: Agent, device: Device, collector: tuple[Collector, Server], repository: Repository
) -> None:
    collector[0].poured = True
    agree(device, collector[1])
    listed(repository, *update())
    run(agent, device)
    run(agent, device, HOUR)
    assert len(collector[0].got) == 1
    assert device.live == "26.3.1 (a)"
    assert sending.load(device.store.root).failures == 1
    agree(device, collector[1], report_to="http://127.0.0.1:9")
    run(agent, device, HOUR)
    assert sending.load(device.store.root).failures == 2


def test_a_change_of_mind_ends_it(
    agent: Agent, device: Device, collector: tuple[Collector, Server]
) -> None:
    agree(device, collector[1])
    for _ in range(2):
        run(agent, device, HOUR)
    agree(device, collector[1], reports=False)
    for _ in range(3):
        run(agent, device, DAY)
    assert len(collector[0].got) == 1


def test_it_can_be_stopped(
    agent: Agent, device: Device, collector: tuple[Collector, Server], monkeypatch: Any
) -> None:
    def cancelled(*args: object) -> None:
        raise CancelledError

    agree(device, collector[1])
    run(agent, device)
    monkeypatch.setattr(sending, "send", cancelled)
    with pytest.raises(CancelledError):
        run(agent, device, HOUR)
    assert sending.load(device.store.root).failures == 0
