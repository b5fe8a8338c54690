"""Plots as inline SVG: scatter, lines and dots, on linear or logarithmic axes.

A series is drawn in the CSS class it names; the page decides on the colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from bsipatch.report._svg import Box, num, text

Format = Callable[[float], str]
_CHAR = 6.3  # about the width of a character of a label


@dataclass(frozen=True, slots=True)
class Point:
    """A value, what to show when the pointer rests on it, and a label beside it."""

    x: float
    y: float
    title: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind. `css` is one class or several."""

    name: str
    css: str
    points: Sequence[Point]
    line: bool = False
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to places. Logarithmic ones need positive values."""

    low: float
    high: float
    start: float
    end: float
    label: str
    say: Format
    log: bool = True
    marks: tuple[float, ...] = ()

    def at(self, value: float) -> float:
        """Where a value lies."""
        low, high, here = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.log
            else (self.low, self.high, value)
        )
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values to mark."""
        if self.marks:
            return [mark for mark in self.marks if self.low <= mark <= self.high]
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    every = max(1, round(decades / 10))
    steps = (1.0,) if decades > 3.2 else (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
    found = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1, every)
        for step in steps
    ]
    return [tick for tick in found if low <= tick * 1.0001 and tick <= high * 1.0001]


def _ticks(low: float, high: float) -> list[float]:
    span = high - low
    if span <= 0:
        return [low]
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(unit * k for k in (1, 2, 5, 10) if span / (unit * k) <= 5.5)
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def bounds(values: Sequence[float], log: bool = True, room: float = 0.08) -> tuple[float, float]:
    """A range that holds the values with some room on both sides."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** room, 1.15)
        return low / factor, high * factor
    return min(low, 0.0), high * (1 + room) if high > 0 else 1.0


def frame(x: Axis, y: Axis) -> str:
    """Grid lines, tick labels and axis titles."""
    drawn = []
    for tick in x.ticks():
        at = x.at(tick)
        drawn.append(_line(at, y.start, at, y.end, "grid"))
        drawn.append(text(at, y.start + 17, x.say(tick), "tick", "middle"))
    for tick in y.ticks():
        at = y.at(tick)
        drawn.append(_line(x.start, at, x.end, at, "grid"))
        drawn.append(text(x.start - 8, at + 4, y.say(tick), "tick", "end"))
    drawn.append(_line(x.start, y.start, x.end, y.start, "axis"))
    drawn.append(text((x.start + x.end) / 2, y.start + 36, x.label, "title", "middle"))
    drawn.append(text(x.start - 44, y.end - 13, y.label, "title"))
    return "".join(drawn)


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{num(x1)}" y1="{num(y1)}" x2="{num(x2)}" y2="{num(y2)}"/>'


def mark(x: float, y: float, css: str, title: str, ours: bool) -> str:
    """A dot; a larger one with a rim for ours."""
    radius, extra = (6.5, " ours") if ours else (5, "")
    return (
        f'<circle class="{css}{extra}" cx="{num(x)}" cy="{num(y)}" r="{num(radius)}">'
        f"<title>{escape(title)}</title></circle>"
    )


@dataclass(slots=True)
class Labels:
    """Puts labels beside points so that none covers another label or a point."""

    box: Box
    taken: list[Box] = field(default_factory=list)

    def block(self, x: float, y: float, radius: float = 7) -> None:
        """Keeps a point's place free."""
        self.taken.append(Box(x - radius, y - radius, 2 * radius, 2 * radius))

    def block_line(self, places: Sequence[tuple[float, float]]) -> None:
        """Keeps a line's places free."""
        for (x1, y1), (x2, y2) in pairwise(places):
            steps = max(1, int(math.hypot(x2 - x1, y2 - y1) / 6))
            for n in range(steps + 1):
                self.block(x1 + (x2 - x1) * n / steps, y1 + (y2 - y1) * n / steps, 2)

    def place(self, x: float, y: float, words: str, css: str) -> str:
        """The label at the first free of the places around a point, or none."""
        width = len(words) * _CHAR
        places = [(x + 11, y + 4, "start"), (x - 11, y + 4, "end")]
        for far in (15, 23, 31):
            places += [
                (x, y - far + 4, "middle"),
                (x, y + far + 2, "middle"),
                (x + 8, y - far + 6, "start"),
                (x + 8, y + far, "start"),
                (x - 8, y - far + 6, "end"),
                (x - 8, y + far, "end"),
            ]
        for left, base, anchor in places:
            start = left - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = Box(start, base - 10, width, 13)
            if self._inside(box) and not any(_overlap(box, other) for other in self.taken):
                self.taken.append(box)
                return text(left, base, words, css, anchor)
        return ""

    def _inside(self, box: Box) -> bool:
        mine = self.box
        return (
            box.x >= mine.x
            and box.y >= mine.y
            and box.x + box.width <= mine.x + mine.width
            and box.y + box.height <= mine.y + mine.height
        )


def _overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def plot(
    series: Sequence[Series],
    size: tuple[float, float],
    x_axis: tuple[str, Format],
    y_axis: tuple[str, Format],
    *,
    log: tuple[bool, bool] = (True, True),
    marks: tuple[float, ...] = (),
    label: str,
    ends: bool = False,
) -> str:
    """A picture of some series; `ends` puts each name at its line's end instead of the labels."""
    width, height = size
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    right = 142 if ends else 16
    xs, ys = [point.x for point in points], [point.y for point in points]
    x = Axis(*bounds(xs, log[0]), 56, width - right, *x_axis, log=log[0], marks=marks)
    y = Axis(*bounds(ys, log[1]), height - 44, 30, *y_axis, log=log[1])
    drawn = [frame(x, y)]
    labels = Labels(Box(x.start, y.end - 6, width - x.start - 2, y.start - y.end + 4))
    placed: list[tuple[float, float, str, str]] = []
    for one in series:
        if one.line and len(one.points) > 1:
            places = [(x.at(point.x), y.at(point.y)) for point in one.points]
            path = "L".join(f"{num(left)} {num(top)}" for left, top in places)
            labels.block_line(places)
            drawn.append(f'<path class="line {one.css}{" ours" * one.ours}" d="M{path}"/>')
    for one in series:
        for point in one.points:
            at = x.at(point.x), y.at(point.y)
            drawn.append(mark(*at, one.css, point.title, one.ours))
            labels.block(*at)
            if point.label and not ends:
                placed.append((*at, point.label, "label ours" if one.ours else "label"))
    if ends:
        drawn += _end_labels(series, x, y)
    else:
        placed.sort(key=lambda item: "ours" not in item[3])
        drawn += [labels.place(*item) for item in placed]
    return _picture(width, height, label, drawn)


def _end_labels(series: Sequence[Series], x: Axis, y: Axis) -> list[str]:
    """Names at the right, pushed apart where lines end close together."""
    ends = sorted(
        ((y.at(one.points[-1].y), one) for one in series if one.points), key=lambda pair: pair[0]
    )
    drawn, least = [], -math.inf
    spare = y.start - 14 * len(ends)
    for index, (wanted, one) in enumerate(ends):
        at = max(min(wanted, spare + 14 * (index + 1)), least + 14)
        least = at
        here = x.at(one.points[-1].x) + 8
        drawn.append(_line(here, wanted, x.end + 10, at, "lead"))
        css = "label ours" if one.ours else "label"
        drawn.append(text(x.end + 13, at + 4, one.name, css))
    return drawn


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dot plot: (value, class, title, ours) of each dot."""

    name: str
    note: str
    dots: Sequence[tuple[float, str, str, bool]]


def dots(
    rows: Sequence[Row],
    width: float,
    axis: tuple[str, Format],
    *,
    label: str,
    limits: Sequence[tuple[float, str]] = (),
) -> str:
    """Rows of dots over one logarithmic axis; limits are vertical lines with a name."""
    values = [dot[0] for row in rows for dot in row.dots] + [value for value, _ in limits]
    if not rows or not values:
        return ""
    step, top = 34.0, 34.0
    height = top + step * len(rows) + 48
    x = Axis(*bounds(values, room=0.04), 215, width - 20, *axis)
    bottom = top + step * len(rows)
    drawn = []
    for tick in x.ticks():
        drawn.append(_line(x.at(tick), top, x.at(tick), bottom, "grid"))
        drawn.append(text(x.at(tick), bottom + 17, x.say(tick), "tick", "middle"))
    drawn.append(text((x.start + x.end) / 2, bottom + 37, x.label, "title", "middle"))
    for value, name in limits:
        drawn.append(_line(x.at(value), top - 8, x.at(value), bottom, "limit"))
        drawn.append(text(x.at(value) + 5, top - 12, name, "limitname"))
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        drawn.append(text(202, y - 1, row.name, "rowname", "end"))
        drawn.append(text(202, y + 12, row.note, "tick", "end"))
        places = [x.at(dot[0]) for dot in row.dots]
        if places:
            drawn.append(_line(min(places), y, max(places), y, "span"))
        for value, css, title, ours in sorted(row.dots, key=lambda dot: dot[3]):
            drawn.append(mark(x.at(value), y, css, title, ours))
    return _picture(width, height, label, drawn)


def _picture(width: float, height: float, label: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {num(width)} {num(height)}" role="img" aria-label="{escape(label)}">'
        + "".join(drawn)
        + "</svg>"
    )
