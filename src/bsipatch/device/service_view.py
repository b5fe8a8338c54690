"""From what a store, its feed and its policy say to one State. Reads, and changes nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..errors import BsipatchError, PolicyError
from ..feed.decide import Reason, decide
from ..feed.model import Offer
from ..manifest import Activation, Manifest
from ..store import Event, Status, Store, records, trials
from . import choosing, relaunch
from .choosing import Choice
from .conditions import Answer
from .feed_client import FeedClient, FeedView
from .logs import Log
from .policy import Policy, allow_removal, judge
from .policy_gate import as_reason, gate
from .schedule import Schedule
from .service_state import (
    Checks,
    Feed,
    Happened,
    Installed,
    Listed,
    Needs,
    Standing,
    Value,
    Why,
)
from .telemetry import timeline

#: the device has it, or something newer
_HAD = frozenset({"installed", "contained-in-base", "superseded"})
#: what ends by itself or can be ended here: the improvement waits
_WAITS = frozenset(
    {
        "policy",
        "deferred",
        "battery",
        "metered",
        "quiet-hours",
        "space",
        "memory",
        "not-in-ring",
        "paused",
    }
)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.I)
_RANK = {"available": 0, "waiting": 1, "removed": 2, "refused": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The feed put to this device twice.

    alone  what may be done without anyone's doing
    asked  what a person can have now
    """

    view: FeedView
    policy: Policy
    answers: tuple[Answer, ...]
    alone: Choice
    asked: Choice


def look(
    store: Store,
    feed: FeedClient,
    view: FeedView,
    policy: Policy,
    answers: Sequence[Answer],
    tickets: frozenset[str] = frozenset(),
) -> Seen:
    """Puts it. Raises StoreDamagedError, SystemCallError."""
    now = float(view.now)
    alone = choosing.choose(store, feed, view, gate=gate(policy, answers, now), tickets=tickets)
    decision = decide(
        view.offers, alone.facts, view.now, gate=gate(policy, answers, now, asked=True)
    )
    asked = replace(alone, decision=decision)
    return Seen(view=view, policy=policy, answers=tuple(answers), alone=alone, asked=asked)


def stamp(seconds: float | None) -> str | None:
    """A moment as text."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def public(text: str) -> str:
    """Text without what stands before the @ of addresses: the state is for everybody to read."""
    return _USER.sub(r"\1", text)


# --- what is live ---


def installed(status: Status, policy: Policy | None) -> Installed:
    """What is live, and whether it can be taken off."""
    live, manifest = status.generation, status.manifest
    improvement = live.number != records.BASELINE
    why_not = "" if improvement else "no improvement is installed"
    if improvement and policy is not None:
        try:
            allow_removal(policy)
        except PolicyError as error:
            why_not = error.detail
    if policy is None:
        why_not = why_not or "the policy of this device cannot be read"
    return Installed(
        product=live.product,
        display=live.display,
        version=live.version,
        letter=live.letter,
        build=live.build,
        base=status.baseline.display,
        improvement=improvement,
        generation=live.number,
        since=live.created,
        path=str(status.live),
        removable=not why_not,
        why_not_removable=why_not,
        security=manifest.security if manifest else (),
        release_notes=manifest.release_notes if manifest else None,
        activation=manifest.activation if manifest else None,
    )


def needs(store: Store, status: Status, history: Sequence[Event]) -> Needs:
    """What makes the live tree take effect in programs that run already."""
    trial = status.trial
    if trial is not None and trials.waits(trial, trials.boot_id()):
        return Needs(scope="restart", on_trial=True)
    moved = next((e for e in reversed(history) if e.was is not None and e.was != e.live), None)
    if moved is None:
        return Needs(on_trial=trial is not None)
    named, at = _activation(store, status.manifest, moved), timeline.seconds(moved.time)
    if named is None:
        return Needs(on_trial=trial is not None)
    back = moved.event in ("revert", "remove")
    if back and named.scope == "restart" and relaunch.restarted(at) is False:
        return Needs(scope="restart", on_trial=trial is not None)
    processes = relaunch.running(named.processes, at)
    return Needs(
        scope="relaunch" if processes else "", processes=processes, on_trial=trial is not None
    )


def _activation(store: Store, manifest: Manifest | None, moved: Event) -> Activation | None:
    """What the last move needs: as the improvement that went says, or else the one that came."""
    if moved.event in ("revert", "remove") and moved.was is not None:
        with contextlib.suppress(BsipatchError, OSError):
            manifest = store.manifest(moved.was) or manifest
    return manifest.activation if manifest else None


# --- what the feed has ---


def listed(seen: Seen, returns: Callable[[str], bool]) -> tuple[Listed, ...]:
    """Every improvement of this product that the device has not, the newest first.

    `returns(id)`: whether an offer that is only barred would be installed when it is asked for.
    """
    product = seen.asked.facts.product
    groups: dict[tuple[tuple[str, str], str], list[Offer]] = {}
    for offer in seen.view.offers:
        if offer.product == product:
            groups.setdefault((offer.series, offer.result_digest), []).append(offer)
    found: list[tuple[int, Listed]] = []
    for offers in groups.values():
        if any(_codes(seen.asked.reasons(offer)) & _HAD for offer in offers):
            continue
        best = min(
            (_one(seen, offer, returns) for offer in offers),
            key=lambda one: (_RANK[one.standing], len(one.why), one.size, one.id),
        )
        found.append((offers[0].sequence, best))
    found.sort(key=lambda pair: (-pair[0], pair[1].id))
    newest = max((n for n, one in found if one.standing in ("available", "waiting")), default=0)
    return tuple(
        one for n, one in found if n >= newest or one.standing not in ("available", "waiting")
    )


def _one(seen: Seen, offer: Offer, returns: Callable[[str], bool]) -> Listed:
    against = seen.asked.reasons(offer)
    plan = next((p for p in seen.asked.plans if p.offers[-1].id == offer.id), None)
    codes = _codes(against)
    standing: Any = "refused"
    if plan is not None:
        standing = "available"
    elif codes and codes <= _WAITS:
        standing = "waiting"
    elif codes == {"barred"} and returns(offer.id):
        standing = "removed"
    alone = [reason for reason in seen.alone.reasons(offer) if reason.code not in _HAD]
    verdict = judge(
        seen.policy,
        update=offer.id,
        published=offer.published,
        now=seen.view.now,
        answers=seen.answers,
    )
    told = {reason.code for reason in alone}
    alone += [as_reason(wait) for wait in verdict.waits if wait.code not in told]
    return Listed(
        id=offer.id,
        display=offer.display_version,
        build=offer.build,
        standing=standing,
        installable=standing in ("available", "removed"),
        kind=plan.kind if plan else offer.kind,
        size=plan.size if plan else offer.size,
        space=plan.space if plan else offer.space,
        published=stamp(offer.published) or "",
        activation=offer.activation,
        security=offer.security,
        release_notes=offer.release_notes,
        why=tuple(why(reason) for reason in alone),
        by=stamp(verdict.by),
        enforced=verdict.enforced,
    )


def why(reason: Reason) -> Why:
    """A reason for programs and pages."""
    evidence = dict(reason.evidence)
    until = evidence.pop("until", None) or evidence.get("begins")
    known = isinstance(until, int | float) and not isinstance(until, bool)
    return Why(
        code=reason.code,
        text=reason.text,
        until=stamp(until) if known else None,
        evidence=evidence,
    )


def _codes(reasons: Iterable[Reason]) -> frozenset[str]:
    return frozenset(reason.code for reason in reasons)


# --- the rest ---


def standing(
    seen: Seen | None,
    items: Sequence[Listed],
    checks: Checks,
    needed: Needs,
    *,
    follows: bool,
) -> Standing:
    """The device in one word; service_state says which comes first."""
    if not follows:
        return "no-feed"
    if seen is not None and seen.asked.moved:
        return "moved"
    if seen is not None and seen.asked.decision.withdrawn is not None:
        return "withdrawn"
    kinds = {one.standing for one in items}
    for kind in ("available", "waiting"):
        if kind in kinds:
            return kind
    if needed.scope == "restart":
        return "restart"
    if needed.on_trial:
        return "trial"
    if "removed" in kinds:
        return "removed"
    if seen is None or checks.problem or checks.last is None:
        return "unknown"
    return "not-offered" if kinds else "current"


def checks(schedule: Schedule | None, problem: str) -> Checks:
    """What is known of checks; `problem` is why nothing can be said of the feed."""
    if schedule is None:
        return Checks(problem=public(problem))
    return Checks(
        last=stamp(schedule.last_check),
        last_success=stamp(schedule.last_success),
        next=stamp(schedule.next_check) if schedule.next_check else None,
        failures=schedule.failures,
        problem=public(problem or schedule.last_error),
    )


def doubt(seen: Seen) -> str:
    """Why "nothing is offered" would be more than anybody knows; "" when it is not."""
    if seen.asked.facts.feed_expired:
        return (
            f"what the last check brought has expired at {stamp(seen.view.expires)}; "
            "nothing of it is acted on before the next one"
        )
    # A mirror that failed has been made up for by the one that did not; an entry that was
    # left out of what is relied on may be an improvement.
    left_out = [str(p) for p in seen.view.problems if p.mirror == seen.view.mirror]
    return f"not all of the feed can be read here: {'; '.join(left_out)}" if left_out else ""


def feed(view: FeedView) -> Feed:
    """Where the answer comes from."""
    return Feed(
        channel=view.channel,
        mirror=public(view.mirror),
        expires=stamp(view.expires) or "",
        problems=tuple(public(str(problem)) for problem in view.problems),
    )


def values(policy: Policy) -> tuple[Value, ...]:
    """Each value of the policy with its origin."""
    plain = _shown(policy)
    return tuple(
        Value(
            name=name,
            value=plain[name],
            managed=origin.managed,
            rule=origin.rule,
            origins=origin.origins,
            passed_over=tuple((who, _shown(said)) for who, said in origin.passed_over),
        )
        for name, origin in policy.origins.items()
        if name in plain
    )


def _shown(value: Any) -> Any:
    """As JSON has it, and public."""
    return msgspec.json.decode(public(msgspec.json.encode(value).decode()))


def history(events: Iterable[Event], log: Log, most: int) -> tuple[Happened, ...]:
    """The newest `most` entries of the store's history and the device's log, newest first."""
    moments = timeline.merged(events, log.read())
    return tuple(
        Happened(
            time=one.time,
            source=one.source,
            event=one.event,
            text=public(one.text),
            level=one.level,
            update=one.update,
        )
        for one in reversed(moments[-most:] if most else [])
    )


def withdrawn(seen: Seen | None) -> str:
    """Why the live improvement was taken back; "" when it was not."""
    offer = None if seen is None else seen.asked.decision.withdrawn
    return offer.withdrawn.reason if offer is not None and offer.withdrawn is not None else ""
