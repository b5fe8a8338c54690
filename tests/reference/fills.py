"""Hashes of the finished file's pages (docs/format.md, chapter 6)."""

from __future__ import annotations

import hashlib

from tests.reference.layout import Fill


def hashes_of(fill: Fill, new: bytearray) -> bytes:
    """The bytes that a fill stands for."""
    made = b""
    page, end = 1 << fill.page_bits, fill.data_off + fill.data_len
    for start in range(fill.data_off, end, page):
        data = new[start : min(start + page, end)]
        if fill.hash == 1:
            made += hashlib.sha1(data).digest()
        else:
            made += hashlib.sha256(data).digest()[: 32 if fill.hash == 2 else 20]
    return made
