"""A fleet's health as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from bsipatch.fleet.analysis import Fleet, UpdateHealth
from bsipatch.report._bench_words import count
from bsipatch.report._page import page
from bsipatch.report._plots import Point, Series, plot

#: updates drawn in full, points of one line, and classes of colours in the page
_MOST_UPDATES = 12
_MOST_POINTS = 60
_COLOURS = 6
_SIZE = (1020.0, 330.0)
_SMALL = (500.0, 260.0)
_DAY = 86_400.0

#: reason -> how the page says it
REASONS = {
    "not-in-ring": "not in the rollout's ring yet",
    "paused": "the rollout is paused",
    "policy": "held by a policy or switched off",
    "deferred": "deferred by an administrator",
    "quiet-hours": "quiet hours",
    "metered": "on a metered network",
    "battery": "battery too low",
    "idle": "in use",
    "space": "not enough free space",
    "memory": "not enough memory",
    "drifted": "files of the baseline drifted",
    "wrong-baseline": "another baseline",
    "barred": "barred on the device",
    "withdrawn": "withdrawn by its publisher",
    "ticket": "no ticket",
    "expired-feed": "the feed had expired",
    "waiting": "no reason given",
    "owner": "removed by the owner",
    "health": "failed its health check",
    "old-mismatch": "an old file was not the expected one",
    "new-mismatch": "the result was not what was promised",
    "tree-drift": "files drifted",
    "transfer": "a download failed",
    "no-space": "the disk was full",
    "other": "another reason",
}


def render(fleet: Fleet) -> str:
    """The page."""
    paused = [one for one in fleet.updates if one.decision.pause]
    heading = "Fleet report"
    if paused:
        heading = f"Fleet report: pause {len(paused)} of {len(fleet.updates)} updates"
    subtitle = (
        f"{count(fleet.devices, 'device')} in {count(fleet.reports, 'report')}, "
        f"{_day(fleet.first)} to {_day(fleet.last)}"
    )
    if fleet.refused:
        subtitle += f"; {count(fleet.refused, 'line')} that were no reports were left out"
    footer = (
        "Counted are devices that send reports, each by its newest one; those that send none are "
        "in no figure. Times are whole hours. Reports are not signed by known keys: whoever can "
        "deliver reports can bend these figures."
    )
    body = [_versions(fleet), _curves(fleet.updates)]
    body += [_update(one) for one in fleet.updates[:_MOST_UPDATES]]
    if len(fleet.updates) > _MOST_UPDATES:
        rest = len(fleet.updates) - _MOST_UPDATES
        body.append(f"<p>{count(rest, 'older update')} left out.</p>")
    return page(
        "plots",
        "fleet",
        title=escape(heading),
        heading=escape(heading),
        subtitle=escape(subtitle),
        footer=escape(footer),
        body="\n".join(part for part in body if part),
    )


def _section(title: str, explanation: str, *content: str) -> str:
    told = f"<p>{escape(explanation)}</p>" if explanation else ""
    return f"<section>\n<h2>{escape(title)}</h2>{told}\n" + "\n".join(content) + "\n</section>"


def _versions(fleet: Fleet) -> str:
    if not fleet.versions:
        return _section("No reports", "Nothing is known of any device.")
    return _section(
        "What is live", "", _table(("Version", "Devices", ""), _shares(fleet.versions.items()))
    )


def _curves(updates: Sequence[UpdateHealth]) -> str:
    series = []
    for index, one in enumerate(updates[:_COLOURS]):
        points = [
            Point(
                seconds / _DAY,
                100 * count / one.devices,
                f"{one.update}: {count:,} of {one.devices:,} after {duration(seconds)}",
            )
            for seconds, count in _thinned(((0, 0), *one.curve))
        ]
        if len(points) > 1:
            series.append(Series(_short(one.update), f"c{index}", points, line=True))
    if not series:
        return ""
    picture = plot(
        series,
        _SIZE,
        ("days after publication", lambda value: f"{value:g}"),
        ("protected, % of reporting devices", lambda value: f"{value:g}"),
        log=(False, False),
        label="Protected share of the reporting devices over time",
        ends=True,
    )
    return _section("Protected over time", "", picture)


def _update(one: UpdateHealth) -> str:
    decision = one.decision
    css = "verdict pause" if decision.pause else "verdict"
    word, _, rest = decision.text.partition(": ")
    verdict = f'<div class="{css}"><b>{escape(word.capitalize())}</b>: {escape(rest)}</div>'
    saved = f"{100 * (1 - one.received / one.full):.1f} %" if one.full else "-"
    cards = (
        (
            f"{100 * one.protected_share:.1f} %",
            f"protected: {one.protected:,} of {one.devices:,} devices",
        ),
        (duration(one.median_seconds), "from publication to protection, half of them"),
        (
            f"{100 * decision.share:.2f} %",
            f"failed: {decision.failed:,} of {decision.tried:,} that tried",
        ),
        (saved, "of the bytes of full downloads saved"),
        (_rate(one.throughput), "applied a second"),
    )
    figures = "".join(f"<div><b>{escape(a)}</b>{escape(b)}</div>" for a, b in cards)
    parts = [verdict, f'<div class="figures">{figures}</div>', '<div class="grid2">']
    parts += [
        _listed("Not protected, and why", "Reason", one.stragglers),
        _rings(one),
        _listed("Failures", "Reason", one.failures),
        _listed("Routes", "Route", one.routes.items()),
        _listed("Ways that failed before another worked", "Reason", one.fallbacks),
    ]
    return _section(one.update, f"Published {_day(one.published)}", *parts, "</div>")


def _rings(one: UpdateHealth) -> str:
    rows = [
        (f"{ring.percent} %", f"{ring.tried:,}", f"{ring.failed:,}", f"{100 * ring.share:.2f} %")
        for ring in one.rings
    ]
    if not rows:
        return ""
    table = _table(("Ring", "Tried", "Failed", "Share"), [[escape(c) for c in r] for r in rows])
    picture = ""
    if len(one.rings) > 1:
        points = [
            Point(
                ring.percent,
                100 * ring.share,
                f"ring of {ring.percent} %: {ring.failed:,} of {ring.tried:,} failed",
            )
            for ring in one.rings
        ]
        picture = plot(
            [Series("failures", "c0", points, line=True)],
            _SMALL,
            ("ring, % of devices", lambda value: f"{value:g}"),
            ("failed, %", lambda value: f"{value:g}"),
            log=(False, False),
            label="Failure rate against the ring of the rollout",
        )
    return f"<div><h3>Failures by ring</h3>{picture}{table}</div>"


def _listed(title: str, head: str, counts: Iterable[tuple[str, int]]) -> str:
    rows = _shares((REASONS.get(name, name), count) for name, count in counts)
    if not rows:
        return ""
    return f"<div><h3>{escape(title)}</h3>{_table((head, 'Devices', ''), rows)}</div>"


def _shares(counts: Iterable[tuple[str, int]]) -> list[list[str]]:
    rows = list(counts)
    most = max((count for _, count in rows), default=1) or 1
    return [
        [
            escape(name),
            f"{count:,}",
            f'<span class="part" style="width:{max(1, round(120 * count / most))}px"></span>',
        ]
        for name, count in rows
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _thinned(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """No more than a line needs, the first and the last kept."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[last * index // (_MOST_POINTS - 1)] for index in range(_MOST_POINTS)]


def _short(update: str) -> str:
    """An update's name without the digits of its digest, for the end of a line."""
    name = update.rpartition("-")[0] or update
    return name if len(name) <= 20 else name[:19] + "…"


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else "-"


def duration(seconds: float | None) -> str:
    """ "5 h", "3.1 days"."""
    if seconds is None:
        return "-"
    if seconds < 2 * _DAY:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / _DAY:.1f} days"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e6:,.1f} MB"
