"""Pictures as inline SVG: stacked columns over a file, stacked bars, treemaps.

Colours are CSS classes, so that the page that holds a picture decides on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a picture."""

    x: float
    y: float
    width: float
    height: float


def num(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def rect(box: Box, css: str, title: str = "") -> str:
    """A rectangle; `title` shows when the pointer rests on it."""
    place = f'x="{num(box.x)}" y="{num(box.y)}" width="{num(box.width)}" height="{num(box.height)}"'
    if not title:
        return f'<rect class="{css}" {place}/>'
    return f'<rect class="{css}" {place}><title>{escape(title)}</title></rect>'


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{css}" x="{num(x)}" y="{num(y)}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def columns(layers: Sequence[tuple[str, Sequence[float]]], top: float, height: float) -> str:
    """Columns one unit wide, from x = 0, stacked from the bottom up; values are shares of 1."""
    count = len(layers[0][1]) if layers else 0
    below = [0.0] * count
    drawn = []
    for css, values in layers:
        path = []
        x = 0
        while x < count:
            end = x + 1  # equal neighbours are one piece
            while end < count and (values[end], below[end]) == (values[x], below[x]):
                end += 1
            if values[x] > 0:
                bottom = top + height * (1 - below[x])
                rise = num(height * values[x])
                path.append(f"M{x} {num(bottom)}v-{rise}h{end - x}v{rise}z")
            x = end
        if path:
            drawn.append(f'<path class="{css}" d="{"".join(path)}"/>')
        below = [a + b for a, b in zip(below, values, strict=True)]
    return "".join(drawn)


def bar(parts: Sequence[tuple[str, int, str]], box: Box) -> str:
    """A bar of (class, amount, title), side by side."""
    whole = sum(amount for _, amount, _ in parts)
    x = box.x
    drawn = []
    for css, amount, title in parts:
        if amount:
            width = box.width * amount / whole
            drawn.append(rect(Box(x, box.y, width, box.height), css, title))
            x += width
    return "".join(drawn)


def treemap(amounts: Sequence[int], box: Box) -> list[Box]:
    """A rectangle for each amount (descending, positive), as square as may be; they tile the box.

    The squarified layout: fill rows along the shorter side, each for as long as
    another rectangle makes the worst one of the row squarer.
    """
    boxes: list[Box] = []
    left = float(sum(amounts))
    at = 0
    while at < len(amounts):
        short = min(box.width, box.height)
        unit = box.width * box.height / left
        end, row = at + 1, float(amounts[at])
        while end < len(amounts):
            grown = row + amounts[end]
            before = _worst(amounts[at], amounts[end - 1], row, short, unit)
            if _worst(amounts[at], amounts[end], grown, short, unit) > before:
                break
            end, row = end + 1, grown
        deep = row * unit / short if short else 0.0
        along = 0.0
        for amount in amounts[at:end]:
            span = short * amount / row
            boxes.append(
                Box(box.x, box.y + along, deep, span)
                if box.width >= box.height
                else Box(box.x + along, box.y, span, deep)
            )
            along += span
        if box.width >= box.height:
            box = Box(box.x + deep, box.y, max(box.width - deep, 0.0), box.height)
        else:
            box = Box(box.x, box.y + deep, box.width, max(box.height - deep, 0.0))
        left -= row
        at = end
    return boxes


def _worst(largest: float, smallest: float, row: float, short: float, unit: float) -> float:
    """The worst ratio of sides in a row of rectangles; 1 is a square."""
    deep = row * unit / short if short else 0.0
    if not deep:
        return float("inf")
    longest, shortest = largest * unit / deep, smallest * unit / deep
    return max(longest / deep, deep / shortest if shortest else float("inf"))
