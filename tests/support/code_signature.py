"""A writer of Apple code signatures without a signer, for tests: page hashes and special slots."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

ENTITLEMENTS, REQUIREMENTS = 5, 2


def blob(magic: int, body: bytes) -> bytes:
    """A blob: magic, length, body."""
    return struct.pack(">II", magic, 8 + len(body)) + body


def directory(
    signed: bytes,
    special: Mapping[int, bytes] | None = None,
    *,
    shift: int = 12,
    sha1: bool = False,
    limit64: bool = False,
    **changes: int,
) -> bytes:
    """A code directory over `signed`; `changes` replace fields by name, to make a wrong one."""
    name, size = ("sha1", 20) if sha1 else ("sha256", 32)

    def digest(data: bytes) -> bytes:
        return hashlib.new(name, data).digest()

    page = 1 << shift if shift else max(1, len(signed))
    pages = [signed[at : at + page] for at in range(0, len(signed), page)]
    slots = dict(special or {})
    most = max(slots, default=0)
    hashes = b"".join(
        digest(slots[number]) if number in slots else bytes(size) for number in range(most, 0, -1)
    )
    head = 64 if limit64 else 44
    fields = {
        "version": 0x20300 if limit64 else 0x20001,
        "flags": 2,
        "hashes": head + len(hashes),
        "ident": 0,
        "slots": most,
        "pages": len(pages),
        "limit": 0 if limit64 else len(signed),
        "size": size,
        "kind": 1 if sha1 else 2,
        "platform": 0,
        "shift": shift,
        **changes,
    }
    body = struct.pack(">7I4BI", *fields.values(), 0)
    if limit64:
        body += struct.pack(">IIIQ", 0, 0, 0, len(signed))
    return blob(0xFADE0C02, body + hashes + b"".join(digest(data) for data in pages))


def superblob(blobs: Mapping[int, bytes]) -> bytes:
    """Blobs by their slot."""
    index, body, at = b"", b"", 12 + 8 * len(blobs)
    for slot, data in blobs.items():
        index += struct.pack(">II", slot, at + len(body))
        body += data
    return struct.pack(">III", 0xFADE0CC0, at + len(body), len(blobs)) + index + body
