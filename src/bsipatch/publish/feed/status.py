"""What a feed offers to whom at a given time, and what of it expires when."""

from __future__ import annotations

from dataclasses import dataclass

from bsipatch.feed.model import Offer
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.state import State

__all__ = ["ListedOffer", "RoleStatus", "Status", "status_of"]


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role. Times in seconds since 1970; warning is "" while all is well."""

    role: str
    version: int
    expires: int
    threshold: int
    key_ids: tuple[str, ...]
    warning: str


@dataclass(frozen=True, slots=True)
class ListedOffer:
    """One offer. state: "everyone", "rollout", "paused", "withdrawn" or "superseded".

    percent  who is offered it now       next  when who comes next: (percent, time), or None
    """

    offer: Offer
    state: str
    percent: int
    next: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Status:
    """roles in the order of trust; per channel the offers of each (product, version, digest)."""

    roles: tuple[RoleStatus, ...]
    channels: dict[str, dict[tuple[str, str, str], tuple[ListedOffer, ...]]]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody has to do something about."""
        return tuple(role.warning for role in self.roles if role.warning)


def status_of(state: State, now: int) -> Status:
    """The state as people ask for it: newest offers first."""
    channels: dict[str, dict[tuple[str, str, str], tuple[ListedOffer, ...]]] = {}
    for channel, listing in state.listings.items():
        groups: dict[tuple[str, str, str], list[Offer]] = {}
        for offer in listing.values():
            base = offer.baseline
            groups.setdefault((offer.product, base.version, base.digest), []).append(offer)
        channels[channel] = {
            key: tuple(
                _listed(offer, group, now)
                for offer in sorted(group, key=lambda o: (-o.sequence, o.id))
            )
            for key, group in sorted(groups.items())
        }
    return Status(tuple(_roles(state, now)), channels)


def _listed(offer: Offer, group: list[Offer], now: int) -> ListedOffer:
    plan = offer.rollout
    if offer.withdrawn is not None:
        return ListedOffer(offer, "withdrawn", 0, None)
    percent = 100 if plan is None else plan.percent(now)
    ahead = [] if plan is None else [step for step in plan.steps if step[1] > now]
    following = ahead[0] if ahead else None
    if plan is not None and plan.paused:
        return ListedOffer(offer, "paused", percent, None)
    if percent < 100 or following is not None:
        return ListedOffer(offer, "rollout", percent, following)
    if any(_replaces(other, offer, now) for other in group):
        return ListedOffer(offer, "superseded", 0, None)
    return ListedOffer(offer, "everyone", 100, None)


def _replaces(other: Offer, offer: Offer, now: int) -> bool:
    """Whether everybody who may have `offer` is offered `other` instead."""
    if other.withdrawn is not None or other.stacks_on is not None:
        return False
    everybody = other.rollout is None or other.rollout.percent(now) == 100
    newer = other.sequence > offer.sequence or offer.id in other.supersedes
    return everybody and newer and not other.ticket_required


def _roles(state: State, now: int) -> list[RoleStatus]:
    found = []
    root = state.root.signed
    periods = md.periods_of(root)
    for role in ("root", "targets", *state.channels, "snapshot", "timestamp"):
        signed = state.metadata_of(role).signed
        delegator = state.targets.signed if role in state.channels else root
        named = delegator.get_delegated_role(role)
        expires = int(signed.expires.timestamp())
        found.append(
            RoleStatus(
                role=role,
                version=signed.version,
                expires=expires,
                threshold=named.threshold,
                key_ids=tuple(sorted(named.keyids)),
                warning=_warning(role, expires, periods[role], now),
            )
        )
    return found


def _warning(role: str, expires: int, period: int, now: int) -> str:
    left = expires - now
    what = "`bsipatch feed rotate root`" if role == "root" else "`bsipatch feed refresh`"
    if left <= 0:
        told = md.when(expires).isoformat(timespec="seconds")
        return f"{role} expired at {told}: devices act on nothing until {what} has renewed it"
    if left < period // 4:
        return f"{role} expires in {_span(left)}: renew it with {what}"
    return ""


def _span(seconds: int) -> str:
    if seconds >= 2 * md.DAY:
        return f"{seconds // md.DAY} days"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
