"""`check-store --repair --from-feed`: what no generation has comes from the feed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bsipatch.cli import _feed_sources, main
from bsipatch.device import feed_client
from bsipatch.device.feed_client import FeedClient
from bsipatch.manifest import Action, Manifest
from bsipatch.store import Store, check
from tests.support import tuf_feeds
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Server
from tests.support.stores import base, live_tree, store
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.tuf_feeds import Device, Repository
from tests.support.updates import make_manifest, pack

__all__ = ["base", "device", "repository", "server", "store"]

DEMO = "Versions/A/Demo"
SAME = "Versions/A/Resources/same.dat"

Cli = Callable[..., Any]


@pytest.fixture
def cli(device: Device, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """check-store on the device's store, by the device's clock; its JSON."""
    for name in list(os.environ):
        if name.startswith("BSIPATCH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BSIPATCH_CONFIG", os.devnull)

    @contextmanager
    def opened(root: Path, **more: Any) -> Iterator[FeedClient]:
        with FeedClient(root / "feed", clock=lambda: device.now) as feed:
            yield feed

    monkeypatch.setattr(feed_client, "opened", opened)

    def run(*options: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["check-store", "--json", "--store", str(device.store.root), *options])
        out, err = capsys.readouterr()
        assert ended.value.code == code, (out, err)
        return json.loads(out or err)

    return run


def rot(path: Path) -> None:
    """Other bytes, as many."""
    path.write_bytes(path.read_bytes()[::-1])


def rotten(store: Store, number: int, name: str) -> Path:
    path = store.tree_path(number) / name
    rot(path)
    return path


def test_what_the_update_brought_is_fetched_again(
    device: Device, repository: Repository, cli: Cli
) -> None:
    offer, data = tuf_feeds.update()
    listed(repository, offer, data)
    device.install()
    rotten(device.store, 1, DEMO)
    left = cli("--repair", code=33)
    assert [drift["path"] for drift in left["drift"]] == [DEMO]
    assert left["feed"] is None
    told = cli("--repair", "--from-feed")
    assert told["sound"]
    assert told["feed"]["fetched"] == [offer.id]
    assert [(one["generation"], one["path"]) for one in told["repaired"]] == [(1, DEMO)]
    assert live_tree(device.store) == tree_of(NEW_FRAMEWORK)
    assert device.store.history()[-1].event == "repair"


def test_nothing_is_asked_when_nothing_is_missing(
    device: Device, repository: Repository, server: Server, cli: Cli
) -> None:
    listed(repository, *tuf_feeds.update())
    assert cli("--repair", "--from-feed")["feed"] is None
    assert server.asked == []


def test_a_full_update_holds_what_the_baseline_shares_with_it(
    device: Device, repository: Repository, cli: Cli
) -> None:
    made, bodies = _full()
    data = pack(made, bodies)
    offer = tuf_feeds.offer_of(made, data, kind="full")
    delta, delta_data = tuf_feeds.update(letter="b", build="2", offer={"sequence": 2})
    repository.add(delta, delta_data)
    listed(repository, offer, data)
    rotten(device.store, 0, SAME)
    told = cli("--repair", "--from-feed")
    assert told["feed"]["fetched"] == [offer.id], "not the delta, which cannot hold it"
    assert live_tree(device.store) == tree_of(OLD_FRAMEWORK)


def test_a_feed_without_it_is_said_to_be(device: Device, repository: Repository, cli: Cli) -> None:
    listed(repository, *tuf_feeds.update())
    rotten(device.store, 0, SAME)
    told = cli("--repair", "--from-feed", code=33)
    assert "lists no update" in told["feed"]["problem"]
    assert [drift["path"] for drift in told["drift"]] == [SAME]


def test_a_feed_that_cannot_be_asked_loses_nothing(
    device: Device, repository: Repository, server: Server, cli: Cli
) -> None:
    listed(repository, *tuf_feeds.update())
    device.install()
    rotten(device.store, 1, DEMO)
    (device.store.tree_path(1) / "added").write_text("x")
    server.behaviour = lambda handler, path, body: handler.answer(500, b"") or True
    told = cli("--repair", "--from-feed", code=33)
    assert told["feed"]["problem"]
    assert [one["path"] for one in told["repaired"]] == ["added"]
    assert [drift["path"] for drift in told["drift"]] == [DEMO]


def test_a_payload_that_is_not_the_signed_one_is_not_used(
    device: Device, repository: Repository, server: Server, cli: Cli
) -> None:
    offer, data = tuf_feeds.update()
    listed(repository, offer, data)
    device.install()
    for file in device.downloads.glob("*.bsi"):
        file.unlink()
    served = next(name for name, body in server.files.items() if body == data)
    server.files[served] = data[:-1] + bytes([data[-1] ^ 1])
    rotten(device.store, 1, DEMO)
    told = cli("--repair", "--from-feed", code=33)
    assert told["feed"]["problem"]
    assert told["feed"]["fetched"] == []
    assert not check(device.store).sound


def test_the_likelier_and_smaller_come_first(device: Device, repository: Repository) -> None:
    small, small_data = tuf_feeds.update()
    other, other_data = tuf_feeds.update(
        new={**NEW_FRAMEWORK, "more": b"x"}, letter="b", build="2", offer={"sequence": 2}
    )
    full, full_data = tuf_feeds.update(
        new={**NEW_FRAMEWORK, "more": b"y"},
        letter="c",
        build="3",
        offer={"sequence": 3, "kind": "full"},
    )
    for offer, data in ((small, small_data), (other, other_data)):
        repository.add(offer, data)
    listed(repository, full, full_data)
    device.install(small.id)
    chosen = _feed_sources.candidates(device.refresh(), device.store, [0, 1])
    assert [offer.id for offer in chosen] == [small.id, full.id]


def test_it_is_of_use_with_repair_alone(cli: Cli) -> None:
    assert cli("--from-feed", code=2)["error"] == "usage"


def _full() -> tuple[Manifest, list[bytes]]:
    """An update that brings every file of its result whole."""
    from_nothing, bodies = make_manifest({"Empty": b""}, NEW_FRAMEWORK)
    payloads = {action.path: action.payload for action in from_nothing.actions}
    usual, _ = make_manifest()
    actions = tuple(
        Action(
            do="add",
            path=action.path,
            old=action.old,
            new=action.result,
            payload=payloads[action.path],
        )
        if action.result is not None and action.result.kind == "file"
        else action
        for action in usual.actions
    )
    made = msgspec.structs.replace(usual, actions=actions, payloads=from_nothing.payloads)
    return made, bodies
