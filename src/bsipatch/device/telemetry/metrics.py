"""Metrics for Prometheus: computed from history and log, written as its text format.

Our own few lines rather than the client library: nothing is counted in the
process, so there is no registry to keep, and the agent stays small.  The tests
read the output with the library's parser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...output import OutputFile
from ...store import Event, Generation
from .. import withdrawal
from ..logs import Entry
from ..schedule import Schedule
from . import record
from .timeline import seconds

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: bounds of the histogram of times to protection, in seconds
BUCKETS = (3600, 6 * 3600, 86_400, 3 * 86_400, 7 * 86_400, 14 * 86_400, 30 * 86_400)
#: store events that are a way back, and what took it
_REVERTS = {
    "revert": "owner",
    "remove": "owner",
    "unhealthy": "health",
    "gave-up": "starts",
    "undone": "stopped",
}


@dataclass(slots=True)
class Metrics:
    """Figures of one store. Sizes in bytes, times in seconds; moments since 1970."""

    product: str
    version: str
    letter: str
    build: str
    platform: str
    generation: int
    since: float
    events: Counter[str] = field(default_factory=Counter)
    installations: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    reverts: Counter[str] = field(default_factory=Counter)
    #: what the newest offer waits for now
    waiting: tuple[str, ...] = ()
    received: int = 0
    full: int = 0
    applied: int = 0
    apply_seconds: float = 0.0
    protection: list[float] = field(default_factory=list)
    schedule: Schedule | None = None


def compute(
    live: Generation,
    platform: str,
    history: Iterable[Event],
    entries: Sequence[Entry],
    schedule: Schedule | None = None,
) -> Metrics:
    """All figures of a store from what it and its device have written down."""
    metrics = Metrics(
        product=live.product,
        version=live.version,
        letter=live.letter or "",
        build=live.build or "",
        platform=platform,
        generation=live.number,
        since=seconds(live.created),
        schedule=schedule,
    )
    for event in history:
        metrics.events[event.event] += 1
        if event.event in _REVERTS:
            publisher = event.by == withdrawal.PUBLISHER
            metrics.reverts["publisher" if publisher else _REVERTS[event.event]] += 1
        elif event.event == "refused":
            metrics.refusals[event.error or "unknown"] += 1
        elif event.event == "fallback":
            metrics.fallbacks[event.error or "unknown"] += 1
    for entry, data in record.read(entries):
        _add(metrics, entry, data)
    return metrics


def _add(metrics: Metrics, entry: Entry, data: record.Data) -> None:
    match data:
        case record.Installation():
            metrics.installations[data.route] += 1
            metrics.received += data.received
            metrics.full += data.full
            metrics.applied += data.applied
            metrics.apply_seconds += data.seconds
            metrics.protection.append(max(0.0, seconds(entry.time) - data.published))
            metrics.waiting = ()
        case record.Waiting():
            metrics.waiting = data.reasons
        case _:
            metrics.waiting = ()


def render(metrics: Metrics) -> str:
    """The text format, 0.0.4: for a textfile collector or as the answer of an endpoint."""
    out = _Text()
    info = {
        "product": metrics.product,
        "version": metrics.version,
        "letter": metrics.letter,
        "build": metrics.build,
        "platform": metrics.platform,
    }
    out.family("info", "gauge", "What is live", [(info, 1)])
    own = {"product": metrics.product}
    out.family("generation", "gauge", "Number of the live generation", [(own, metrics.generation)])
    out.family("live_since_seconds", "gauge", "When it was made", [(own, metrics.since)])
    for name, help_text, counter, label in (
        ("events_total", "What happened to the store", metrics.events, "event"),
        ("installations_total", "Updates installed", metrics.installations, "route"),
        ("fallbacks_total", "Ways that failed before another worked", metrics.fallbacks, "reason"),
        ("refusals_total", "Updates refused", metrics.refusals, "reason"),
        ("reverts_total", "Ways back, by what took them", metrics.reverts, "cause"),
    ):
        rows = [({**own, label: key}, count) for key, count in sorted(counter.items())]
        out.family(name, "counter", help_text, rows)
    waits = [({**own, "reason": code}, 1) for code in dict.fromkeys(metrics.waiting)]
    out.family("waiting", "gauge", "What the newest offer waits for", waits)
    saved = max(0, metrics.full - metrics.received)
    for name, help_text, value in (
        ("received_bytes_total", "Bytes downloaded", metrics.received),
        ("full_bytes_total", "Bytes that full downloads would have taken", metrics.full),
        ("saved_bytes_total", "Bytes saved against full downloads", saved),
        ("applied_bytes_total", "Bytes of trees written by applying", metrics.applied),
        ("apply_seconds_total", "Seconds of applying", metrics.apply_seconds),
    ):
        out.family(name, "counter", help_text, [(own, value)])
    out.histogram("protection_seconds", "From publication to protection", own, metrics.protection)
    if metrics.schedule is not None:
        _checks(out, own, metrics.schedule)
    return out.text()


def _checks(out: _Text, own: dict[str, str], schedule: Schedule) -> None:
    for name, help_text, value in (
        ("last_check_seconds", "When the feed was last asked", schedule.last_check),
        ("last_success_seconds", "When it last answered", schedule.last_success),
        ("next_check_seconds", "When it will be asked next", schedule.next_check),
        ("check_failures", "Checks that failed in a row", schedule.failures),
    ):
        if value is not None:
            out.family(name, "gauge", help_text, [(own, value)])


class _Text:
    """Collects families of samples."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, help_text: str, rows: Sequence[tuple[dict[str, str], float]]
    ) -> None:
        if not rows:
            return
        self._head(name, kind, help_text)
        self._lines += [f"bsipatch_{name}{_labels(row)} {_number(value)}" for row, value in rows]

    def histogram(
        self, name: str, help_text: str, own: dict[str, str], values: Sequence[float]
    ) -> None:
        self._head(name, "histogram", help_text)
        for bound in BUCKETS:
            count = sum(value <= bound for value in values)
            self._lines.append(
                f"bsipatch_{name}_bucket{_labels({**own, 'le': f'{bound:.1f}'})} {count}"
            )
        self._lines += [
            f"bsipatch_{name}_bucket{_labels({**own, 'le': '+Inf'})} {len(values)}",
            f"bsipatch_{name}_sum{_labels(own)} {_number(sum(values))}",
            f"bsipatch_{name}_count{_labels(own)} {len(values)}",
        ]

    def _head(self, name: str, kind: str, help_text: str) -> None:
        self._lines.append(f"# HELP bsipatch_{name} {help_text}")
        self._lines.append(f"# TYPE bsipatch_{name} {kind}")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def write(path: Path, metrics: Metrics) -> None:
    """Puts them where a textfile collector looks, whole or not at all.

    Raises NotFoundError, SystemCallError, NoSpaceError.
    """
    with OutputFile(path, mode=0o644) as out:
        out.write(render(metrics).encode())
        out.commit()
