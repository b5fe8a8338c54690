"""A store, its feed and an installer under the policy in force, for work that nobody asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ... import store as stores
from ...limits import Limits
from ...store import Store
from .. import service_tickets
from ..conditions import ask_all
from ..feed_client import FeedClient, FeedView, opened
from ..installing import Installer
from ..policy_gate import gate
from ..service import Conditions, DeviceService


@dataclass(frozen=True, slots=True)
class Reached:
    """All of it, open. The view is that of the last check."""

    store: Store
    feed: FeedClient
    view: FeedView
    installer: Installer


@contextmanager
def reach(
    service: DeviceService,
    conditions: Conditions,
    now: float,
    *,
    limits: Limits,
    stop: threading.Event,
) -> Iterator[Reached]:
    """Opens it, with a ticket where one is needed and given.

    Raises ConfigError, NotFoundError, ExpiredError, StoreBusyError, CancelledError.
    """
    policy = service.policy()
    with (
        Store(service.root, limits=limits) as store,
        opened(service.root, clock=lambda: now, limits=limits) as feed,
    ):
        feed.heed(
            channel=policy.channel, mirrors=policy.mirrors, bandwidth=policy.bandwidth or None
        )
        view = feed.cached(service.product)
        answers = ask_all(conditions(policy, service.root), now)
        with feed.transport(stop=stop) as transport:
            installer = Installer(
                store,
                feed,
                transport,
                work=stores.Work(stop=stop),
                gate=gate(policy, answers, float(view.now)),
                tickets=service_tickets.renew(feed, view, policy, transport, service.log, now),
                automatic=True,
            )
            yield Reached(store, feed, view, installer)
