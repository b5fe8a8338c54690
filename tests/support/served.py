"""A device with a feed and a service over it, for the tests of the service and what shows it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.conditions import Answer, Condition
from bsipatch.device.policy import Policy
from bsipatch.device.service import DeviceService
from bsipatch.device.web.access import Access
from bsipatch.device.web.api import application
from bsipatch.device.web.serving import Server
from tests.support.tuf_feeds import Device, Repository, update

#: what a managed file is owned by in tests, in root's place
ME = os.geteuid()


class Says:
    """A condition that answers what a test wants."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def __call__(self, policy: Policy, root: Path) -> Sequence[Condition]:
        return [_Fixed(answer) for answer in self.answers]


class _Fixed:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @property
    def name(self) -> str:
        return self.answer.name

    def ask(self, now: float) -> Answer:
        return self.answer


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """The folder that stands for /etc/bsipatch."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    return folder


def manage(folder: Path, text: str) -> None:
    """An administrator's file with these lines."""
    path = folder / "managed.toml"
    path.write_text(f'format = 1\norganization = "Example School"\n{text}\n')
    path.chmod(0o644)


@pytest.fixture
def says() -> Says:
    """The conditions: nothing is wrong, until a test says so."""
    return Says()


@pytest.fixture
def service(device: Device, managed: Path, says: Says) -> Iterator[DeviceService]:
    """The service of the device, with the device's clock."""
    made = DeviceService(
        device.store.root,
        clock=lambda: device.now,
        managed=managed,
        managed_owner=ME,
        conditions=says,
    )
    with made:
        yield made


def offer(repository: Repository, **changes: Any) -> str:
    """An improvement (a) in the channel, of which only the offer can be changed; its id."""
    made, data = update(offer=changes)
    repository.add(made, data)
    repository.publish()
    return made.id


class Running:
    """A server of the local interface in a thread. Use it as a context manager."""

    def __init__(self, service: DeviceService, listening: socket.socket, access: Access) -> None:
        self.listening = listening
        self._ready = threading.Event()
        self.server = Server(application(service, access), ready=self._ready.set)
        self._thread = threading.Thread(target=self.server.run, args=([listening],))

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        """Of a server on loopback."""
        return int(self.listening.getsockname()[1])

    @property
    def origin(self) -> str:
        """What its own page comes from."""
        return f"http://127.0.0.1:{self.port}"
