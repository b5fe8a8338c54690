"""From a decision to a live improvement: fetch, apply, and where a way fails the next one.

Every fall-back and every failure is written into the store's history with its reason, so
that nobody has to wonder why something large was fetched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from .. import store as stores
from ..errors import (
    BsipatchError,
    CancelledError,
    HealthError,
    NoSpaceError,
    StoreBusyError,
    StoreDamagedError,
    SystemCallError,
)
from ..feed.decide import Gate, Plan
from ..feed.model import Offer
from ..store import Applied, Generation, Store, Work, durable, history
from ..store.applying import Terms
from . import choosing, withdrawal
from .choosing import Choice
from .downloading import Downloads, Fetched
from .feed_client import DOWNLOADS, FeedClient, FeedView
from .mirrors import Mirrors
from .transport import Transport
from .withdrawal import Withdrawn

#: ways that are tried for one improvement
_MOST_WAYS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack:
    """A way that did not work: the ids of its updates, and why."""

    ids: tuple[str, ...]
    kind: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an install did.

    plan       the way that worked; None when nothing was to be done
    applied    of each of its steps
    withdrawn  the improvement that was taken off first, by its publisher's notice
    received   bytes that travelled
    full       bytes that the largest way to the same result would have taken
    """

    plan: Plan | None
    applied: tuple[Applied, ...]
    withdrawn: Withdrawn | None
    fallbacks: tuple[FellBack, ...]
    received: int
    full: int
    live: Generation


#: how one verified payload is applied; a test or an agent may bring its own
Apply = Callable[[Store, int, Offer, FeedView], Applied]


class Installer:
    """Fetches and installs for one store. One thread at a time."""

    def __init__(
        self,
        store: Store,
        feed: FeedClient,
        transport: Transport,
        *,
        work: Work | None = None,
        gate: Gate | None = None,
        tickets: frozenset[str] = frozenset(),
        automatic: bool = False,
        apply: Apply | None = None,
    ) -> None:
        """`automatic`: nobody asked for it; what the owner took off then stays off."""
        self._store, self._feed, self._transport = store, feed, transport
        self._work, self._gate, self._tickets = work or Work(), gate, tickets
        self._apply, self._automatic = apply or self._apply_payload, automatic
        self._mirrors: Mirrors = feed.mirrors()
        self.fallbacks: list[FellBack] = []
        self.received = 0

    def allow(self, tickets: frozenset[str]) -> None:
        """These are the updates that a ticket allows from now on."""
        self._tickets = tickets

    def choose(
        self, view: FeedView, only: str | None, failed: frozenset[tuple[str, ...]] = frozenset()
    ) -> Choice:
        """What is to be done now."""
        return choosing.choose(
            self._store,
            self._feed,
            view,
            gate=self._gate,
            tickets=self._tickets,
            only=only,
            failed=failed,
        )

    def fetch(self, view: FeedView, only: str | None = None) -> tuple[Plan | None, list[Fetched]]:
        """Downloads what would be installed. Raises as install() does."""
        choice = self._wanted(self.choose(view, only), only)
        while (plan := choice.plan) is not None:
            try:
                return plan, [self._fetch(choice.view, offer) for offer in plan.offers]
            except BsipatchError as error:
                choice = self._next(choice, plan, error, only)
        return None, []

    def install(self, view: FeedView, only: str | None = None) -> Installed:
        """Takes off what was withdrawn, then installs what is offered, or exactly `only`.

        Raises what the last way's fault was; for an `only` that this device may not have, an
        error of the first reason's kind; StoreBusyError, HealthError, CancelledError.
        """
        withdrawal.settle(self._store, self._feed, view)
        choice = self.choose(view, only)
        taken_off = None
        if choice.decision.revert is not None and choice.decision.withdrawn is not None:
            taken_off = withdrawal.act(self._store, self._feed, view, choice.decision.withdrawn)
            choice = self.choose(view, only)
        choice = self._wanted(choice, only)
        applied: list[Applied] = []
        plan = choice.plan
        while plan is not None:
            try:
                applied = self._take(choice, plan)
                break
            except BsipatchError as error:
                choice = self._next(choice, plan, error, only)
                plan = choice.plan
        self._tidy(view)
        return Installed(
            plan=plan,
            applied=tuple(applied),
            withdrawn=taken_off,
            fallbacks=tuple(self.fallbacks),
            received=self.received,
            full=_full_size(choice, plan),
            live=self._store.live(),
        )

    def _tidy(self, view: FeedView) -> None:
        """Removes payloads that this device cannot need any more."""
        ours = (self._store.identity.product, self._store.identity.baseline)
        reached = view.reached(self._store.live().tree, ours)
        needed = {
            view.digests[offer.id]
            for offer in view.offers
            if offer.series == ours and offer.sequence > reached and offer.withdrawn is None
        }
        # Another process's download is no reason to call an installed improvement failed.
        with (
            contextlib.suppress(StoreBusyError),
            self._downloads() as downloads,
            self._feed.store.downloading("tidying up"),
        ):
            downloads.keep_only(frozenset(needed))

    # --- one way ---

    def _wanted(self, choice: Choice, only: str | None) -> Choice:
        if only is not None and choice.plan is None:
            refusal = choosing.Refusal(
                choice.view.offer(only), choice.reasons(choice.view.offer(only))
            )
            if refusal.reasons and refusal.reasons[0].code != "installed":
                raise refusal.error()
        return choice

    def _take(self, choice: Choice, plan: Plan) -> list[Applied]:
        # All of it first: a chain that cannot be fetched to its end is not begun.
        for offer in plan.offers:
            self._fetch(choice.view, offer)
        return [self._install_one(choice.view, offer) for offer in plan.offers]

    def _fetch(self, view: FeedView, offer: Offer) -> Fetched:
        with self._downloads() as downloads, self._feed.store.downloading("download"):
            fetched = downloads.get(
                view.wanted(offer), self._mirrors, self._transport, progress=self._work.progress
            )
        self.received += fetched.received
        return fetched

    def _install_one(self, view: FeedView, offer: Offer) -> Applied:
        with self._downloads() as downloads:
            fd = downloads.open_whole(view.wanted(offer))
            if fd is None:
                raise StoreDamagedError(
                    "a payload vanished after it was fetched", file=downloads.folder
                )
            # From here on only the descriptor counts, whatever the name leads to by now.
            try:
                applied = self._apply(self._store, fd, offer, view)
            finally:
                os.close(fd)
        series = offer.series
        self._feed.raise_floor(
            lambda floor: floor.installed(series, offer.sequence, view.channel, view.keys)
        )
        return applied

    def _apply_payload(self, store: Store, fd: int, offer: Offer, view: FeedView) -> Applied:
        terms = Terms(automatic=self._automatic)
        source = f"{offer.id} from {view.mirror or 'this device'}"
        return stores.apply(store, fd, source=source, work=self._work, terms=terms, now=view.now)

    def _downloads(self) -> Downloads:
        return Downloads(
            self._feed.folder / DOWNLOADS, limits=self._store.limits, stop=self._work.stop
        )

    def _next(self, choice: Choice, plan: Plan, error: BsipatchError, only: str | None) -> Choice:
        """The choice without a way that failed, the reason recorded; raises when there is none."""
        final = isinstance(error, CancelledError | StoreBusyError | HealthError) or (
            isinstance(error, SystemCallError) and not isinstance(error, NoSpaceError)
        )
        following = None
        if not final and len(self.fallbacks) < _MOST_WAYS:
            failed = choosing.without(choice, plan)
            # Asked anew, for a chain may have come half way.
            following = self.choose(choice.view, only, failed)
            if following.plan is None:
                following = None
        if isinstance(error, CancelledError | StoreBusyError):
            raise error
        if following is None:
            if final or self.fallbacks:
                self._record("failed", plan, error)
            raise error
        self.fallbacks.append(
            FellBack(
                ids=tuple(offer.id for offer in plan.offers),
                kind=plan.kind,
                code=error.code,
                reason=error.message,
            )
        )
        self._record("fallback", plan, error)
        return following

    def _record(self, kind: str, plan: Plan, error: BsipatchError) -> None:
        store = self._store
        with store.writing(kind), durable.system_calls("writing the history", store.root):
            generation = store.live()
            history.append(
                store.fd,
                history.event(
                    kind,
                    generation.number,
                    display=generation.display,
                    build=generation.build,
                    source=" then ".join(offer.id for offer in plan.offers),
                    error=error.code,
                    reason=error.message,
                ),
            )


def _full_size(choice: Choice, plan: Plan | None) -> int:
    """What a full update to the same result would have been, 0 when the feed has none."""
    if plan is None:
        return 0
    goal = plan.offers[-1]
    return max(
        (
            offer.size
            for offer in choice.view.offers
            if offer.kind == "full" and offer.result_digest == goal.result_digest
        ),
        default=0,
    )
