"""The service manager's protocol, spoken to a socket of our own; and low priority."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsipatch.device import notify, priority
from bsipatch.device.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and its address as NOTIFY_SOCKET spells it."""
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("abstract names are Linux's")
        name = f"bsipatch-test-{secrets.token_hex(8)}"
        bound, address = f"\0{name}", f"@{name}"
    else:
        bound = address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(bound)
        listening.settimeout(5)
        yield listening, address


def test_states_arrive(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager

    def heard() -> list[str]:
        return listening.recv(4096).decode().split("\n")

    with Notifier.from_environment({"NOTIFY_SOCKET": address}) as told:
        assert told.connected
        assert told.ready("checking\nsoon")
        assert heard() == ["READY=1", "STATUS=checking soon", f"MAINPID={os.getpid()}"]
        assert told.status("READY=1\nSTOPPING=1")
        assert heard() == ["STATUS=READY=1 STOPPING=1"]  # a status cannot smuggle a field in
        assert told.alive()
        assert heard() == ["WATCHDOG=1"]
        assert told.extend(1.5)
        assert heard() == ["EXTEND_TIMEOUT_USEC=1500000"]
        assert told.stopping()
        assert heard() == ["STOPPING=1", "STATUS="]
    assert not told.alive()


@pytest.mark.parametrize("address", [None, "", "/", "@", "relative", "vsock:2:1", "/nowhere/s"])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    with Notifier(address) as told:
        assert not told.ready()
        assert not told.alive()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], interval: float | None) -> None:
    assert notify.watchdog_interval(environ) == interval


def test_activated_sockets() -> None:
    ours, theirs = os.pipe()
    try:
        os.set_inheritable(ours, True)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
        assert notify.activated_sockets(environ, first_fd=ours) == {"api": [ours]}
        assert not os.get_inheritable(ours)
        unnamed = {name: value for name, value in environ.items() if name != "LISTEN_FDNAMES"}
        assert notify.activated_sockets(unnamed, first_fd=ours) == {"unknown": [ours]}
        for wrong in ({"LISTEN_PID": "1"}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": "-1"}):
            assert notify.activated_sockets({**environ, **wrong}, first_fd=ours) == {}
        assert notify.activated_sockets({}) == {}
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own tools")
def test_low_priority_takes_effect() -> None:
    code = (
        "import os\n"
        "from bsipatch.device.priority import lower\n"
        "done = lower(12)\n"
        "assert done == lower(3), 'never raised again'\n"
        "print(done.nice, done.disk, os.getpriority(os.PRIO_PROCESS, 0),"
        " os.sched_getscheduler(0) == os.SCHED_BATCH)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nice, disk, found, batch = done.stdout.split()
    assert (nice, found, batch) == ("12", "12", "True")
    if os.uname().machine in priority._IOPRIO_SET:
        assert disk == "True"
