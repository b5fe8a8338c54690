"""Patches with any bytes wrong are explained or refused, and what is explained adds up."""

from __future__ import annotations

import random

import pytest

from bsipatch import errors
from bsipatch._core import Diff, Patch
from tests.support.toy_pairs import PAIRS

CHECK = bytes(8)


@pytest.mark.parametrize("name", PAIRS)
def test_damaged_patches(name: str) -> None:
    old, new = PAIRS[name](False), PAIRS[name](True)
    with Diff(old, new, profile="fast") as diff:
        good = diff.finish(CHECK, CHECK)  # every stream plain: damage reaches all of it
    draw = random.Random(21)
    explained = 0
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(draw.choice((1, 1, 2, 5))):
            bad[draw.randrange(5, len(bad))] = draw.randrange(256)
        try:
            with Patch(bad, max_plain=1 << 22, memory_budget=1 << 26) as handle:
                handle.prepare(old)
                account = handle.explain(13)
                size = handle.info.new_size
        except (errors.FormatError, errors.MismatchError, errors.LimitError):
            continue
        except errors.MemoryLimitError:
            continue
        explained += 1
        made = sum(r.cover_bytes + r.literal_bytes + r.fill_bytes for r in account.rows)
        assert made == sum(map(sum, account.buckets)) == size
        for stream in account.streams:
            spent = sum(row.price[stream.id] for row in account.rows)
            assert spent + stream.price_frame == stream.price
    assert explained > 20
