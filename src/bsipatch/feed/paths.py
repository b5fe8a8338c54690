"""Ways from the tree a device has to the one an improvement makes: direct, by a chain, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bsipatch.feed.model import Offer

__all__ = ["Plan", "find"]

#: updates applied one after the other, at most
MOST_STEPS = 8
#: ways that are kept for falling back
_MOST_PLANS = 16
#: what another step costs beside its bytes: a request, a start of the applier
_STEP_COST = 64 << 10
#: bytes written to disk that weigh as much as one on the wire
_DISK_SHARE = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """Updates to apply in this order; the last one's result is the goal."""

    offers: tuple[Offer, ...]

    @property
    def kind(self) -> Literal["direct", "chain", "full"]:
        """One delta, several of them, or one that reads nothing of the baseline's files."""
        if len(self.offers) > 1:
            return "chain"
        return "full" if self.offers[0].kind == "full" else "direct"

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return sum(offer.size for offer in self.offers)

    @property
    def space(self) -> int:
        """Bytes of free disk: every step's, as if none could be collected in between."""
        return sum(offer.space for offer in self.offers)

    @property
    def memory(self) -> int:
        """Peak bytes of memory."""
        return max(offer.memory for offer in self.offers)

    @property
    def cost(self) -> int:
        """What plans are compared by: bytes on the wire, and work and disk as bytes."""
        return self.size + self.space // _DISK_SHARE + _STEP_COST * len(self.offers)


def find(
    goals: Sequence[Offer],
    steps: Sequence[Offer],
    baseline_digests: Sequence[str],
    live_digests: Sequence[str],
) -> list[Plan]:
    """Every way to one of `goals`, the cheapest first, through `steps`; [] when none leads there.

    An update that stacks on nothing can always be applied: the baseline is kept.  One that stacks
    needs exactly its parent's tree live.
    """
    by_result: dict[str, list[Offer]] = {}
    for step in steps:
        by_result.setdefault(step.result_digest, []).append(step)
    found: list[Plan] = []
    # Backwards from the goal, breadth first; a visited tree is not entered twice within one way.
    waiting: list[tuple[Offer, ...]] = [(goal,) for goal in goals]
    budget = 4096
    while waiting and budget:
        budget -= 1
        way = waiting.pop(0)
        first = way[0]
        if first.stacks_on is None:
            if first.baseline.digest in baseline_digests:
                found.append(Plan(way))
            continue
        if first.old_digest in live_digests:
            found.append(Plan(way))
            continue
        if len(way) == MOST_STEPS:
            continue
        seen = {offer.result_digest for offer in way}
        waiting += [
            (before, *way)
            for before in by_result.get(first.old_digest, [])
            if before.result_digest not in seen and before.letter == first.stacks_on.letter
        ]
    found.sort(key=lambda plan: (plan.cost, [offer.id for offer in plan.offers]))
    return found[:_MOST_PLANS]
