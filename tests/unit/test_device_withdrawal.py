"""A signed withdrawal: who goes back, where to, and what stays barred."""

from __future__ import annotations

from typing import Any

import pytest

from bsipatch.device.feed_client import FeedClient
from bsipatch.errors import CancelledError, PolicyError
from bsipatch.feed.model import Withdrawal
from tests.support.followed import device, listed, repository, server
from tests.support.stores import THIRD, base, store
from tests.support.trees import NEW_FRAMEWORK
from tests.support.tuf_feeds import DAY, NOW, Device, Repository, update

__all__ = ["base", "device", "repository", "server", "store"]


# --- withdrawal ---


def withdraw(repository: Repository, path: str, **more: Any) -> None:
    notice = {"reason": "it eats cookies", "at": NOW, "expires": NOW + DAY}
    repository.change(path, withdrawn=Withdrawal(**{**notice, "revert_installed": True, **more}))
    repository.publish()


def test_withdrawn_before_it_was_installed(device: Device, repository: Repository) -> None:
    offer, data = update()
    withdraw(repository, listed(repository, offer, data))
    assert device.codes(offer) == {"withdrawn"}
    assert device.install().plan is None
    assert device.live == "26.3.1"


def test_withdrawn_afterwards(device: Device, repository: Repository) -> None:
    offer, data = update()
    path = listed(repository, offer, data)
    device.install()
    withdraw(repository, path)
    done = device.install()
    assert done.withdrawn is not None
    assert done.withdrawn.notice.reason == "it eats cookies"
    assert device.live == "26.3.1"
    assert "it eats cookies" in device.store.history()[-1].reason
    (bar,) = device.store.bars()
    assert bar.why == "publisher"
    # The notice goes, the bar stays; by name as well.
    repository.change(path, withdrawn=None)
    repository.publish()
    assert device.codes(offer) == {"barred"}
    with pytest.raises(PolicyError):
        device.install(offer.id)
    # A successor comes through.
    b, b_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    listed(repository, b, b_data)
    device.install()
    assert device.live == "26.3.1 (b)"


@pytest.mark.parametrize(("to", "live"), [("previous", "26.3.1 (a)"), ("baseline", "26.3.1")])
def test_where_a_withdrawal_leads(
    to: str, live: str, device: Device, repository: Repository
) -> None:
    a, a_data = update()
    listed(repository, a, a_data)
    device.install()
    b, b_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    path = listed(repository, b, b_data)
    device.install()
    assert device.live == "26.3.1 (b)"
    assert "rollback" in device.codes(a)
    withdraw(repository, path, to=to)
    done = device.install()
    assert done.withdrawn is not None
    assert done.withdrawn.live.display == live
    # From the baseline the feed leads to (a) again, for what was withdrawn holds nobody up.
    assert device.live == "26.3.1 (a)"
    # That stays so once the notice is gone.
    del repository.delegated["release"].targets[path]
    repository.publish()
    assert device.codes(a) == {"installed"}


def test_the_previous_one_was_withdrawn_too(device: Device, repository: Repository) -> None:
    paths = []
    for sequence, (letter, new) in enumerate((("a", NEW_FRAMEWORK), ("b", THIRD)), 1):
        offer, data = update(
            new=new, letter=letter, build=f"25D{letter}", offer={"sequence": sequence}
        )
        paths.append(listed(repository, offer, data))
        device.install()
    for path in paths:
        withdraw(repository, path)
    device.install()
    assert device.live == "26.3.1"


def test_a_withdrawal_that_leaves_devices_alone(device: Device, repository: Repository) -> None:
    offer, data = update()
    path = listed(repository, offer, data)
    device.install()
    withdraw(repository, path, revert_installed=False)
    assert device.choose().decision.withdrawn is not None
    assert device.install().withdrawn is None
    assert device.live == "26.3.1 (a)"


def test_a_power_cut_before_the_floor_was_written(
    device: Device, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an install the live improvement counts; after a withdrawal the next run settles it."""
    a, a_data = update()
    b, b_data = update(new=THIRD, letter="b", build="25D771280b", offer={"sequence": 2})
    listed(repository, a, a_data)
    path = listed(repository, b, b_data)

    def cut(self: Any, change: Any) -> Any:
        raise CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(FeedClient, "raise_floor", cut)
        with pytest.raises(CancelledError):
            device.install()
    assert device.live == "26.3.1 (b)"
    assert "rollback" in device.codes(a)
    keys = device.refresh_keys()
    device.feed.raise_floor(lambda floor: floor.installed(b.series, 2, "release", keys))
    withdraw(repository, path, to="baseline")
    with monkeypatch.context() as patched:
        patched.setattr(FeedClient, "raise_floor", cut)
        with pytest.raises(CancelledError):
            device.install()
    assert device.live == "26.3.1"
    device.install()
    assert device.live == "26.3.1 (a)"
    del repository.delegated["release"].targets[path]
    repository.publish()
    assert device.feed.floor().sequence(a.series, device.refresh_keys()) == 1
