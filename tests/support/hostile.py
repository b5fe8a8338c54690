"""Hostile variants of JSON documents and byte strings, generated in a fixed order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

#: what may stand in place of any value
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1 << 31,
    1 << 32,
    (1 << 53) - 1,
    1 << 63,
    1 << 64,
    -(1 << 63),
    1.5,
    "",
    "..",
    "../../x",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "\x1b[2J",
    "u\u0308",
    "x" * 5000,
    "0" * 64,
    [],
    {},
    [[]],
)

Step = str | int


def places(document: Any, at: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The way to every value inside a JSON document, parents first."""
    if at:
        yield at
    if isinstance(document, dict):
        for name in sorted(document):
            yield from places(document[name], (*at, name))
    elif isinstance(document, list):
        for index, item in enumerate(document):
            yield from places(item, (*at, index))


def variants(document: Any) -> Iterator[tuple[str, Any]]:
    """The document with each value replaced, dropped or doubled in turn, and what was done."""
    for place in places(document):
        name = "/".join(map(str, place))
        for value in VALUES:
            broken = copy.deepcopy(document)
            holder = _holder(broken, place)
            if holder[place[-1]] == value and type(holder[place[-1]]) is type(value):
                continue
            holder[place[-1]] = value
            yield f"{name} = {value!r:.40}", broken
        broken = copy.deepcopy(document)
        holder = _holder(broken, place)
        if isinstance(holder, list):
            holder.insert(int(place[-1]), copy.deepcopy(holder[int(place[-1])]))
            yield f"{name} doubled", broken
            broken = copy.deepcopy(document)
            holder = _holder(broken, place)
        del holder[place[-1]]
        yield f"{name} dropped", broken


def _holder(document: Any, place: tuple[Step, ...]) -> Any:
    for step in place[:-1]:
        document = document[step]
    return document


def truncations(data: bytes, step: int) -> Iterator[bytes]:
    """Every prefix of a length that is a multiple of step, and the last few."""
    for end in sorted({*range(0, len(data), step), *range(max(0, len(data) - 8), len(data))}):
        yield data[:end]


def bit_flips(data: bytes, step: int) -> Iterator[bytes]:
    """One bit flipped in every step-th byte, another bit each time."""
    for number, at in enumerate(range(0, len(data), step)):
        broken = bytearray(data)
        broken[at] ^= 1 << number % 8
        yield bytes(broken)
