"""The whole way of an update: published, rolled out, withdrawn, over real connections.

The publisher's own code writes the feed (into a real object store in one test), devices are
real stores that follow it over HTTP.  Nothing but static files is on the server's side.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.choosing import choose
from bsipatch.device.feed_client import FeedClient
from bsipatch.device.following import follow
from bsipatch.device.installing import Installed, Installer
from bsipatch.device.state.config import FeedConfig
from bsipatch.errors import BsipatchError
from bsipatch.feed.decide import DeviceFacts, decide
from bsipatch.feed.rollout import is_member
from bsipatch.publish.feed import edits
from bsipatch.publish.feed.storage import open_storage
from tests.support.feeds import START, Clock, add, described, new_feed, reopen
from tests.support.mirrors import Handler, Server, serving
from tests.support.stores import new_store
from tests.support.trees import OLD_FRAMEWORK, write_tree

DAY = 86400


class Device:
    """A store that follows a feed, by the publisher's clock."""

    def __init__(
        self, root: Path, tree: Path, url: str, pinned: bytes, clock: Clock, **more: Any
    ) -> None:
        settings = {"name": "device", "channel": "release", **more}
        self.store = new_store(root, tree)
        follow(
            root,
            FeedConfig(mirrors=(url,), channel=settings["channel"], proxy=""),
            root=pinned,
            name=settings["name"],
            clock=clock,
        )
        self.feed = FeedClient(root / "feed", clock=clock)

    def update(self) -> Installed:
        with self.feed.transport() as transport:
            view = self.feed.refresh("Demo")
            return Installer(self.store, self.feed, transport).install(view)

    @property
    def live(self) -> str:
        return self.store.live().display

    def close(self) -> None:
        self.feed.store.close()
        self.store.close()


def name_in_ring(salt: str, percent: int, *, inside: bool) -> str:
    """A device's name that is (not) among the first `percent`."""
    names = (f"device-{number}" for number in range(10_000))
    return next(name for name in names if is_member(salt, name, percent) is inside)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "base", OLD_FRAMEWORK)


class Served(dict[str, bytes]):
    """A folder's files as they are now, as the mirror's dictionary."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def get(self, path: str, default: Any = None) -> Any:
        try:
            return (self._folder / path).read_bytes()
        except OSError:
            return default


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """Where the publisher writes, and the address at which devices read."""
    if request.param == "folder":
        folder = tmp_path / "feed"
        with serving(Served(folder)) as server:
            yield open_storage(str(folder)), server.url
        return
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        _make_public_bucket(f"http://{host}:{port}")
        yield open_storage("s3://updates/"), f"http://{host}:{port}/updates/"
    finally:
        server.stop()


def _make_public_bucket(endpoint: str) -> None:
    import json

    import boto3

    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="updates")
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::updates/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket="updates", Policy=json.dumps(policy))


def test_the_life_of_an_update(place: Any, tree: Path, tmp_path: Path) -> None:
    """Beta, promotion in stages, withdrawal: three devices, each where it has to be."""
    storage, url = place
    clock = Clock()
    feed = new_feed(tmp_path, clock=clock, storage=storage)
    pinned = storage.read("metadata/1.root.json", 1 << 20).data
    update = described(tmp_path, "a")
    name = update.offer.id
    early = name_in_ring(name, 5, inside=True)
    late = name_in_ring(name, 5, inside=False)
    devices = {
        "beta": Device(tmp_path / "d1", tree, url, pinned, clock, channel="beta"),
        "early": Device(tmp_path / "d2", tree, url, pinned, clock, name=early),
        "late": Device(tmp_path / "d3", tree, url, pinned, clock, name=late),
    }

    def live() -> dict[str, str]:
        for device in devices.values():
            device.update()
        return {key: device.live for key, device in devices.items()}

    new, old = "26.3.1 (a)", "26.3.1"
    try:
        add(feed, update, "beta")
        assert live() == {"beta": new, "early": old, "late": old}
        feed = reopen(tmp_path, clock=clock, storage=storage)
        feed.edit(lambda draft, now: edits.promote(draft, name, "release", now, percents=(5, 100)))
        assert live() == {"beta": new, "early": new, "late": old}
        clock.now += DAY
        feed = reopen(tmp_path, clock=clock, storage=storage)
        feed.refresh()
        assert live() == {"beta": new, "early": new, "late": new}
        feed = reopen(tmp_path, clock=clock, storage=storage)
        feed.edit(
            lambda draft, now: edits.withdraw(
                draft, name, now, reason="it eats cookies", revert_installed=True, to="baseline"
            )
        )
        assert live() == dict.fromkeys(devices, old)
        assert "it eats cookies" in devices["late"].store.history()[-1].reason
        assert live() == dict.fromkeys(devices, old)
    finally:
        for device in devices.values():
            device.close()


def test_devices_never_see_half_a_publication(tree: Path, tmp_path: Path) -> None:
    """The publisher stops after each step in turn; every device sees the old feed or the new."""
    clock = Clock()
    template = tmp_path / "template"
    template.mkdir()
    feed = new_feed(template, clock=clock)
    pinned = (template / "feed/metadata/1.root.json").read_bytes()
    first = described(template, "a")
    add(feed, first, "release")
    second = described(template, "b")
    seen = []
    for step in range(16):
        own = tmp_path / str(step)
        shutil.copytree(template, own, symlinks=True)
        steps: list[str] = []

        def hook(name: str, steps: list[str] = steps, step: int = step) -> None:
            if len(steps) == step:
                raise KeyboardInterrupt
            steps.append(name)

        finished = False
        try:
            add(reopen(own, clock=clock, hook=hook), second, "release")
            finished = True
        except KeyboardInterrupt:
            pass
        device = Device(tmp_path / f"store-{step}", tree, f"file://{own}/feed/", pinned, clock)
        try:
            view = device.feed.refresh("Demo")
            assert not view.problems
            seen.append(sorted(offer.letter for offer in view.offers))
            device.update()
            assert device.live == f"26.3.1 ({seen[-1][-1]})"
        finally:
            device.close()
        if finished:
            break
    assert ["a"] in seen
    assert seen[-1] == ["a", "b"]
    assert all(letters in (["a"], ["a", "b"]) for letters in seen)


def test_a_server_that_dies_and_comes_back(tree: Path, tmp_path: Path) -> None:
    clock = Clock()
    feed = new_feed(tmp_path, clock=clock)
    add(feed, described(tmp_path, "a"), "release")
    pinned = (tmp_path / "feed/metadata/1.root.json").read_bytes()

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if path.startswith("targets/") and body is not None:
            handler.cut(body, 500)
            return True
        return False

    with serving(Served(tmp_path / "feed"), behave) as server:
        port = server.server_address[1]
        device = Device(tmp_path / "d", tree, server.url, pinned, clock)
        view = device.feed.refresh("Demo")
    try:
        with device.feed.transport() as transport, pytest.raises(BsipatchError):
            Installer(device.store, device.feed, transport).install(view)
        assert device.live == "26.3.1"
        with serving(Served(tmp_path / "feed"), port=port) as server:
            assert isinstance(server, Server)
            device.update()
        assert device.live == "26.3.1 (a)"
    finally:
        device.close()


def test_ten_thousand_devices(tmp_path: Path, tree: Path) -> None:
    """One feed, one run of many deciding devices: shares as planned, and every byte counted."""
    clock = Clock()
    feed = new_feed(tmp_path, clock=clock)
    update = described(tmp_path, "a")
    add(feed, update, "release", percents=(5, 25, 100), every=DAY)
    pinned = (tmp_path / "feed/metadata/1.root.json").read_bytes()
    with serving(Served(tmp_path / "feed")) as server:
        device = Device(tmp_path / "d", tree, server.url, pinned, clock)
        try:
            view = device.feed.refresh("Demo")
            facts = choose(device.store, device.feed, view).facts
        finally:
            device.close()
        requests = len(server.asked)
    fleet = 10_000
    served, have = 0, set[int]()
    for percent, now in ((5, START), (25, START + DAY), (100, START + 2 * DAY)):
        joined = 0
        for number in range(fleet):
            if number in have:
                continue
            plan = decide(view.offers, _as(facts, number), now).chosen
            if plan is not None:
                have.add(number)
                joined += 1
                served += plan.size
        expected = fleet * percent / 100
        # five standard deviations of a binomial share
        slack = 5 * (expected * (1 - percent / 100)) ** 0.5
        assert abs(len(have) - expected) <= slack, (percent, len(have), joined)
    assert len(have) == fleet
    assert served == fleet * update.offer.size
    # What one device asks for: static files, a handful, none of them about the device.
    assert requests <= 8
    assert not [path for path, _ in server.asked if "device" in path]


def _as(facts: DeviceFacts, number: int) -> DeviceFacts:
    from dataclasses import replace

    return replace(facts, device_id=f"device-{number}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_is_ended_by_a_signal(number: int, tree: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it at once with its exit code; what has come stays, whatever ended it."""
    clock = Clock(int(time.time()))
    feed = new_feed(tmp_path, clock=clock)
    add(feed, described(tmp_path, "a", expires=None, now=clock.now), "release")
    pinned = (tmp_path / "feed/metadata/1.root.json").read_bytes()
    begun = threading.Event()

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if not path.startswith("targets/") or body is None or begun.is_set():
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:500])
        begun.set()
        handler.server.done.wait(60)
        handler.close_connection = True
        return True

    with serving(Served(tmp_path / "feed"), behave) as server:
        device = Device(tmp_path / "d", tree, server.url, pinned, clock)
        command = [sys.executable, "-m", "bsipatch", "fetch", "--store", str(tmp_path / "d")]
        environment = {**os.environ, "BSIPATCH_CONFIG": os.devnull}
        with subprocess.Popen(
            [*command, "--json"], env=environment, stdout=subprocess.PIPE
        ) as process:
            assert begun.wait(60)
            part = next(_appears(tmp_path / "d/feed/downloads", "*.part"))
            while part.stat().st_size < 500:
                time.sleep(0.01)
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert json.loads(out)["error"] == "cancelled"
        fetched = json.loads(
            subprocess.run(
                [*command, "--json"], env=environment, check=True, stdout=subprocess.PIPE
            ).stdout
        )
        device.close()
    assert fetched["files"][0]["resumed"] == 500
    assert not list((tmp_path / "d/feed/downloads").glob("*.part"))
    assert not [n for n in os.listdir(tmp_path / "d/feed") if n.endswith(".tmp")]


def _appears(folder: Path, pattern: str) -> Iterator[Path]:
    while True:
        yield from folder.glob(pattern)
        time.sleep(0.01)
