"""What is to be done now: the feed's view and the device's facts put to feed.decide.

The choice between a direct delta, a chain and a full update is decide's, by one number:
bytes on the wire, plus a 64th of the bytes written to disk, plus 64 KiB for each step
(a step costs a request and a start of the applier).  What failed already is left out,
so that the next best way comes up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import (
    BsipatchError,
    ExpiredError,
    NoSpaceError,
    PolicyError,
    RollbackError,
    TreeDriftError,
    WrongBaselineError,
    WrongPlatformError,
    WrongProductError,
)
from ..feed.decide import Decision, DeviceFacts, Gate, Plan, Reason, decide
from ..feed.model import Offer
from ..store import Store
from . import base
from .facts import gather
from .feed_client import FeedClient, FeedView


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the feed means for this device.

    moved   why the managed tree is not the baseline any more, "" while it is: then nothing
            of the feed is acted on until `bsipatch adopt`
    """

    view: FeedView
    facts: DeviceFacts
    decision: Decision
    moved: str = ""
    failed: frozenset[tuple[str, ...]] = frozenset()
    #: the update that was asked for by its id; None for whatever is newest
    goal: Offer | None = None

    @property
    def plan(self) -> Plan | None:
        """The way to take, the cheapest that has not failed; None when nothing is to be done."""
        return next(iter(self.plans), None)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Every way to the newest improvement, the cheapest first."""
        if self.moved or self.decision.chosen is None:
            return ()
        every = (self.decision.chosen, *self.decision.fallbacks)
        return tuple(
            plan
            for plan in every
            if _key(plan) not in self.failed
            and (self.goal is None or _same_end(plan.offers[-1], self.goal))
        )

    def reasons(self, offer: Offer) -> tuple[Reason, ...]:
        """Everything against one offer."""
        if self.moved:
            evidence = {"moved": self.moved}
            return (Reason("wrong-baseline", f"the base has moved on: {self.moved}", evidence),)
        return self.decision.why_not(offer.id)


def choose(
    store: Store,
    feed: FeedClient,
    view: FeedView,
    *,
    gate: Gate | None = None,
    tickets: frozenset[str] = frozenset(),
    memory: int | None = None,
    only: str | None = None,
    failed: frozenset[tuple[str, ...]] = frozenset(),
) -> Choice:
    """Decides; `gate` brings the policy's reasons, `only` wants this very offer (by id or its end).

    Raises StoreDamagedError, SystemCallError; NotFoundError for an `only` that is not listed,
    UsageError for one that several offers end in.
    """
    offers, goal = view.offers, None if only is None else view.offer(only)
    asked = None if goal is None else goal.id
    facts = gather(store, feed, view, tickets=tickets, memory=memory, asked=asked)
    if goal is not None:
        # A chain may lead there, so what comes before it stays; what would outrank it goes.
        offers = tuple(
            offer
            for offer in offers
            if offer.id == goal.id
            or offer.series != goal.series
            or offer.sequence < goal.sequence
            or _same_end(offer, goal)
            or offer.withdrawn is not None
        )
    return Choice(
        view=view,
        facts=facts,
        decision=decide(offers, facts, view.now, gate=gate),
        moved=base.moved(store, feed),
        failed=failed,
        goal=goal,
    )


def without(choice: Choice, plan: Plan) -> frozenset[tuple[str, ...]]:
    """What has failed, with this plan added."""
    return choice.failed | {_key(plan)}


def _same_end(offer: Offer, goal: Offer) -> bool:
    """Whether both lead to the same tree, such as a delta and a full update do."""
    return (offer.series, offer.result_digest) == (goal.series, goal.result_digest)


def _key(plan: Plan) -> tuple[str, ...]:
    return tuple(offer.id for offer in plan.offers)


_ERRORS: Mapping[str, type[BsipatchError]] = {
    "wrong-product": WrongProductError,
    "wrong-platform": WrongPlatformError,
    "wrong-architecture": WrongPlatformError,
    "wrong-baseline": WrongBaselineError,
    "drifted": TreeDriftError,
    "rollback": RollbackError,
    "expired-feed": ExpiredError,
    "space": NoSpaceError,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An offer and everything against it; no reason means that nothing is."""

    offer: Offer
    reasons: tuple[Reason, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        reasons = [
            {"code": r.code, "text": r.text, "evidence": dict(r.evidence)} for r in self.reasons
        ]
        return {"id": self.offer.id, "reasons": reasons}

    def error(self) -> BsipatchError:
        """The first reason as an error of its kind, which names all of them."""
        first = self.reasons[0]
        text = "; ".join(reason.text for reason in self.reasons)
        kind = _ERRORS.get(first.code, PolicyError)
        return kind(text, file=self.offer.id, hint=f"`bsipatch why-not {self.offer.id}` says more.")
