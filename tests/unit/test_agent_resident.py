"""The agent that stays: a real process, and what it does with signals and events."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device import policy_files
from bsipatch.device.agent import memo as memos
from bsipatch.device.agent import single
from bsipatch.device.agent.events import Waker
from bsipatch.device.agent.resident import listening
from bsipatch.device.following import follow
from bsipatch.device.state.config import FeedConfig
from bsipatch.errors import SystemCallError, UsageError
from bsipatch.store import Store
from tests.support.mirrors import Server, serving
from tests.support.stores import base, store
from tests.support.tuf_feeds import Repository, update

__all__ = ["base", "store"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors of Linux")


def until(true: Callable[[], Any], what: str) -> Any:
    for _ in range(600):
        found = true()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come")


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    repository = Repository(now=int(time.time()))
    made, data = update(expires=None)
    repository.add(made, data)
    repository.publish()
    with serving(repository.files) as started:
        follow(
            store.root,
            FeedConfig(mirrors=(started.url,), channel="release", proxy=""),
            root=repository.roots[0],
        )
        (store.root / "schedule.json").write_text('{"next_check": 0}')
        yield started


def sleeps(agent: Running) -> bool:
    """Whether it was not woken once in a while."""
    before = agent.status("voluntary_ctxt_switches")
    time.sleep(1)
    return agent.status("voluntary_ctxt_switches") == before


class Running:
    """An agent in a process of its own."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.root = root
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind("")  # a name that the kernel chooses
        self.manager.settimeout(60)
        environment = {n: v for n, v in os.environ.items() if not n.startswith("BSIPATCH")}
        environment |= {
            "BSIPATCH_CONFIG": os.devnull,
            "NOTIFY_SOCKET": "@" + self.manager.getsockname()[1:].decode(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bsipatch", "agent", "--store", str(root), *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, start: str) -> str:
        """The next status that begins so."""
        while True:
            for line in self.manager.recv(8192).decode().splitlines():
                if line.startswith(start):
                    return line

    def status(self, name: str) -> str:
        """A value of the kernel's about the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(name + ":"))

    def children(self) -> list[int]:
        """What it has started and still runs."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def end(self) -> tuple[int, str]:
        """SIGTERM: its exit code and what it said."""
        self.process.terminate()
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def run(*arguments: str) -> Running:
        made.append(Running(store.root, *arguments))
        return made[-1]

    yield run
    for one in made:
        one.manager.close()
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_it_installs_rests_and_ends(
    store: Store, server: Server, start: Callable[..., Running]
) -> None:
    agent = start()
    assert agent.told("READY=") == "READY=1"
    assert agent.told("STATUS=waits") == "STATUS=waits for: nothing but the next check"
    assert store.live().display == "26.3.1 (a)"
    assert until(lambda: not agent.children(), "the worker's end")
    # At rest: little memory, and not one wake-up.
    assert int(agent.status("VmRSS").split()[0]) < 30 * 1024
    assert until(lambda: sleeps(agent), "its rest")
    # Somebody changes a setting, and the agent looks.
    written = memos.load(store.root).written
    policy_files.write_settings(store.root, {"automatic": False})
    assert until(lambda: memos.load(store.root).written > written, "a look after the setting")
    written = memos.load(store.root).written
    agent.process.send_signal(signal.SIGHUP)
    assert until(lambda: memos.load(store.root).written > written, "a look after SIGHUP")
    assert agent.end() == (0, "")
    assert agent.told("STOPPING") == "STOPPING=1"
    os.close(single.lock(store.root))


def test_a_second_agent_is_refused(store: Store, server: Server, start: Any) -> None:
    fd = single.lock(store.root)
    done = subprocess.run(
        [sys.executable, "-m", "bsipatch", "agent", "--once", "--store", str(store.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(fd)
    assert done.returncode == 61
    assert "another agent works on this store" in done.stderr
    assert store.live().number == 0


def test_what_it_started_ends_with_it(
    store: Store, server: Server, start: Callable[..., Running]
) -> None:
    """Killed for good, it leaves no worker behind that works on."""

    def hang(handler: Any, path: str, body: Any) -> bool:
        if path.startswith("targets/"):
            handler.server.done.wait(60)
            return True
        return False

    server.behaviour = hang
    agent = start()
    until(lambda: [path for path, _ in server.asked if path.startswith("targets/")], "a download")
    (worker,) = agent.children()
    agent.process.kill()
    agent.process.wait()
    until(lambda: not Path(f"/proc/{worker}/fd/0").exists(), "the worker's end")
    assert store.live().number == 0
    assert store.unfinished() == ()
    server.behaviour = None
    again = start()
    again.told("STATUS=waits")
    assert store.live().display == "26.3.1 (a)"


def test_prometheus_is_answered_while_it_asks(
    store: Store, server: Server, start: Callable[..., Running]
) -> None:
    with listening("127.0.0.1:0") as free:
        port = free.getsockname()[1]
    agent = start("--metrics", f"127.0.0.1:{port}")
    agent.told("STATUS=waits")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(2):
        text = opener.open(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
        assert 'bsipatch_info{product="Demo",version="26.3.1",letter="a"' in text
        assert len(agent.children()) == 1
    with pytest.raises(urllib.error.HTTPError):
        opener.open(f"http://127.0.0.1:{port}/etc/passwd", timeout=60)
    assert agent.end() == (0, "")


@pytest.mark.parametrize("address", ["9464", "here:", ":1", "127.0.0.1:99999", "127.0.0.1:x"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        listening(address)


def test_an_address_that_is_taken() -> None:
    with listening("127.0.0.1:0") as first, pytest.raises(SystemCallError):
        listening(f"127.0.0.1:{first.getsockname()[1]}")


# --- what ends a wait ---


@pytest.fixture
def waker() -> Iterator[Waker]:
    with Waker([signal.SIGUSR1]) as made:
        yield made


FAR = 4e9


def test_a_moment_ends_a_wait(waker: Waker) -> None:
    assert waker.wait(0).clock
    assert waker.wait(time.time() + 0.05).clock


def test_a_signal_ends_a_wait(waker: Waker) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert waker.wait(FAR).signals == {signal.SIGUSR1}


def test_a_file_ends_a_wait(waker: Waker, tmp_path: Path) -> None:
    waker.watch_folder(tmp_path)
    (tmp_path / "x").write_text("x")
    assert waker.wait(FAR).files
    (tmp_path / "y").write_text("y")
    waker.forget_files()
    assert not waker.wait(time.time() + 0.05).files
    (tmp_path / "x").rename(tmp_path / "z")
    assert waker.wait(FAR).files


def test_the_end_of_a_program_ends_a_wait(waker: Waker) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        waker.watch_pids([process.pid, 2**22 + 1])
        assert not waker.wait(time.time() + 0.05).pids
        process.kill()
        assert waker.wait(FAR).pids == {process.pid}
        waker.watch_pids([])
        assert not waker.wait(time.time() + 0.05).pids


def test_a_connection_ends_a_wait(waker: Waker) -> None:
    with listening("127.0.0.1:0") as door:
        waker.watch_socket(door.fileno(), watched=True)
        with socket.create_connection(door.getsockname()):
            assert waker.wait(FAR).sockets == {door.fileno()}
            waker.watch_socket(door.fileno(), watched=False)
            assert not waker.wait(time.time() + 0.05).sockets


def test_it_wakes_to_feed_a_watchdog(waker: Waker) -> None:
    woken = waker.wait(FAR, 0.05)
    assert (woken.clock, woken.files, woken.signals) == (False, False, set())
