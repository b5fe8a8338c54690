"""Which of the offers a device takes, and for every other one precisely why not.

Pure: no clock, no files, no network.  Whoever calls has verified the feed, knows the device's facts
and passes the time.  Reasons that need a policy (deferrals, battery, metered lines, quiet hours)
come from the caller's `gate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bsipatch.feed import paths, rollout
from bsipatch.feed.model import Offer, Withdrawal
from bsipatch.feed.paths import Plan

__all__ = [
    "CODES",
    "Decision",
    "DeviceFacts",
    "Gate",
    "Plan",
    "Reason",
    "decide",
    "effective_floor",
    "refusals",
]

#: every reason that a refusal can have
CODES = (
    "wrong-product",
    "wrong-platform",
    "wrong-architecture",
    "wrong-baseline",
    "drifted",
    "not-in-ring",
    "paused",
    "withdrawn",
    "barred",
    "superseded",
    "rollback",
    "policy",
    "deferred",
    "battery",
    "metered",
    "quiet-hours",
    "space",
    "memory",
    "ticket",
    "expired-feed",
    "installed",
    "contained-in-base",
)

#: what fits every platform or architecture
ANY = "any"
#: with one of these an update may still be a step on the way to a later one
_ON_THE_WAY = frozenset({"rollback"})


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not. code: one of CODES; text: a sentence; evidence: what was compared, for programs."""

    code: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


#: further reasons against an offer, from the device's policy and state
Gate = Callable[[Offer], Iterable[Reason]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device knows of itself. Sizes in bytes, digests in hex.

    device_id         what rollouts are counted by; never sent anywhere
    baseline_digests  of the baseline's tree (with and without extended attributes, say)
    live_digests      of the tree that is live; empty when that is the baseline
    live_letter       the live improvement's letter
    drifted           what of the baseline is not as recorded ("FILE, mode 0664 for 0644"), or ""
    floor             highest sequence ever live for this product and baseline; 0 for none
    barred            ids of updates that are not to come back, and why
    contained         ids and result digests of improvements that the baseline includes
    tickets           ids that a verified ticket of this device allows
    free_space        on the store's disk, what must stay free taken off; None: unknown
    memory            what applying may use; None: unknown
    feed_expired      what of the feed has expired, and when, or ""
    """

    device_id: str
    product: str
    platform: str
    architectures: tuple[str, ...]
    version: str
    build: str | None
    baseline_digests: tuple[str, ...]
    live_digests: tuple[str, ...] = ()
    live_letter: str | None = None
    drifted: str = ""
    floor: int = 0
    barred: Mapping[str, str] = field(default_factory=dict)
    contained: frozenset[str] = frozenset()
    tickets: frozenset[str] = frozenset()
    free_space: int | None = None
    memory: int | None = None
    feed_expired: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    chosen     the way to the newest improvement that this device may have; None: nothing to do
    fallbacks  other ways to the same improvement, the best first
    refused    every other offer with each reason against it
    withdrawn  the offer of the live improvement when it has been taken back
    revert     the notice to act on now: go back to `revert.to`, and tell `revert.reason`
    """

    chosen: Plan | None
    fallbacks: tuple[Plan, ...]
    refused: tuple[tuple[str, Reason], ...]
    withdrawn: Offer | None = None
    revert: Withdrawal | None = None

    def why_not(self, offer_id: str) -> tuple[Reason, ...]:
        """Every reason against one offer."""
        return tuple(reason for name, reason in self.refused if name == offer_id)


def decide(
    offers: Iterable[Offer], device: DeviceFacts, now: int, *, gate: Gate | None = None
) -> Decision:
    """Chooses among the offers of the device's channels; `now` in seconds since 1970.

    The newest improvement (by sequence) wins; of the ways to it, the cheapest by bytes on the wire,
    steps and disk.  Deterministic: the order of `offers` does not matter.
    """
    listed = sorted(offers, key=lambda offer: (offer.sequence, offer.id))
    floor = effective_floor(listed, device)
    # The same update may be listed by several channels; what one of them allows is allowed.
    best: dict[str, tuple[Offer, list[Reason]]] = {}
    for offer in listed:
        found = refusals(offer, device, now, floor, gate)
        known = best.get(offer.id)
        if known is None or _preference(offer, found) < _preference(*known):
            best[offer.id] = (offer, found)
    usable = {key: offer for key, (offer, found) in best.items() if not found}
    steps = [o for o, found in best.values() if {r.code for r in found} <= _ON_THE_WAY]
    plans, short = _plans(list(usable.values()), steps, device)
    chosen = plans[0] if plans else None
    reasons = {key: found for key, (_, found) in best.items()}
    for key, offer in usable.items():
        if chosen is None or offer.id not in {o.id for p in plans for o in p.offers}:
            reasons[key].append(_left_over(offer, chosen, device, short.get(key)))
    withdrawn = _live_withdrawn([offer for offer, _ in best.values()], device)
    notice = withdrawn.withdrawn if withdrawn is not None else None
    acts = notice is not None and notice.revert_installed and now < notice.expires
    return Decision(
        chosen=chosen,
        fallbacks=tuple(plans[1:]),
        refused=tuple((key, reason) for key, found in reasons.items() for reason in found),
        withdrawn=withdrawn,
        revert=notice if acts else None,
    )


def effective_floor(offers: Iterable[Offer], device: DeviceFacts) -> int:
    """The least sequence that the device may go to.

    It is what was ever live, or is now, except that what its publisher withdrew does not hold the
    device up: the signed withdrawal is the one way back that a feed has.
    """
    states: dict[int, bool] = {}
    floor = device.floor
    for offer in offers:
        if offer.product == device.product and offer.baseline.digest in device.baseline_digests:
            good = offer.withdrawn is None
            states[offer.sequence] = states.get(offer.sequence, False) or good
            if offer.result_digest in device.live_digests:
                floor = max(floor, offer.sequence)
    while floor > 0 and states.get(floor, True) is False:
        floor -= 1
    return floor


def refusals(
    offer: Offer, device: DeviceFacts, now: int, floor: int, gate: Gate | None = None
) -> list[Reason]:
    """Every reason against one offer on its own; empty when there is none.

    An update for something else has just the reason that says so.
    """
    if device.feed_expired:
        return [
            Reason(
                "expired-feed",
                f"the feed has expired ({device.feed_expired}); nothing of it is acted on",
                {"expired": device.feed_expired},
            )
        ]
    foreign = _foreign(offer, device) or _already(offer, device) or _baseline(offer, device)
    if foreign is not None:
        return [foreign]
    found = [*_taken_back(offer, device), *_order(offer, floor), *_ring(offer, device, now)]
    found += _room(offer, device)
    if gate is not None:
        found += gate(offer)
    return found


# --- one reason each ---


def _foreign(offer: Offer, device: DeviceFacts) -> Reason | None:
    if offer.product != device.product:
        return _differs("wrong-product", "it is for another product", device.product, offer.product)
    if ANY not in (offer.platform, device.platform) and offer.platform != device.platform:
        return _differs(
            "wrong-platform", "it is for another platform", device.platform, offer.platform
        )
    ours, theirs = set(device.architectures), set(offer.architectures)
    if ours and ANY not in ours | theirs and not ours & theirs:
        return _differs(
            "wrong-architecture",
            "it has no architecture in common with this device",
            ", ".join(device.architectures),
            ", ".join(offer.architectures),
        )
    return None


def _already(offer: Offer, device: DeviceFacts) -> Reason | None:
    if offer.result_digest in device.live_digests:
        return Reason("installed", f"{offer.display_version} is installed", {"id": offer.id})
    contained = device.contained | set(device.baseline_digests)
    if offer.id in contained or offer.result_digest in contained or offer.build == device.build:
        return Reason(
            "contained-in-base",
            f"the installed {device.version} contains it",
            {"version": device.version, "build": device.build},
        )
    return None


def _baseline(offer: Offer, device: DeviceFacts) -> Reason | None:
    base = offer.baseline
    code = "wrong-baseline"
    if base.version != device.version:
        return _differs(code, "it is for another version", device.version, base.version)
    if base.build is not None and base.build != device.build:
        return _differs(code, "it is for another build", device.build, base.build)
    if base.digest not in device.baseline_digests:
        ours = device.baseline_digests[0] if device.baseline_digests else None
        return _differs(code, "its baseline is another tree", ours, base.digest)
    if device.drifted and offer.kind == "delta":
        return Reason("drifted", f"baseline drifted: {device.drifted}", {"drifted": device.drifted})
    return None


def _taken_back(offer: Offer, device: DeviceFacts) -> list[Reason]:
    found = []
    if offer.withdrawn is not None:
        notice = offer.withdrawn
        found.append(
            Reason(
                "withdrawn",
                f"its publisher has withdrawn it: {notice.reason}",
                {"at": notice.at, "expires": notice.expires, "reason": notice.reason},
            )
        )
    why = device.barred.get(offer.id)
    if why is not None:
        found.append(Reason("barred", f"it is barred here: {why}", {"reason": why}))
    if offer.ticket_required and offer.id not in device.tickets:
        found.append(
            Reason(
                "ticket",
                "it needs a ticket for this device, and there is none",
                {"device": device.device_id},
            )
        )
    return found


def _order(offer: Offer, floor: int) -> list[Reason]:
    if offer.sequence >= floor:
        return []
    text = "a later improvement has been installed here, and the feed never leads back"
    return [Reason("rollback", text, {"floor": floor, "sequence": offer.sequence})]


def _ring(offer: Offer, device: DeviceFacts, now: int) -> list[Reason]:
    plan = offer.rollout
    if plan is None or plan.includes(device.device_id, now):
        return []
    percent, begins = plan.percent(now), plan.begins_for(device.device_id)
    evidence = {
        "percent": percent,
        "position": rollout.position(plan.salt, device.device_id),
        "begins": begins,
    }
    if plan.paused:
        text = f"its rollout is paused at {percent} %, and this device is not among them"
        return [Reason("paused", text, evidence)]
    return [Reason("not-in-ring", f"not in your ring yet: {percent} % have it", evidence)]


def _room(offer: Offer, device: DeviceFacts) -> list[Reason]:
    found = []
    if device.free_space is not None and offer.space + offer.size > device.free_space:
        needed = offer.space + offer.size
        found.append(
            Reason(
                "space",
                f"it needs {needed} bytes of disk, {device.free_space} are free",
                {"needed": needed, "free": device.free_space},
            )
        )
    if device.memory is not None and offer.memory > device.memory:
        found.append(
            Reason(
                "memory",
                f"it needs {offer.memory} bytes of memory, {device.memory} may be used",
                {"needed": offer.memory, "allowed": device.memory},
            )
        )
    return found


def _differs(code: str, text: str, expected: Any, found: Any) -> Reason:
    return Reason(code, f"{text}: {found}, not {expected}", {"expected": expected, "found": found})


# --- putting together ---


def _preference(offer: Offer, found: Sequence[Reason]) -> tuple[bool, bool, int]:
    # A withdrawal in any channel counts for all of them.
    return (offer.withdrawn is None, bool(found), -offer.sequence)


def _plans(
    usable: list[Offer], steps: list[Offer], device: DeviceFacts
) -> tuple[list[Plan], dict[str, int]]:
    """The ways to the newest improvement that can be reached, the cheapest first.

    And for each offer that only a way too large for the disk leads to, the bytes it needs.
    """
    short: dict[str, int] = {}
    for sequence in sorted({offer.sequence for offer in usable}, reverse=True):
        goals = [offer for offer in usable if offer.sequence == sequence]
        found = paths.find(goals, steps, device.baseline_digests, device.live_digests)
        if device.free_space is not None:
            for plan in found:
                short.setdefault(plan.offers[-1].id, plan.space + plan.size)
            found = [plan for plan in found if plan.space + plan.size <= device.free_space]
        if found:
            return found, short
    return [], short


def _left_over(
    offer: Offer, chosen: Plan | None, device: DeviceFacts, needed: int | None
) -> Reason:
    """Why an update that nothing speaks against is not taken."""
    if chosen is not None:
        newest = chosen.offers[-1]
        if newest.sequence > offer.sequence or offer.id in newest.supersedes:
            text = f"{newest.display_version} is newer and offered to this device"
            return Reason("superseded", text, {"by": newest.id})
    if needed is not None:
        text = f"the updates that lead to it need {needed} bytes, {device.free_space} are free"
        return Reason("space", text, {"needed": needed, "free": device.free_space})
    parent = offer.stacks_on
    live = device.live_letter or "the baseline"
    needs = parent.letter if parent is not None else "the baseline"
    return Reason(
        "wrong-baseline",
        f"it builds on ({needs}), which is not live, and no chain of updates leads there",
        {"expected": live, "found": needs},
    )


def _live_withdrawn(offers: Sequence[Offer], device: DeviceFacts) -> Offer | None:
    for offer in offers:
        ours = offer.product == device.product and offer.baseline.digest in device.baseline_digests
        if ours and offer.result_digest in device.live_digests and offer.withdrawn is not None:
            return offer
    return None
