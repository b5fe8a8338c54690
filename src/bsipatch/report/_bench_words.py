"""Figures for people: seconds, bytes, shares, multiples."""

from __future__ import annotations


def seconds(value: float) -> str:
    """ "4.1 ms", "38 ms", "4.1 s", "125 s"."""
    if value < 0.0995:
        return f"{_short(value * 1000)} ms"
    return f"{_short(value)} s"


def per_mb(value: float) -> str:
    """Seconds for each MB: as seconds()."""
    return seconds(value)


def size(value: float) -> str:
    """Bytes, by powers of 1000: "812 B", "12.4 kB", "460 MB"."""
    amount = float(value)
    for unit in ("B", "kB", "MB"):
        if amount < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{_short(amount)} {unit}"
        amount /= 1000
    return f"{_short(amount)} GB"


def share(value: float) -> str:
    """A part of 1 as percent: "0.87 %", "12 %"."""
    return f"{_short(100 * value)} %"


def times(value: float) -> str:
    """A multiple: "1.3×"."""
    return f"{_short(value)}×"


def count(number: int, noun: str) -> str:
    """ "1 pair", "5 pairs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(value: float) -> str:
    """Three figures at most, and none after a point that says nothing."""
    if value == 0:
        return "0"
    if value >= 99.5:
        return f"{value:,.0f}"
    digits = 1 if value >= 9.95 else 2 if value >= 0.0995 else 3
    told = f"{value:.{digits}f}" if value >= 0.00095 else f"{value:.2g}"
    return told.rstrip("0").rstrip(".") if "." in told else told
