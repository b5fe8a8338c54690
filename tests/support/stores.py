"""A small store for tests, whose updates are made by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.store import Store, init, records
from bsipatch.tree import Tree, walk
from tests.support.trees import OLD_FRAMEWORK, write_tree
from tests.support.updates import CREATED, key, make_update

#: a moment at which the updates of tests.support.updates are good
NOW = CREATED + 1000
THIRD = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"<plist>3</plist>\n" * 8}


def new_store(root: Path, base: Path, **options: Any) -> Store:
    """A store of product Demo that trusts key 0."""
    settings: dict[str, Any] = {
        "product": "Demo",
        "version": "26.3.1",
        "build": "25D2128",
        "keys": [key().public],
    }
    return init(root, base, **{**settings, **options})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The baseline tree."""
    return write_tree(tmp_path / "base", OLD_FRAMEWORK)


@pytest.fixture
def store(tmp_path: Path, base: Path) -> Iterator[Store]:
    """A new store."""
    with new_store(tmp_path / "store", base) as made:
        yield made


@pytest.fixture
def update(tmp_path: Path) -> Path:
    """The update (a) for it."""
    return written(tmp_path / "a.bsi", make_update())


def written(path: Path, data: bytes) -> Path:
    """A file with these bytes."""
    path.write_bytes(data)
    return path


def live_tree(store: Store) -> Tree:
    """What is live, as it is on the disk."""
    return walk(store.live_path)


def clean(store: Store) -> None:
    """Nothing half made or unexpected lies in the store."""
    assert records.leftovers(store.fd) == []
    known = {"store.json", "lock", "current", "history.jsonl", "generations"}
    assert set(os.listdir(store.root)) == known
    assert (store.root / "lock").read_bytes() == b""


def raises(error: BaseException) -> Callable[..., None]:
    """A function that raises, whatever it is called with."""

    def raiser(*arguments: object, **named: object) -> None:
        raise error

    return raiser
