"""A device follows a feed: what it takes, what it falls back to, what it gives up and why."""

from __future__ import annotations

from typing import Any

import pytest

from bsipatch.device import installing
from bsipatch.device.installing import Installer
from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    FeedError,
    HealthError,
    NotFoundError,
    PolicyError,
    StoreBusyError,
    SystemCallError,
    TransferError,
    WrongProductError,
)
from bsipatch.feed.decide import Reason
from bsipatch.feed.model import Rollout
from bsipatch.manifest import StacksOn
from bsipatch.store import Store
from tests.support.followed import device, listed, repository, server
from tests.support.mirrors import Handler, Server
from tests.support.stores import THIRD, base, live_tree, store
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, tree_of
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, sha256, update

__all__ = ["base", "device", "repository", "server", "store"]


# --- installing, and the ways there ---


def test_it_installs_what_is_offered(device: Device, repository: Repository) -> None:
    offer, data = update()
    listed(repository, offer, data)
    choice = device.choose()
    assert choice.plan is not None
    assert choice.plan.kind == "direct"
    done = device.install()
    assert device.live == "26.3.1 (a)"
    assert live_tree(device.store).digest == offer.result_digest
    assert done.received == len(data)
    assert device.codes(offer) == {"installed"}
    assert device.install().plan is None
    assert not list(device.downloads.iterdir())


def variants(repository: Repository) -> tuple[Any, Any, bytes, bytes]:
    """(a) as a delta, and the same whole; the delta is the cheaper one."""
    delta, small = update()
    full, large = update(release_notes="https://example.org/the-whole-of-it")
    full = full.__class__(**{**_fields(full), "kind": "full", "space": 1 << 30})
    listed(repository, delta, small)
    listed(repository, full, large)
    return delta, full, small, large


def _fields(offer: Any) -> dict[str, Any]:
    return {name: getattr(offer, name) for name in offer.__struct_fields__}


@pytest.mark.parametrize("fault", ["404", "cut", "damaged"])
def test_a_delta_that_fails_falls_back_to_the_full_one(
    fault: str, device: Device, repository: Repository, server: Server, monkeypatch: Any
) -> None:
    delta, full, small, _ = variants(repository)
    monkeypatch.setattr("bsipatch.device.downloading._PAUSE", 0.0)

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if sha256(small) not in path or body is None:
            return False
        if fault == "404":
            handler.answer(404, b"")
        elif fault == "cut":
            handler.cut(body, 0)
        else:
            handler.answer(200, bytes(len(body)))
        return True

    server.behaviour = behave
    done = device.install()
    assert device.live == "26.3.1 (a)"
    assert done.plan is not None
    assert [offer.id for offer in done.plan.offers] == [full.id]
    (fallback,) = done.fallbacks
    assert fallback.ids == (delta.id,)
    event = next(event for event in device.store.history() if event.event == "fallback")
    assert event.source == delta.id
    assert event.reason == fallback.reason
    assert done.full == full.size


def test_an_update_that_cannot_be_applied_falls_back(
    device: Device, repository: Repository
) -> None:
    delta, full, *_ = variants(repository)
    path = device.store.root / "generations/0/tree/Versions/A/Resources/same.dat"
    path.chmod(0o600)
    choice = device.choose()
    assert "drifted" in {reason.code for reason in choice.reasons(delta)}
    assert "same.dat, mode 0600 for 0644" in choice.reasons(delta)[0].text
    assert choice.plan is not None
    assert [offer.id for offer in choice.plan.offers] == [full.id]


def test_every_way_fails(device: Device, repository: Repository, server: Server) -> None:
    variants(repository)

    def behave(handler: Handler, path: str, body: bytes | None) -> bool:
        if path.startswith("targets/"):
            handler.answer(500, b"")
        return path.startswith("targets/")

    server.behaviour = behave
    with pytest.raises(TransferError, match="500"):
        device.install()
    assert device.live == "26.3.1"
    assert [e.event for e in device.store.history()] == ["init", "fallback", "failed"]


def stacked(repository: Repository, sequence: int = 2) -> tuple[Any, bytes]:
    """(b), which builds on (a)."""
    return update(
        NEW_FRAMEWORK,
        THIRD,
        letter="b",
        build="25D771280b",
        baseline=_base_of(OLD_FRAMEWORK),
        stacks_on=StacksOn(letter="a", digest=tree_of(NEW_FRAMEWORK).digest),
        offer={"sequence": sequence},
    )


def _base_of(contents: Any) -> Any:
    from bsipatch.manifest import Baseline

    return Baseline(version="26.3.1", build="25D2128", digest=tree_of(contents).digest)


def test_a_chain(device: Device, repository: Repository) -> None:
    a, a_data = update()
    b, b_data = stacked(repository)
    listed(repository, a, a_data)
    listed(repository, b, b_data)
    choice = device.choose()
    assert choice.plan is not None
    assert choice.plan.kind == "chain"
    done = device.install()
    assert device.live == "26.3.1 (b)"
    assert len(done.applied) == 2
    assert done.received == len(a_data) + len(b_data)


def test_a_chain_that_breaks_half_way_goes_on_from_there(
    device: Device, repository: Repository
) -> None:
    a, a_data = update()
    b, b_data = stacked(repository)
    listed(repository, a, a_data)
    listed(repository, b, b_data)
    real, failed = installing.stores.apply, []

    def flaky(store: Store, fd: int, offer: Any, view: Any) -> Any:
        if offer.letter == "b" and not failed:
            failed.append(True)
            raise FeedError("something odd")
        return real(store, fd, now=view.now)

    done = device.install(apply=flaky)
    assert device.live == "26.3.1 (b)"
    assert [f.kind for f in done.fallbacks] == ["chain"]
    assert done.plan is not None
    assert done.plan.kind == "direct"


def test_errors_that_no_other_way_mends(device: Device, repository: Repository) -> None:
    variants(repository)
    for error in (CancelledError(), StoreBusyError("x"), HealthError("x"), SystemCallError("x")):

        def failing(*arguments: Any, error: BsipatchError = error) -> Any:
            raise error

        with pytest.raises(type(error)):
            device.install(apply=failing)
    assert "fallback" not in [event.event for event in device.store.history()]


def test_one_by_name(device: Device, repository: Repository) -> None:
    a, a_data = update()
    b, b_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    listed(repository, a, a_data)
    listed(repository, b, b_data)
    assert device.choose().plan.offers[-1].id == b.id
    device.install(a.id)
    assert device.live == "26.3.1 (a)"
    with pytest.raises(NotFoundError):
        device.install("Demo-26.3.1-z-000000000000")


def test_what_the_owner_took_off_comes_back_only_by_name(
    device: Device, repository: Repository
) -> None:
    offer, data = update()
    listed(repository, offer, data)
    device.install()
    device.store.revert(reason="no thanks")
    assert "no thanks" in device.choose().reasons(offer)[0].text
    assert device.install().plan is None
    device.install(offer.id)
    assert device.live == "26.3.1 (a)"


def test_the_policy_has_a_say(device: Device, repository: Repository) -> None:
    offer, data = update()
    listed(repository, offer, data)

    def gate(offer: Any) -> list[Reason]:
        return [Reason("battery", "the battery is at 9 %", {"percent": 9})]

    assert device.install(gate=gate).plan is None
    with pytest.raises(PolicyError, match="9 %"):
        device.install(offer.id, gate=gate)


def test_not_in_the_ring_yet(device: Device, repository: Repository) -> None:
    offer, data = update()
    path = listed(repository, offer, data)
    steps = ((1, NOW), (100, NOW + DAY))
    repository.change(path, rollout=Rollout(start=NOW, steps=steps, salt=offer.id))
    repository.publish()
    choice = device.choose()
    (reason,) = choice.reasons(offer)
    assert reason.code == "not-in-ring"
    assert "1 % have it" in reason.text
    assert reason.evidence["begins"] == NOW + DAY
    device.now += DAY
    device.install()
    assert device.live == "26.3.1 (a)"


def test_fetch_and_then_no_network(
    device: Device, repository: Repository, server: Server, store: Store
) -> None:
    offer, data = update()
    listed(repository, offer, data)
    with device.feed.transport() as transport:
        installer = Installer(store, device.feed, transport)
        plan, files = installer.fetch(device.refresh())
        assert plan is not None
        assert [file.received for file in files] == [len(data)]
        server.files = {}
        done = installer.install(device.feed.cached("Demo"))
    assert done.live.display == "26.3.1 (a)"


def test_a_foreign_one_by_name_brings_nothing_else(device: Device, repository: Repository) -> None:
    offer, data = update()
    listed(repository, offer, data)
    other, other_data = update(product="Other")
    listed(repository, other, other_data)
    with pytest.raises(WrongProductError):
        device.install(other.id)
    assert device.live == "26.3.1"
