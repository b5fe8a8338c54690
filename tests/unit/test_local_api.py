"""The local interface: what it answers, whom it refuses, and what it must not be talked into."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bsipatch.device.service import DeviceService
from bsipatch.device.web import feeding, peers, serving
from bsipatch.device.web.access import SocketAccess
from bsipatch.device.web.api import application
from bsipatch.errors import ExistsError, NotFoundError
from tests.support.followed import device, repository, server
from tests.support.mirrors import Server
from tests.support.served import ME, Running, manage, managed, offer, says, service
from tests.support.stores import base, store
from tests.support.tuf_feeds import Device, Repository

__all__ = ["base", "device", "managed", "repository", "says", "server", "service", "store"]

CHANGES = [
    ("POST", "/v1/check", {}),
    ("POST", "/v1/install", {"update": None}),
    ("POST", "/v1/remove", {}),
    ("POST", "/v1/cancel", {}),
    ("PUT", "/v1/settings", {"automatic": False}),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Of the socket: short, for its name is bounded."""
    return Path(os.path.relpath(tmp_path / "s"))


@pytest.fixture
def api(service: DeviceService, place: Path) -> Iterator[httpx.Client]:
    """A client over the Unix socket, as the store's owner."""
    access = SocketAccess(lambda: frozenset({ME}))
    with (
        serving.unix(place) as listening,
        Running(service, listening, access),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://d") as client,
    ):
        client.timeout = httpx.Timeout(60.0)
        yield client


# --- the socket ---


def test_what_it_is(api: httpx.Client) -> None:
    told = api.get("/v1")
    assert told.json()["api"] == 1
    assert told.headers["cache-control"] == "no-store"
    assert "server" not in told.headers


def test_a_life_over_the_socket(api: httpx.Client, repository: Repository, device: Device) -> None:
    name = offer(repository)
    assert api.get("/v1/state").json()["standing"] == "unknown"
    told = api.post("/v1/check", json={"wait": True}).json()
    assert told["outcome"]["ok"]
    state = api.get("/v1/state").json()
    assert state["standing"] == "available"
    assert state["listed"][0]["security"][0]["cves"] == ["CVE-2026-20643"]
    told = api.post("/v1/install", json={"update": name, "wait": True}).json()
    assert told["outcome"]["changed"]
    assert device.live == "26.3.1 (a)"
    assert api.get("/v1/state").json()["standing"] == "current"
    told = api.post("/v1/remove", json={"reason": "a page does not print", "wait": True})
    assert told.json()["outcome"]["changed"]
    history = api.get("/v1/state?history=5").json()["history"]
    assert len(history) == 5
    assert any("a page does not print" in one["text"] for one in history)
    assert api.put("/v1/settings", json={"automatic": False}).json() == {"automatic": False}
    assert api.get("/v1/state?history=0").json()["automatic"] is False


def test_an_operation_in_the_background(
    api: httpx.Client, service: DeviceService, repository: Repository
) -> None:
    offer(repository)
    told = api.post("/v1/check")
    assert told.status_code == 202
    assert told.json()["progress"]["operation"] == "check"
    assert service.wait(30)
    assert api.get("/v1/state").json()["outcome"]["ok"]


def test_errors_say_what_and_why(api: httpx.Client, managed: Path) -> None:
    told = api.post("/v1/install", json={"update": "no-such", "wait": True})
    assert (told.status_code, told.json()["outcome"]["error"]) == (404, "not-found")
    told = api.post("/v1/remove")
    assert (told.status_code, told.json()["error"]) == (409, "store-state")
    assert api.post("/v1/cancel").status_code == 409
    manage(managed, 'automatic = "on"\ninstall = "forbidden"')
    told = api.put("/v1/settings", json={"automatic": False})
    assert (told.status_code, told.json()["error"]) == (403, "policy")
    assert "Example School" in told.json()["message"]
    assert api.post("/v1/install").status_code == 403


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"automatic": 1}', "application/json", 400),
        (b'{"automatic": true, "more": 1}', "application/json", 400),
        (b"[" * 10000, "application/json", 400),
        (b'"\xff"', "application/json", 400),
        (b'{"automatic": true}', "text/plain", 415),
        (b" " * 20000, "application/json", 413),
        (b"", "application/json", 400),
    ],
)
def test_bodies_that_are_none(
    api: httpx.Client, service: DeviceService, body: bytes, kind: str, status: int
) -> None:
    told = api.put("/v1/settings", content=body, headers={"Content-Type": kind})
    assert told.status_code == status
    assert told.json()["message"]
    assert not (service.root / "settings.toml").exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),  # no page for programs
        ("POST", "/v1/session", 404),
        ("GET", "/v1/install", 405),
        ("POST", "/v1/state", 405),
        ("GET", "/v1/state?history=-1", 400),
        ("GET", "/v1/state?history=1001", 400),
        ("GET", "/v1/../../etc/passwd", 404),
    ],
)
def test_addresses_that_are_none(api: httpx.Client, method: str, path: str, status: int) -> None:
    assert api.request(method, path).status_code == status


def test_one_change_at_a_time(
    api: httpx.Client, service: DeviceService, repository: Repository, server: Server
) -> None:
    offer(repository)
    service.check()
    reached = threading.Event()

    def slow(handler: Any, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/") or body is None:
            return False
        reached.set()
        handler.drip(body)
        return True

    server.behaviour = slow
    with api.stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: changed"
        assert api.post("/v1/install").status_code == 202
        assert reached.wait(30)
        told = api.post("/v1/install")
        assert (told.status_code, told.json()["error"]) == (409, "store-busy")
        assert told.headers["retry-after"]
        assert api.get("/v1/state").json()["progress"]["operation"] == "install"
        assert api.post("/v1/cancel").status_code == 202
        for line in lines:
            if line == "event: finished":
                outcome = json.loads(next(lines).removeprefix("data: "))["outcome"]
                break
    assert (outcome["ok"], outcome["error"]) == (False, "cancelled")


def test_events_tell_what_another_process_changed(
    api: httpx.Client, service: DeviceService
) -> None:
    with api.stream("GET", "/v1/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in events.iter_lines() if line.startswith("event:"))
        next(lines)
        (service.root / "settings.toml").write_text("automatic = false\n")
        assert next(lines) == "event: changed"


def test_too_many_followers(service: DeviceService) -> None:
    watch = feeding.Watch(service)
    streams = [feeding.Stream(service, watch, None) for _ in range(33)]  # type: ignore[arg-type]
    opened = [stream.open() for stream in streams]
    assert opened == [True] * 32 + [False]
    for stream in streams:
        stream.close()
        stream.close()
    assert streams[-1].open()
    streams[-1].close()


# --- who asks ---


def test_browsers_get_nothing_from_the_socket(api: httpx.Client) -> None:
    told = api.get("/v1/state", headers={"Origin": "http://evil.example"})
    assert (told.status_code, told.json()["error"]) == (403, "origin")


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_another_user_reads_and_changes_nothing(
    service: DeviceService, place: Path, method: str, path: str, body: dict[str, Any]
) -> None:
    access = SocketAccess(lambda: frozenset({ME + 1}))
    with (
        serving.unix(place) as listening,
        Running(service, listening, access),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://d") as client,
    ):
        assert client.get("/v1/state").status_code == 200
        told = client.request(method, path, json=body)
        assert (told.status_code, told.json()["error"]) == (403, "forbidden")
        assert "administrator" in told.json()["hint"]
    assert not (service.root / "settings.toml").exists()
    assert service.outcome() is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_real_other_user(service: DeviceService) -> None:
    script = """
import socket, sys
def ask(request):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        s.sendall(request + b"Host: d\\r\\nConnection: close\\r\\n\\r\\n")
        return s.recv(100).split()[1].decode()
print(ask(b"GET /v1/state HTTP/1.1\\r\\n"), ask(b"POST /v1/check HTTP/1.1\\r\\n"))
"""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        place = folder / "s"
        access = SocketAccess(lambda: peers.trusted_uids(service.root))
        with serving.unix(place) as listening, Running(service, listening, access):
            done = subprocess.run(
                [*nobody, "/usr/bin/python3", "-c", script, str(place)],
                capture_output=True,
                text=True,
                timeout=60,
            )
        assert done.stdout.split() == ["200", "403"], done.stderr
    finally:
        shutil.rmtree(folder)


def test_without_a_peer_nothing_is_changed(service: DeviceService) -> None:
    transport = httpx.ASGITransport(application(service, SocketAccess(lambda: frozenset({0, ME}))))

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://d") as client:
            told = [await client.get("/v1/state"), await client.post("/v1/check")]
            return [one.status_code for one in told]

    assert asyncio.run(ask()) == [200, 403]


def test_the_socket_is_for_everybody_and_goes(tmp_path: Path, place: Path) -> None:
    with serving.unix(place) as listening:
        assert stat.S_IMODE(os.lstat(place).st_mode) == 0o666
        with pytest.raises(ExistsError), serving.unix(place):
            pass
        assert place.exists()
        assert listening.fileno() >= 0
    assert not place.exists()


def test_a_socket_that_was_left_is_replaced(place: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place))
    left.close()
    with serving.unix(place):
        pass
    assert not place.exists()


def test_a_file_in_the_way_stays(place: Path) -> None:
    place.write_text("mine")
    with pytest.raises(ExistsError), serving.unix(place):
        pass
    assert place.read_text() == "mine"
    with pytest.raises(NotFoundError), serving.unix(place.parent / "no" / "s"):
        pass


def test_an_idle_server_ends(service: DeviceService, place: Path) -> None:
    with serving.unix(place) as listening:
        app = application(service, SocketAccess(lambda: frozenset({ME})))
        serving.Server(app, idle=0.01).run([listening])


# --- peers ---


def test_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = peers.of_unix(ours)
    assert found is not None
    assert found.uid == ME
    if sys.platform == "linux":
        assert found.pid == os.getpid()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not tell")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_whose_connection_it_is(family: socket.AddressFamily, tmp_path: Path) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        except OSError:
            pytest.skip("no such address here")
        listening.listen(1)
        with socket.create_connection(listening.getsockname()[:2]) as client:
            accepted, _ = listening.accept()
            with accepted:
                assert peers.of_loopback(accepted) == peers.Peer(ME)
                assert client.fileno() >= 0
                empty = tmp_path / "tcp"
                empty.write_bytes(b"sl local\n\xff\xff\n 0: x\n")
                assert peers.of_loopback(accepted, tables={family: empty}) is None
                assert peers.of_loopback(accepted, tables={}) is None


def test_who_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "4711")
    found = peers.trusted_uids(tmp_path)
    assert {0, ME} <= found
    assert (4711 in found) == (ME == 0)
    monkeypatch.setenv("SUDO_UID", "no number")
    assert peers.trusted_uids(tmp_path) == {0, ME}
    assert peers.Peer(4_000_000).name == "uid 4000000"
