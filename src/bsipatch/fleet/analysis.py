"""What many reports say together: protection over time, stragglers, failures by ring, a pause.

Pure.  Shares are of devices that reported: a device that says nothing is not counted
as protected or unprotected, and the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, median

from .model import FAILURES, Outcome, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """When a rollout is to be paused.

    It is when the share of failures is, with `confidence`, above `failures` (a share of 1),
    and at least `least` devices failed: one unlucky device never stops a fleet, and many
    unlucky ones are not explained away.
    """

    failures: float = 0.02
    least: int = 3
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseDecision:
    """Whether to pause, and the figures it rests on. Shares are parts of 1."""

    update: str
    pause: bool
    failed: int
    tried: int
    share: float
    #: the share is at least this, with the asked confidence
    at_least: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Devices that came in at one percentage of a rollout."""

    percent: int
    tried: int
    failed: int

    @property
    def share(self) -> float:
        """Failures as a part of 1."""
        return self.failed / self.tried if self.tried else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHealth:
    """One update over all reports. Times in seconds."""

    update: str
    published: int
    devices: int
    states: dict[str, int]
    #: (seconds after publication, devices protected by then), growing
    curve: tuple[tuple[int, int], ...]
    #: seconds from publication to protection for half of the protected devices
    median_seconds: float | None
    rings: tuple[Ring, ...]
    #: reason -> devices that do not have it because of it, most first
    stragglers: tuple[tuple[str, int], ...]
    failures: tuple[tuple[str, int], ...]
    fallbacks: tuple[tuple[str, int], ...]
    routes: dict[str, int]
    received: int
    full: int
    #: bytes a second of applying, over all devices; None when nobody applied
    throughput: float | None
    decision: PauseDecision

    @property
    def protected(self) -> int:
        """Devices that have it."""
        return self.states.get("protected", 0)

    @property
    def protected_share(self) -> float:
        """As a part of 1 of the devices that reported about it."""
        return self.protected / self.devices if self.devices else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything that a page or a program needs. `devices` reported, `reports` were read."""

    devices: int
    reports: int
    first: int
    last: int
    updates: tuple[UpdateHealth, ...]
    versions: dict[str, int] = field(default_factory=dict)
    #: lines that were no reports
    refused: int = 0


def newest(reports: Iterable[Report]) -> list[Report]:
    """For each device the newest report; of equally new ones the one with the most to say."""
    kept: dict[str, Report] = {}
    for report in reports:
        known = kept.get(report.device)
        if known is None or _order(report) > _order(known):
            kept[report.device] = report
    return [kept[name] for name in sorted(kept)]


def _order(report: Report) -> tuple[int, int, str]:
    return (report.made, len(report.updates), repr(report))


def analyse(
    reports: Sequence[Report], *, threshold: Threshold | None = None, refused: int = 0
) -> Fleet:
    """Sums up. The order of `reports` does not matter; later ones replace a device's earlier."""
    limit = threshold or Threshold()
    kept = newest(reports)
    by_update: dict[str, list[Outcome]] = {}
    for report in kept:
        for outcome in report.updates:
            by_update.setdefault(outcome.id, []).append(outcome)
    updates = [_health(name, outcomes, limit) for name, outcomes in by_update.items()]
    updates.sort(key=lambda one: (-one.published, one.update))
    versions = Counter(
        f"{report.version} ({report.letter})" if report.letter else report.version
        for report in kept
    )
    return Fleet(
        devices=len(kept),
        reports=len(reports),
        first=min((report.made for report in reports), default=0),
        last=max((report.made for report in reports), default=0),
        updates=tuple(updates),
        versions=dict(_ranked(versions)),
        refused=refused,
    )


def pause_decision(
    update: str, outcomes: Iterable[Outcome], threshold: Threshold | None = None
) -> PauseDecision:
    """Whether an update's rollout is to be paused, for what devices report of it."""
    limit = threshold or Threshold()
    tried = [one for one in outcomes if one.state in FAILURES or one.state == "protected"]
    failed = sum(one.state in FAILURES for one in tried)
    share = failed / len(tried) if tried else 0.0
    low = lower_bound(failed, len(tried), limit.confidence)
    pause = failed >= limit.least and low > limit.failures
    counted = f"{failed:,} of {len(tried):,} devices that tried it failed"
    bound = f"with {100 * limit.confidence:g} % confidence at least {100 * low:.2f} %"
    if pause:
        text = f"pause: {counted}, {bound}, and {100 * limit.failures:.2f} % is allowed"
    elif failed < limit.least:
        text = f"go on: {counted}; fewer than {limit.least} prove nothing"
    else:
        text = f"go on: {counted}, {bound}, and {100 * limit.failures:.2f} % is allowed"
    return PauseDecision(
        update=update,
        pause=pause,
        failed=failed,
        tried=len(tried),
        share=share,
        at_least=low,
        text=text,
    )


def lower_bound(failed: int, tried: int, confidence: float) -> float:
    """Wilson's lower bound of a share, one-sided; 0 when nothing was tried."""
    if not tried or not failed:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    share = failed / tried
    middle = share + z * z / (2 * tried)
    around = z * (share * (1 - share) / tried + z * z / (4 * tried * tried)) ** 0.5
    return float(max(0.0, (middle - around) / (1 + z * z / tried)))


def _health(update: str, outcomes: Sequence[Outcome], limit: Threshold) -> UpdateHealth:
    # Publication is the feed's to say; of several claims the one most devices make.
    published = Counter(one.published for one in outcomes).most_common(1)[0][0]
    times = sorted(
        max(0, one.protected - published)
        for one in outcomes
        if one.state == "protected" and one.protected is not None
    )
    missing = [one for one in outcomes if one.state != "protected"]
    applied = [one for one in outcomes if one.applied and one.apply_ms]
    whole = sum(one.apply_ms for one in applied)
    return UpdateHealth(
        update=update,
        published=published,
        devices=len(outcomes),
        states=dict(_ranked(Counter(one.state for one in outcomes))),
        curve=_curve(times),
        median_seconds=float(median(times)) if times else None,
        rings=_rings(outcomes),
        stragglers=_ranked(Counter(one.reason or one.state for one in missing)),
        failures=_ranked(
            Counter(one.reason or one.state for one in outcomes if one.state in FAILURES)
        ),
        fallbacks=_ranked(Counter(reason for one in outcomes for reason in one.fallbacks)),
        routes=dict(_ranked(Counter(one.route for one in outcomes if one.route))),
        received=sum(one.received for one in outcomes),
        full=sum(one.full for one in outcomes),
        throughput=1000 * sum(one.applied for one in applied) / whole if whole else None,
        decision=pause_decision(update, outcomes, limit),
    )


def _curve(times: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """One point for each different time, at most; the count of all up to it."""
    found: dict[int, int] = {}
    for index, time in enumerate(times):
        found[time] = index + 1
    return tuple(found.items())


def _rings(outcomes: Iterable[Outcome]) -> tuple[Ring, ...]:
    tried: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for one in outcomes:
        if one.state in FAILURES or one.state == "protected":
            tried[one.ring] += 1
            failed[one.ring] += one.state in FAILURES
    return tuple(Ring(percent=p, tried=tried[p], failed=failed[p]) for p in sorted(tried))


def _ranked(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
