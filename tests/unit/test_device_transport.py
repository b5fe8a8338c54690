"""Transfers: rates, redirects, proxies, folders; and payloads that resume, fail over and verify."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import downloading
from bsipatch.device.downloading import Downloads, Fetched, Wanted
from bsipatch.device.mirrors import Mirrors, check_address
from bsipatch.device.transport import HttpStatusError, Meter, Pace, SlowTransferError, Transport
from bsipatch.errors import (
    CancelledError,
    ConfigError,
    LimitError,
    NoSpaceError,
    SystemCallError,
    TransferError,
    UsageError,
)
from bsipatch.limits import Limits
from tests.support.mirrors import POURED, Behaviour, Handler, Server, serving
from tests.support.tuf_feeds import sha256

BODY = bytes(range(251)) * 4000
PATH = f"release/Demo/{sha256(BODY)}.bsi"
SERVED = f"targets/release/Demo/{sha256(BODY)}.{sha256(BODY)}.bsi"
WANTED = Wanted(path=PATH, size=len(BODY), sha256=sha256(BODY))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, duration: float) -> None:
        self.slept.append(duration)
        self.now += duration


# --- rates ---


def test_too_slow_over_a_window() -> None:
    clock = Clock()
    meter = Meter(Pace(min_rate=1000, window=10.0), "x", clock=clock)
    for _ in range(9):
        clock.now += 1.0
        meter.took(100)
    clock.now += 1.0
    with pytest.raises(SlowTransferError, match="expected 1000 bytes a second, found 100 over 10"):
        meter.took(100)


def test_a_burst_does_not_pay_for_a_later_drip() -> None:
    clock = Clock()
    meter = Meter(Pace(min_rate=1000, window=10.0), "x", clock=clock)
    clock.now = 10.0
    meter.took(1_000_000)
    clock.now = 20.0
    with pytest.raises(SlowTransferError):
        meter.took(1)


def test_longer_than_allowed() -> None:
    clock = Clock()
    meter = Meter(Pace(total=60.0), "x", clock=clock)
    clock.now = 61.0
    with pytest.raises(SlowTransferError, match="longer"):
        meter.took(1_000_000)


def test_the_limit_of_bandwidth_waits_and_is_not_called_slow() -> None:
    clock = Clock()
    pace = Pace(min_rate=1000, window=10.0, max_rate=500)
    meter = Meter(pace, "x", clock=clock, sleep=clock.sleep)
    for _ in range(100):
        meter.took(500)
    assert sum(clock.slept) == pytest.approx(100.0)


# --- addresses ---


@pytest.mark.parametrize(
    "address",
    [
        "ftp://x/",
        "https:///x",
        "https://u:p@x/",
        "https://x/?q",
        "file://host/x",
        "file:///a/../b",
        "x",
        "",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError):
        check_address(address)


def test_addresses() -> None:
    assert check_address("https://x/feed") == "https://x/feed/"
    with pytest.raises(ConfigError):
        Mirrors.of([])
    with pytest.raises(UsageError), Transport(proxy="") as transport, transport.open("gopher://x"):
        pass


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(BODY)
    (tmp_path / "link").symlink_to("a b")
    url = f"file://{tmp_path}"
    with Transport(proxy="") as transport:
        with transport.open(f"{url}/a%20b", offset=1000) as reply:
            assert (reply.start, reply.size) == (1000, len(BODY))
            assert b"".join(reply.chunks()) == BODY[1000:]
        for bad in ("/link", "/.", "/x/%2e%2e/a%20b"):
            with pytest.raises(TransferError), transport.open(url + bad):
                pass
        with pytest.raises(HttpStatusError) as caught, transport.open(f"{url}/none"):
            pass
        assert caught.value.status == 404


def test_a_redirect_is_followed_and_a_circle_is_not() -> None:
    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if path == "there":
            return False
        handler.answer(302, b"", {"Location": "/there" if path == "here" else "/round"})
        return True

    with serving({"there": b"x"}, behave) as server, Transport(proxy="") as transport:
        with transport.open(f"{server.url}here") as reply:
            assert b"".join(reply.chunks()) == b"x"
        with (
            pytest.raises(TransferError, match="again and again"),
            transport.open(f"{server.url}round"),
        ):
            pass


def test_a_proxy_is_asked() -> None:
    with (
        serving({"http://feed.example/x": b"by proxy"}) as proxy,
        Transport(proxy=proxy.url) as transport,
        transport.open("http://feed.example/x") as reply,
    ):
        assert b"".join(reply.chunks()) == b"by proxy"


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"http://feed.example/x": b"by proxy"}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Transport() as transport, transport.open("http://feed.example/x") as reply:
            assert b"".join(reply.chunks()) == b"by proxy"


def test_compressed_answers_are_refused() -> None:
    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.answer(200, b"x", {"Content-Encoding": "gzip"})
        return True

    with (
        serving({}, behave) as server,
        Transport(proxy="") as transport,
        pytest.raises(TransferError, match="compresses"),
        transport.open(server.url),
    ):
        pass


def test_nobody_at_home_is_not_called_slow() -> None:
    with serving({}) as server:
        gone = server.url
    with (
        Transport(proxy="") as transport,
        pytest.raises(TransferError, match="no connection: Connection refused") as caught,
        transport.open(gone),
    ):
        pass
    assert not isinstance(caught.value, SlowTransferError)


def test_a_connection_that_ends_is_told_in_words() -> None:
    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.close_connection = True
        return True  # without an answer

    with (
        serving({}, behave) as server,
        Transport(proxy="") as transport,
        pytest.raises(TransferError) as caught,
        transport.open(server.url),
    ):
        pass
    assert caught.value.detail == "Remote end closed connection without response"


def test_stop_ends_a_transfer_that_waits() -> None:
    stop = threading.Event()

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        stop.set()
        handler.server.done.wait(20)
        return True

    with (
        serving({}, behave) as server,
        Transport(proxy="", stop=stop) as transport,
        pytest.raises(CancelledError),
        transport.open(server.url),
    ):
        pass


# --- payloads ---


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    with Downloads(tmp_path / "downloads", sleep=lambda seconds: None) as made:
        yield made


def get(downloads: Downloads, *servers: Server | str, **more: Any) -> Fetched:
    addresses = [s if isinstance(s, str) else s.url for s in servers]
    with Transport(proxy="") as transport:
        return downloads.get(WANTED, Mirrors.of(addresses), transport, **more)


def whole(downloads: Downloads) -> bool:
    """The payload, and nothing else, lies there."""
    names = os.listdir(downloads.folder)
    return names == [f"{WANTED.sha256}.bsi"] and (downloads.folder / names[0]).read_bytes() == BODY


def once(behaviour: Behaviour) -> Behaviour:
    """Misbehaves at the first payload that is asked for, and then no more."""
    done: list[bool] = []

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if done or not path.startswith("targets/"):
            return False
        done.append(True)
        return behaviour(handler, path, body)

    return behave


def cutting(after: int) -> Behaviour:
    """Hangs up after so many bytes."""

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if body is not None:
            handler.cut(body, after)
        return body is not None

    return behave


def test_whole_at_once_and_then_from_here(downloads: Downloads) -> None:
    told: list[tuple[str, int, int]] = []
    with serving({SERVED: BODY}) as server:
        first = get(downloads, server, progress=lambda *facts: told.append(facts))
        second = get(downloads, server)
        assert len(server.payloads_asked()) == 1
    assert (first.received, first.resumed) == (len(BODY), 0)
    assert (second.received, second.mirror) == (0, "")
    assert told[0] == ("downloading", 0, len(BODY))
    assert told[-1] == ("downloading", len(BODY), len(BODY))
    assert whole(downloads)


def test_it_resumes_where_it_broke_off(downloads: Downloads) -> None:
    with serving({SERVED: BODY}, once(cutting(300_000))) as server:
        done = get(downloads, server)
        assert server.payloads_asked() == [None, "bytes=300000-"]
    assert done.received == len(BODY)
    assert "300000" in str(done.problems[0])
    assert whole(downloads)


def test_it_resumes_after_the_server_was_restarted(downloads: Downloads) -> None:
    with serving({SERVED: BODY}, cutting(100_000)) as server:
        port = server.server_address[1]
        with pytest.raises(TransferError), Transport(proxy="") as transport:
            downloads.get(WANTED, Mirrors.of([server.url]), _Once(transport))
    assert (downloads.folder / f"{WANTED.sha256}.part").stat().st_size == 100_000
    with pytest.raises(TransferError):
        get(downloads, f"http://127.0.0.1:{port}/")
    with serving({SERVED: BODY}, port=port) as server:
        done = get(downloads, server)
    assert (done.resumed, done.received) == (100_000, len(BODY) - 100_000)
    assert whole(downloads)


class _Once(Transport):
    """Gives the first answer of another transport, and is then cut off."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(proxy="")
        self._inner, self._asked = inner, 0

    def open(self, url: str, **more: Any) -> Any:
        self._asked += 1
        if self._asked > 1:
            raise TransferError("the network is gone", file=url)
        return self._inner.open(url, **more)


def test_another_mirror_goes_on(downloads: Downloads) -> None:
    with (
        serving({SERVED: BODY}, cutting(0)) as broken,
        serving({SERVED: BODY}, once(cutting(200_000))) as good,
    ):
        done = get(downloads, broken, good)
    assert done.mirror == good.url
    assert {problem.mirror for problem in done.problems} == {broken.url, good.url}
    assert whole(downloads)


def test_a_range_that_the_server_ignores(downloads: Downloads) -> None:
    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if handler.headers.get("Range") is None:
            handler.cut(body or b"", 100_000)
        else:
            handler.serve(body or b"", ranges=False)
        return True

    with serving({SERVED: BODY}, behave) as server:
        get(downloads, server)
    assert whole(downloads)


@pytest.mark.parametrize("obeys", [True, False])
def test_an_object_that_changes_in_mid_resume(obeys: bool, downloads: Downloads) -> None:
    """The server had another object at first; the end is right whether it heeds If-Range or not."""
    other = bytes(len(BODY))

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        span = handler.headers.get("Range")
        if span is None and len(handler.server.asked) == 1:
            handler.cut(other, 100_000)
        elif span is None or obeys:
            handler.serve(BODY)
        else:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            content = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
            handler.answer(206, BODY[start:], {"Content-Range": content, "ETag": '"new"'})
        return True

    with serving({SERVED: BODY}, behave) as server:
        get(downloads, server)
    assert whole(downloads)


def test_a_part_of_something_else_is_given_up(downloads: Downloads) -> None:
    part = downloads.folder / f"{WANTED.sha256}.part"
    for junk in (b"junk" * 100, BODY[:-1] + b"?", BODY + b"more", b"x" * len(BODY)):
        part.write_bytes(junk)
        with serving({SERVED: BODY}) as server:
            get(downloads, server)
        assert whole(downloads)
        (downloads.folder / f"{WANTED.sha256}.bsi").unlink()


@pytest.mark.parametrize("span", ["bytes 5-9/10", "bytes 0-1/2", "nonsense", None])
def test_a_range_that_nobody_asked_for(span: str | None, downloads: Downloads) -> None:
    (downloads.folder / f"{WANTED.sha256}.part").write_bytes(BODY[:1000])

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if handler.headers.get("Range") is None:
            return False
        handler.answer(206, BODY[1000:], {} if span is None else {"Content-Range": span})
        return True

    with serving({SERVED: BODY}, behave) as server, pytest.raises(TransferError, match="range"):
        get(downloads, server)


def test_not_there(downloads: Downloads) -> None:
    with serving({}) as server, pytest.raises(TransferError, match="404") as caught:
        get(downloads, server)
    assert caught.value.message.count("the transfer failed") == 1
    assert not list(downloads.folder.glob("*.bsi"))


def test_another_size_is_refused_before_a_byte(downloads: Downloads) -> None:
    with serving({SERVED: BODY + b"x"}) as server, pytest.raises(TransferError, match="another"):
        get(downloads, server)


def test_more_than_was_signed(downloads: Downloads) -> None:
    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        handler.pour(body or b"")
        return True

    with serving({SERVED: BODY}, behave) as server, pytest.raises(TransferError, match="more than"):
        get(downloads, server)
    assert max(server.poured) < POURED
    assert all(file.stat().st_size <= len(BODY) for file in downloads.folder.iterdir())


def test_a_whole_file_is_verified_each_time(downloads: Downloads) -> None:
    with serving({SERVED: BODY}) as server:
        path = get(downloads, server).path
        path.write_bytes(bytes(len(BODY)))
        assert downloads.open_whole(WANTED) is None
        assert not path.exists()
        get(downloads, server)
        path.unlink()
        path.symlink_to("/etc/passwd")
        with pytest.raises(SystemCallError):
            downloads.open_whole(WANTED)


def test_names_are_digests(downloads: Downloads) -> None:
    for bad in ("../x", "A" * 64, ""):
        with pytest.raises(UsageError):
            downloads.path(bad)


def test_limits(tmp_path: Path) -> None:
    with Transport(proxy="") as transport, serving({SERVED: BODY}) as server:
        for limits, error in (
            (Limits(max_package_size=10), LimitError),
            (Limits(reserve_space=1 << 62), NoSpaceError),
        ):
            with Downloads(tmp_path / "d", limits=limits) as downloads, pytest.raises(error):
                downloads.get(WANTED, Mirrors.of([server.url]), transport)


def test_a_failed_sync_throws_the_part_away(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with serving({SERVED: BODY}) as server:
        monkeypatch.setattr(downloading.os, "fsync", failing)
        with pytest.raises(SystemCallError):
            get(downloads, server)
    assert not list(downloads.folder.glob("*.part"))


def test_only_what_is_needed_is_kept(downloads: Downloads) -> None:
    keep, drop = "a" * 64, "b" * 64
    for name in (f"{keep}.bsi", f"{drop}.bsi", f"{drop}.part", f"{drop}.json"):
        (downloads.folder / name).write_bytes(b"1234")
    assert downloads.keep_only(frozenset({keep})) == 12
    assert os.listdir(downloads.folder) == [f"{keep}.bsi"]


def test_stop_between_tries(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with Downloads(tmp_path / "d", stop=stop) as downloads, pytest.raises(CancelledError):
        downloads._pause(10)
