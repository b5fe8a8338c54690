"""A cover goes the short way: a longer run elsewhere is not worth the way there and back."""

from __future__ import annotations

import random

import pytest

from bsipatch import delta
from bsipatch.delta import Profile


def listing(rng: random.Random, count: int, types: list[str]) -> list[str]:
    """Entries as a compiler lists them: the same words and indentation, told apart by names."""
    entries = []
    for _ in range(count):
        name = "".join(rng.choice("abcdefghijklmnop") for _ in range(6))
        entries.append(
            f'{" " * 24}{{\n{" " * 28}"name": "{name}",\n{" " * 28}"type": '
            f'"{rng.choice(types)}",\n{" " * 28}"constant": false\n{" " * 24}}},\n'
        )
    return entries


@pytest.mark.parametrize("profile", list(Profile))
def test_insertions_into_a_listing_cost_little(profile: Profile) -> None:
    """All entries resemble each other, so a run that is wrong goes on and on."""
    rng = random.Random(7)
    old = listing(rng, 3000, ["QDate", "QDateTime", "QDateTimeOffset"])
    new = list(old)
    places = [at for at in range(1500, 1600) if '"QDate"' in old[at]][:8]
    for at in places:
        new[at] = old[at].replace('"QDate"', '"QDateTime"')
    old_bytes, new_bytes = "".join(old).encode(), "".join(new).encode()
    patch = delta.diff_bytes(old_bytes, new_bytes, profile=profile)
    assert delta.patch_bytes(old_bytes, patch) == new_bytes
    # eight times: two entries' worth of numbers and four letters that repeat
    assert len(patch) < (160 if profile is Profile.FAST else 110)


def test_entries_in_another_order_are_found_again() -> None:
    """Each run ends where its entry does, or corrections would cost more than the entries."""
    rng = random.Random(8)
    old = listing(rng, 4000, ["QDate", "QDateTime", "QDateTimeOffset"])
    new = list(old)
    rng.shuffle(new)
    old_bytes, new_bytes = "".join(old).encode(), "".join(new).encode()
    patch = delta.diff_bytes(old_bytes, new_bytes, profile=Profile.MAX)
    assert delta.patch_bytes(old_bytes, patch) == new_bytes
    # an entry's place is 12 bits; told by the place alone it is three or four bytes
    assert len(patch) < 4 * len(new)


def test_a_run_that_is_a_byte_longer_elsewhere_is_not_worth_the_way() -> None:
    """Each piece stands next to the one before, and elsewhere with one byte more of it."""
    rng = random.Random(3)
    old, new, copies = b"", b"", []
    for _ in range(40):
        before, piece = rng.randbytes(200), rng.randbytes(100)
        old += before + piece
        new += before + b"Time" + piece
        copies.append(rng.randbytes(rng.randrange(300, 3000)) + b"e" + piece)
    rng.shuffle(copies)
    rest = rng.randbytes(40_000) + b"".join(copies)
    patch = delta.diff_bytes(old + rest, new + rest, profile=Profile.MAX)
    assert delta.patch_bytes(old + rest, patch) == new + rest
    # forty ways there and back are a hundred bytes more
    assert len(patch) < 110
