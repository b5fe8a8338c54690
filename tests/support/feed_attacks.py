"""What the attack tests share: a device that follows one mirror, and what a refusal looks like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from bsipatch.errors import BsipatchError
from bsipatch.store import Store
from tests.support.mirrors import serving
from tests.support.tuf_feeds import Device, Repository, update


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def a(repository: Repository) -> Any:
    """The offer (a), listed in release and published; `path` is where."""
    offer, data = update()
    repository.path = repository.add(offer, data)
    repository.publish()
    return offer


@pytest.fixture
def device(store: Store, repository: Repository) -> Iterator[Device]:
    """A device that follows one mirror, which serves `device.served`."""
    with serving(repository.files) as server, Device(store, repository, server.url) as made:
        made.server = server
        yield made


def untouched(device: Device) -> None:
    """Nothing went live, and no debris lies about."""
    assert device.live == "26.3.1"
    assert not [n for n in os.listdir(device.feed.folder) if n.endswith(".tmp")]


def fails(device: Device, *kinds: type[BsipatchError]) -> BsipatchError:
    """Installing ends in an error of one of these kinds, and the device is as before."""
    with pytest.raises(kinds) as caught:
        device.install()
    untouched(device)
    assert caught.value.message
    return caught.value


def payload_digest(repository: Repository) -> str:
    return str(repository.path.rpartition("/")[2].removesuffix(".bsi"))
