"""Hostile patches: reference and core accept the same ones, and make the same bytes of them.

What a patch makes counts here even when it is not what the patch promises, so the promise is
replaced by the digest of what the reference makes.
"""

from __future__ import annotations

import hashlib
import os
import random

import pytest

from bsipatch import delta, errors
from bsipatch._core import Codec
from tests import reference
from tests.hostile.test_patch_hostile import FAMILIES, LIMITS
from tests.support import patch_forge as forge
from tests.support.patch_forge import COVER, LITERALS, TOYS, Forged, toy_pair

pytestmark = [
    pytest.mark.no_reference,
    pytest.mark.skipif(
        bool(os.environ.get("BSIPATCH_SANITIZED")), reason="plain Python, nothing to sanitize"
    ),
]

ANSWERS = {
    "MAGIC": errors.MagicError,
    "VERSION": errors.VersionError,
    "CORRUPT": errors.CorruptError,
    "TRUNCATED": errors.TruncatedError,
    "LIMIT": errors.LimitError,
    "OLD_MISMATCH": errors.OldMismatchError,
    "NEW_MISMATCH": errors.NewMismatchError,
}


def agreed(name: str, old: bytes, patch: bytes) -> bool:
    """Whether both accept a patch.  Raises AssertionError when they do not agree."""
    refusal: reference.Broken | None = None
    made = b""
    try:
        made = reference.rebuild(old, patch, LIMITS.max_plain)
    except reference.Broken as error:
        refusal = error
    else:
        at = reference.parse(patch).checks_at + 8
        patch = patch[:at] + hashlib.sha256(made).digest()[:8] + patch[at + 8 :]
    applied: bytes | None = None
    error: errors.BsipatchError | None = None
    try:
        applied = delta.patch_bytes(old, patch, jobs=1, limits=LIMITS)
    except (errors.LimitError, errors.FormatError, errors.MismatchError) as raised:
        error = raised
    if error is None:
        assert refusal is None, f"{name}: the reference refuses: {refusal}"
        assert applied == made, f"{name}: the results differ"
    else:
        assert refusal is not None, f"{name}: the core refuses: {error}"
        # limits: also sizes of files and memory, which only the package bounds;
        # otherwise a patch that breaks several rules, or a zstd frame that is cut short
        tolerated = isinstance(error, errors.LimitError | errors.TruncatedError)
        answer = ANSWERS[refusal.status]
        assert type(error) is answer or tolerated, f"{name}: {error}, not {refusal.status}"
    return refusal is None


@pytest.mark.parametrize("family", FAMILIES)
def test_written_by_hand(family: str) -> None:
    for case in FAMILIES[family]():
        agreed(case.name, case.old, case.patch)


def numbers_of(plain: bytes) -> list[bytes]:
    """A stream's varints, each with its bytes."""
    found, start = [], 0
    for at, byte in enumerate(plain):
        if byte < 0x80:
            found.append(plain[start : at + 1])
            start = at + 1
    return [*found, plain[start:]] if start < len(plain) else found


def uncovered(patch: Forged) -> int | None:
    """Bytes of the new file that no run gives, None when the cover cannot be read."""
    column = reference.PlainColumn(patch.stream(COVER).plain or b"\0")
    try:
        cover = reference.read_cover(column, patch.old_size, patch.new_size)
    except reference.Broken:
        return None
    return patch.new_size - sum(entry.length for entry in cover)


def mutated(rng: random.Random, target: Forged, old: bytes) -> Forged:
    """A patch with some numbers changed; the literals are made as many as the cover wants."""
    before = uncovered(target)
    for _ in range(rng.choice((1, 1, 2, 4))):
        entry = rng.choice(target.streams)
        numbers = numbers_of(entry.plain)
        if not numbers:
            continue
        at = rng.randrange(len(numbers))
        value = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(numbers[at]))
        change = rng.randrange(6)
        if change == 0:
            value = rng.choice((0, 1, 2, 3, 255, len(old), forge.U64, 1 << 63, value * 2))
        elif change < 4:
            value += rng.choice((-4, -2, -1, 1, 2, 4, 8, 16, 4096, rng.randrange(1 << 20)))
        elif change == 4:
            numbers[at] += rng.choice(numbers)
        else:
            numbers[at] = b""
        if change < 4:
            numbers[at] = forge.varint(value)
        entry.plain = b"".join(numbers)
    room = uncovered(target)
    if before is not None and room is not None:
        literals = target.stream(LITERALS).plain
        wanted = max(len(literals) + room - before, 0)
        target.put(LITERALS, (literals * (wanted // max(len(literals), 1) + 1))[:wanted])
    target.streams = [entry for entry in target.streams if entry.plain]
    for entry in target.streams:
        if rng.random() < 0.1:
            noise = rng.randbytes(rng.randrange(1, 40))
            entry.codec, entry.encoded, entry.plain_len = Codec.MODEL_OWN, noise, None
    return target


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("seed", range(2))
def test_numbers_changed_at_random(kind: str, seed: int) -> None:
    rng = random.Random(f"{kind} {seed}")
    old, new = toy_pair(kind, seed)
    accepted = 0
    for number in range(int(os.environ.get("BSIPATCH_AGREEMENT_ROUNDS", "250"))):
        target = mutated(rng, Forged.of(old, new), old)
        accepted += agreed(f"{kind} {seed} {number}", old, target.build())
    assert accepted > 0
