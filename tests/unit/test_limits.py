"""Limits: values with defaults that never change."""

from __future__ import annotations

import pytest

from bsipatch.limits import DEFAULT, Limits


def test_what_is_not_named_stays() -> None:
    small = DEFAULT.but(max_entries=3)
    smaller = small.but(max_depth=2)
    assert (smaller.max_entries, smaller.max_depth, smaller.max_name) == (3, 2, 255)
    assert (small.max_entries, small.max_depth) == (3, DEFAULT.max_depth)
    assert DEFAULT == Limits() != small
    assert smaller == Limits(max_depth=2, max_entries=3)
    assert len({DEFAULT, Limits(), small, smaller}) == 3
    assert DEFAULT != 1
    assert repr(smaller) == "Limits(max_entries=3, max_depth=2)"


def test_names_are_checked_and_values_stay() -> None:
    with pytest.raises(TypeError, match="max_nonsense"):
        Limits(max_nonsense=1)
    with pytest.raises(TypeError, match="but"):
        DEFAULT.but(but=1)
    with pytest.raises(AttributeError):
        DEFAULT.max_entries = 1
    assert DEFAULT.max_entries == 1_000_000
