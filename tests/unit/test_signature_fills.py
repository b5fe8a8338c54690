"""The hashes in a code signature that follow from the file are recomputed, not shipped."""

from __future__ import annotations

import hashlib
import random
import struct

import pytest

from bsipatch.delta import diff_bytes, patch_bytes
from tests.support import toy_macho
from tests.support.toy_macho import ToyMacho

REQUIREMENTS, ENTITLEMENTS, DER_ENTITLEMENTS = 2, 5, 7
SPECIAL = 7
HASHES = {  # type -> function
    1: lambda data: hashlib.sha1(data).digest(),
    2: lambda data: hashlib.sha256(data).digest(),
    3: lambda data: hashlib.sha256(data).digest()[:20],
}
ROOM = 8192  # of the signature's table


def blob(magic: int, body: bytes) -> bytes:
    return struct.pack(">II", magic, len(body) + 8) + body


def directory(data: bytes, hash_type: int, page_bits: int, blobs: dict[int, bytes]) -> bytes:
    """A code directory over `data`, with the hashes of the signature's own blobs."""
    digest = HASHES[hash_type]
    size = len(digest(b""))
    special = [
        digest(blobs[slot]) if slot in blobs else bytes(size) for slot in range(SPECIAL, 0, -1)
    ]
    pages = [digest(data[at : at + (1 << page_bits)]) for at in range(0, len(data), 1 << page_bits)]
    hash_off = 44 + 8 + SPECIAL * size
    head = struct.pack(
        ">9I4BI", 0xFADE0C02, hash_off + len(pages) * size, 0x20100, 0, hash_off, 44, SPECIAL,
        len(pages), len(data), size, hash_type, 0, page_bits, 0,
    )  # fmt: skip
    return head + b"program\0" + b"".join(special) + b"".join(pages)


def signed(seed: int, entitlements: bytes, kinds: list[tuple[int, int]]) -> bytes:
    """A small library whose entitlements and pages are signed by some directories."""
    rng = random.Random(4)
    toy = ToyMacho()
    toy.segment("__TEXT")
    toy.section(
        "__text", rng.randbytes(30000) + random.Random(seed).randbytes(16), flags=0x80000400
    )
    toy.segment("__LINKEDIT")
    marker = random.Random(99).randbytes(ROOM)
    toy.table(toy_macho.LC_CODE_SIGNATURE, marker)
    file = toy.build()
    at = file.index(marker)
    blobs = {
        REQUIREMENTS: blob(0xFADE0C01, rng.randbytes(60)),
        ENTITLEMENTS: blob(0xFADE7171, entitlements),
        DER_ENTITLEMENTS: blob(0xFADE7172, entitlements[::-1]),
    }
    parts = dict(blobs)
    for number, (hash_type, page_bits) in enumerate(kinds):
        slot = 0x1000 + number - 1 if number else 0
        parts[slot] = directory(file[:at], hash_type, page_bits, blobs)
    index, body, off = b"", b"", 12 + 8 * len(parts)
    for slot, part in parts.items():
        index += struct.pack(">II", slot, off + len(body))
        body += part
    table = struct.pack(">III", 0xFADE0CC0, off + len(body), len(parts)) + index + body
    assert len(table) <= ROOM
    return file[:at] + table.ljust(ROOM, b"\0") + file[at + ROOM :]


KINDS = [(1, 12), (2, 12), (3, 14), (2, 14)]


@pytest.mark.parametrize("kinds", [KINDS[1:2], KINDS[:2], KINDS], ids=["one", "two", "four"])
def test_page_hashes_are_not_shipped(kinds: list[tuple[int, int]]) -> None:
    entitlements = bytes(200)
    old, new = signed(1, entitlements, kinds), signed(2, entitlements, kinds)
    assert old != new
    patch = diff_bytes(old, new)
    assert patch_bytes(old, patch) == new
    # 16 bytes of noise, and what is written down once for each directory; no hash of 20 bytes
    assert len(patch) < 24 + 16 + 30 + 16 * len(kinds)


def test_hashes_of_changed_blobs_are_not_shipped() -> None:
    old, new = signed(1, bytes(200), KINDS[1:2]), signed(1, b"\1" + bytes(199), KINDS[1:2])
    patch = diff_bytes(old, new)
    assert patch_bytes(old, patch) == new
    changed = sum(a != b for a, b in zip(old, new, strict=True))
    assert changed > 60, "two hashes of 32 bytes changed"
    assert len(patch) < 80


def test_wrong_hashes_are_shipped() -> None:
    """A signature that does not hold is kept as it is."""
    old, new = signed(1, bytes(200), KINDS[1:2]), bytearray(signed(2, bytes(200), KINDS[1:2]))
    at = new.index(bytes.fromhex("fade0c02"))
    for place in range(at + 60, at + 500, 7):
        new[place] ^= 0x5A
    patch = diff_bytes(old, bytes(new))
    assert patch_bytes(old, patch) == bytes(new)
