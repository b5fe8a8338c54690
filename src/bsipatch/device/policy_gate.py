"""Policy and conditions as the gate that feed.decide asks about every offer."""

from __future__ import annotations

from collections.abc import Sequence

from ..feed.decide import CODES, Gate, Reason
from ..feed.model import Offer
from .conditions import Answer
from .policy import Policy, Wait, judge

#: found by feed.decide itself, with the offer's own needs
_NOT_OURS = frozenset({"space", "memory"})


def gate(policy: Policy, answers: Sequence[Answer], now: float, *, asked: bool = False) -> Gate:
    """Reasons against installing an offer now, by policy.judge().

    A busy machine is none of them: it puts off the installing, not the choice or the
    download, and whoever installs asks for it again.
    """

    def reasons(offer: Offer) -> list[Reason]:
        verdict = judge(
            policy,
            update=offer.id,
            published=offer.published,
            now=now,
            answers=answers,
            asked=asked,
        )
        return [
            as_reason(wait)
            for wait in verdict.waits
            if wait.code in CODES and wait.code not in _NOT_OURS
        ]

    return reasons


def as_reason(wait: Wait) -> Reason:
    """What an installation waits for, in the feed's terms."""
    evidence = dict(wait.evidence)
    if wait.until is not None:
        evidence["until"] = wait.until
    return Reason(wait.code, wait.text, evidence)
