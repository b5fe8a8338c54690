"""Storages keep their promises: a directory, memory, and a real S3 server on loopback."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from bsipatch.errors import (
    LimitError,
    NotFoundError,
    TransferError,
    UnsafePathError,
    UsageError,
)
from bsipatch.publish.feed.local import LocalStorage
from bsipatch.publish.feed.objects import ObjectStorage
from bsipatch.publish.feed.storage import ConflictError, Storage, open_storage
from tests.support.feeds import add, described, device_sees, new_feed, reopen

PATH = "metadata/1.root.json"
PAYLOAD = "targets/beta/My Kit+x/0123.0123.bsi"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server's address; it ends with the session."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket's address, with credentials that mean nothing anywhere."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{os.urandom(6).hex()}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(f"{s3_server}/{name}", method="PUT")).close()
    return f"s3://{name}/a feed"


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "feed"))
    if request.param == "memory":
        return ObjectStorage(MemoryStore(), "memory")
    return open_storage(request.getfixturevalue("bucket"))


def test_what_is_written_is_read(storage: Storage, tmp_path: Path) -> None:
    assert storage.read(PATH, 100) is None
    assert storage.size(PATH) is None
    version = storage.create(PATH, b"one")
    found = storage.read(PATH, 3)
    assert found is not None
    assert (found.data, found.version) == (b"one", version)
    assert storage.size(PATH) == 3
    assert b"".join(storage.stream(PATH)) == b"one"
    with pytest.raises(LimitError):
        storage.read(PATH, 2)
    file = tmp_path / "payload"
    file.write_bytes(os.urandom(6 << 20))
    storage.upload(PAYLOAD, file)
    assert b"".join(storage.stream(PAYLOAD)) == file.read_bytes()
    storage.copy(PAYLOAD, "targets/release/My Kit+x/0123.0123.bsi")
    assert storage.size("targets/release/My Kit+x/0123.0123.bsi") == 6 << 20
    storage.remove(PAYLOAD)
    storage.remove(PAYLOAD)
    assert storage.size(PAYLOAD) is None
    assert storage.size("targets/release/My Kit+x/0123.0123.bsi") == 6 << 20


def test_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(NotFoundError):
        list(storage.stream(PAYLOAD))
    with pytest.raises(NotFoundError):
        storage.copy(PAYLOAD, PATH)


def test_a_write_has_its_condition(storage: Storage) -> None:
    first = storage.create(PATH, b"one")
    with pytest.raises(ConflictError):
        storage.create(PATH, b"two")
    second = storage.replace(PATH, b"two", first)
    with pytest.raises(ConflictError):
        storage.replace(PATH, b"three", first)
    found = storage.read(PATH, 100)
    assert found is not None
    assert (found.data, found.version) == (b"two", second)
    storage.remove(PATH)
    with pytest.raises((ConflictError, NotFoundError)):
        storage.replace(PATH, b"three", second)


def test_of_many_at_once_one_wins(storage: Storage) -> None:
    version = storage.create(PATH, b"0")
    won: list[int] = []
    gate = threading.Barrier(6)

    def race(number: int) -> None:
        gate.wait()
        try:
            storage.replace(PATH, b"%d" % (number + 1), version)
        except (ConflictError, TransferError):
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if isinstance(storage, LocalStorage) or storage.name == "memory":
        assert len(won) == 1
        found = storage.read(PATH, 9)
        assert found is not None
        assert found.data == b"%d" % (won[0] + 1)
    else:
        assert won, "this server's own checks are not atomic"


def test_a_whole_feed_lives_in_it(storage: Storage, tmp_path: Path) -> None:
    feed = new_feed(tmp_path, storage=storage)
    stored = storage.read("metadata/1.root.json", 1 << 20)
    assert stored is not None
    update = described(tmp_path)
    add(feed, update)
    other = reopen(tmp_path, clock=feed._clock, storage=storage)  # type: ignore[arg-type]
    add(feed, described(tmp_path, "b"))
    with pytest.raises(ConflictError):
        add(other, described(tmp_path, "c"))
    seen = device_sees(storage, stored.data, tmp_path / "keys")
    assert [name.split("-")[2] for name in seen["beta"]] == ["a", "b"]


# --- each on its own ---


def _race_locally(folder: str, version: str, number: int, queue: Any) -> None:
    try:
        LocalStorage(Path(folder)).replace(PATH, b"%d" % number, version)
    except ConflictError:
        queue.put(0)
    else:
        queue.put(1)


def test_processes_on_one_machine_see_each_others_writes(tmp_path: Path) -> None:
    version = LocalStorage(tmp_path).create(PATH, b"0")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=_race_locally, args=(str(tmp_path), version, number, queue))
        for number in range(1, 5)
    ]
    for worker in workers:
        worker.start()
    assert sum(queue.get(timeout=60) for _ in workers) == 1
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a//b", "", ".", "a\0b"])
def test_a_directory_is_not_left(tmp_path: Path, path: str) -> None:
    (tmp_path / "feed").mkdir()
    storage = LocalStorage(tmp_path / "feed")
    for call in (storage.size, storage.remove, lambda p: storage.create(p, b"x")):
        with pytest.raises(UnsafePathError):
            call(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["feed"]


def test_a_copy_without_hard_links_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    storage = LocalStorage(tmp_path)
    storage.create(PAYLOAD, b"data")
    storage.copy(PAYLOAD, "targets/a/b/c")
    assert b"".join(storage.stream("targets/a/b/c")) == b"data"


def test_addresses_that_lead_nowhere() -> None:
    for place in ("ftp://example.org/feed", "memory://x", "file:///x"):
        with pytest.raises(UsageError):
            open_storage(place)


def test_a_store_that_does_not_answer_is_a_failed_transfer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(
        f"http://127.0.0.1:{port}/",
        retry_config={"max_retries": 0},
        client_options={"allow_http": True},
    )
    with pytest.raises(TransferError):
        ObjectStorage(store, "http").read(PATH, 100)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Says nothing."""


def test_a_web_server_can_be_read_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    feed = new_feed(tmp_path)
    add(feed, described(tmp_path))
    folder = str(tmp_path / "feed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Quiet(*args, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        storage = open_storage(f"http://127.0.0.1:{server.server_address[1]}")
        root = (tmp_path / "feed/metadata/1.root.json").read_bytes()
        seen = device_sees(storage, root, tmp_path / "keys")
        assert len(seen["beta"]) == 1
        assert storage.read("metadata/9.root.json", 100) is None
        with pytest.raises(TransferError):
            storage.create("metadata/9.root.json", b"x")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
