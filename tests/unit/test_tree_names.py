"""The short way through the gate for names lets nothing pass that the long way refuses."""

from __future__ import annotations

import random
import re

import pytest

from bsipatch.errors import BsipatchError
from bsipatch.tree import names

PARTS = [
    *("con", "CON", "aux", "nul", "com1", "lpt9x", "com", "prn.txt", "..namedfork"),
    *("a", ".", "..", ".a", "a.", ".bsipatch", ".BSIPATCHx", "//", "\\", " ", "~", "[", "]"),
    *("\n", "\x7f", "\0", "\t", "K", "ſ", "é", "é", "x" * 250),
    *["/"] * 20,
]


def _outcome(path: str) -> str:
    try:
        names.check_path(path)
    except BsipatchError as error:
        return f"{type(error).__name__} {error}"
    return ""


def test_both_ways_say_the_same_of_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(11)
    paths = ["".join(draw.choices(PARTS, k=draw.randrange(7))) for _ in range(20_000)]
    short = [_outcome(path) for path in paths]
    monkeypatch.setattr(names, "_PLAIN_PATH", re.compile(r"(?!)"))
    assert short == [_outcome(path) for path in paths]
    assert {bool(outcome) for outcome in short} == {True, False}
