"""The reference applier and the core agree on files of every shape, in every profile."""

from __future__ import annotations

import os
import random

import pytest

from bsipatch.delta import diff_bytes, patch_bytes
from tests.reference import Broken, apply

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("BSIPATCH_SANITIZED")), reason="plain Python, nothing to sanitize"
)

PROFILES = ["fast", "balanced", "max"]
SHAPES = {
    "noise": lambda rng, n: rng.randbytes(n),
    "text": lambda rng, n: bytes(rng.choice(b"abcdef ,.\n") for _ in range(n)),
    "table": lambda rng, n: b"".join((i * 24 + 7).to_bytes(8, "little") for i in range(n // 8)),
    "filler": lambda rng, n: bytes(n),
}


def edited(rng: random.Random, old: bytes) -> bytes:
    """`old` with some insertions, deletions, moves and changed bytes."""
    new = bytearray(old)
    for _ in range(rng.randrange(1, 12)):
        at, what = rng.randrange(len(new) + 1), rng.randrange(4)
        if what == 0:
            new[at:at] = rng.randbytes(rng.randrange(60))
        elif what == 1:
            del new[at : at + rng.randrange(80)]
        elif what == 2:
            new += new[at : at + 400]
        elif at < len(new):
            new[at] ^= rng.randrange(1, 256)
    return bytes(new)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0, 1, 7, 300, 6000])
def test_both_make_the_same_file(shape: str, size: int, profile: str) -> None:
    rng = random.Random(f"{shape} {size}")
    for _ in range(4):
        old = SHAPES[shape](rng, size)
        new = edited(rng, old)
        patch = diff_bytes(old, new, profile=profile)
        assert apply(old, patch) == new == patch_bytes(old, patch)


def test_a_code_of_its_own_for_each_stream() -> None:
    rng = random.Random(9)
    old = rng.randbytes(9000)
    new = old[:5000] + rng.randbytes(5000) + old[5000:]
    patch = diff_bytes(old, new, profile="max")
    assert apply(old, patch) == new


def test_damage_is_noticed() -> None:
    rng = random.Random(3)
    old = SHAPES["text"](rng, 3000)
    patch = diff_bytes(old, edited(rng, old), profile="max")
    for at in range(0, len(patch), 3):
        damaged = bytearray(patch)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(Broken):
            apply(old, bytes(damaged))
