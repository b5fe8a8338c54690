"""What the commands of a device's feed share: opening it, and showing offers, ways and reasons."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    from ..device.choosing import Choice
    from ..device.feed_client import FeedClient, FeedView
    from ..device.installing import FellBack, Installer
    from ..device.policy import Policy
    from ..device.transport import Transport
    from ..device.withdrawal import Withdrawn
    from ..feed.decide import Plan
    from ..feed.model import Offer
    from ..store import Store

#: seconds that a command waits for the agent, which refreshes the feed in a moment or two
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """A store, its feed, and what installs from it."""

    store: Store
    feed: FeedClient
    installer: Installer
    policy: Policy
    transport: Transport

    def view(self, *, offline: bool = False, stop: threading.Event | None = None) -> FeedView:
        """The feed as it is now, with a ticket where one is needed, or as it was last."""
        from ..device import service_tickets
        from ..device.logs import Log

        product = self.store.identity.product
        if offline:
            return self.feed.cached(product)
        view, log = self.feed.refresh(product, stop=stop), Log(self.store.root)
        self.installer.allow(
            service_tickets.renew(self.feed, view, self.policy, self.transport, log, time.time())
        )
        return view


@contextmanager
def session(
    store: Path,
    *,
    jobs: int = 1,
    progress: Any = None,
    stop: threading.Event | None = None,
    asked: bool = False,
) -> Iterator[Session]:
    """Opens all three, under the policy in force.

    asked: a person wants it now, which sets aside what only spares people's comfort.  What
    another process changes is waited for, but not for long.  Raises NotFoundError when the
    store follows no feed, ConfigError.
    """
    try:
        import tuf.ngclient  # noqa: F401
        import urllib3  # noqa: F401
    except ImportError as error:
        from ..errors import MissingDependencyError

        raise MissingDependencyError(
            f"following a feed needs {error.name}", hint="pip install 'bsipatch[feed]'"
        ) from error
    from .. import store as stores
    from ..device import policy as policies
    from ..device import ticketing
    from ..device.conditions import ask_all, standard
    from ..device.feed_client import opened
    from ..device.installing import Installer
    from ..device.policy_gate import gate
    from ..limits import DEFAULT

    with (
        stores.Store(store, limits=DEFAULT.but(lock_timeout=_PATIENCE)) as store_opened,
        opened(store_opened.root, limits=store_opened.limits) as feed,
    ):
        policy = policies.load(store_opened.root, limits=store_opened.limits)
        feed.heed(
            channel=policy.channel, mirrors=policy.mirrors, bandwidth=policy.bandwidth or None
        )
        now = time.time()
        answers = ask_all(standard(policy, store_opened.root, limits=store_opened.limits), now)
        with feed.transport(stop=stop) as transport:
            installer = Installer(
                store_opened,
                feed,
                transport,
                work=stores.Work(jobs=jobs, progress=progress, stop=stop),
                gate=gate(policy, answers, now, asked=asked),
                tickets=ticketing.allowed(feed, now),
            )
            yield Session(store_opened, feed, installer, policy, transport)


def moment(seconds: int) -> str:
    """A time for people and programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def offer_facts(offer: Offer) -> dict[str, Any]:
    """An offer for --json."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(offer)
    return facts | {"display": offer.display_version}


def plan_facts(plan: Plan | None) -> dict[str, Any] | None:
    """A way for --json."""
    if plan is None:
        return None
    return {
        "kind": plan.kind,
        "updates": [offer.id for offer in plan.offers],
        "size": plan.size,
        "space": plan.space,
        "memory": plan.memory,
        "cost": plan.cost,
        "result": plan.offers[-1].id,
    }


def feed_facts(view: FeedView) -> dict[str, Any]:
    """Where the answer comes from, for --json."""
    return {
        "channel": view.channel,
        "mirror": view.mirror or None,
        "expires": moment(view.expires),
        "versions": view.versions,
        "problems": [
            {"mirror": p.mirror, "code": p.code, "reason": p.reason} for p in view.problems
        ],
    }


def refusal_facts(choice: Choice) -> list[dict[str, Any]]:
    """Every offer that is not taken, with its reasons, for --json."""
    from ..device.choosing import Refusal

    found = []
    for offer in choice.view.offers:
        reasons = choice.reasons(offer)
        if reasons:
            found.append(Refusal(offer, reasons).as_dict())
    return found


def fallback_facts(fallbacks: tuple[FellBack, ...] | list[FellBack]) -> list[dict[str, Any]]:
    """Ways that did not work, for --json."""
    return [
        {"updates": list(f.ids), "kind": f.kind, "code": f.code, "reason": f.reason}
        for f in fallbacks
    ]


def withdrawn_facts(done: Withdrawn | None) -> dict[str, Any] | None:
    """What was taken off, for --json."""
    if done is None:
        return None
    return {
        "id": done.offer.id,
        "reason": done.notice.reason,
        "was": done.left.display,
        "live": done.live.display,
        "generation": done.live.number,
        "seconds": round(done.seconds, 3),
    }


def withdrawn_lines(done: Withdrawn | None) -> list[str]:
    """What was taken off and why, for people."""
    if done is None:
        return []
    return [
        f"{done.left.display} was withdrawn by its publisher: {done.notice.reason}",
        f"Live again: {done.live.display}, build {done.live.build}",
        *done.notes,
    ]


def problem_lines(view: FeedView) -> list[str]:
    """What mirrors did wrong, for people."""
    return [f"Note: {problem}" for problem in view.problems]


def fallback_lines(fallbacks: tuple[FellBack, ...] | list[FellBack]) -> list[str]:
    """Ways that did not work and why, for people."""
    return [f"Fell back: the {f.kind} way failed: {f.reason}" for f in fallbacks]


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """A way for people."""
    goal = plan.offers[-1]
    words = {
        "direct": "one update, from what is installed",
        "chain": f"{len(plan.offers)} updates, one after the other",
        "full": "one update that needs nothing of what is installed",
    }
    cves = sorted({cve for item in goal.security for cve in item.cves})
    return [
        ("Update", f"{goal.product} {goal.display_version}, build {goal.build}"),
        ("Id", goal.id),
        ("Download", _output.size(plan.size)),
        ("Disk", _output.size(plan.space)),
        ("Way", words[plan.kind]),
        ("Fixes", ", ".join(cves)),
        ("Notes", goal.release_notes or ""),
        ("Needs", " ".join((goal.activation.scope, *goal.activation.processes))),
    ]
