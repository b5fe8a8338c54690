"""A device, its feed and its mirror, for the unit tests of the device's side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bsipatch.store import Store
from tests.support.mirrors import Server, serving
from tests.support.tuf_feeds import Device, Repository


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with serving(repository.files) as made:
        yield made


@pytest.fixture
def device(store: Store, repository: Repository, server: Server) -> Iterator[Device]:
    with Device(store, repository, server.url) as made:
        yield made


def listed(repository: Repository, offer: Any, data: bytes) -> str:
    """Adds and publishes an update; its path."""
    path = repository.add(offer, data)
    repository.publish()
    return path
