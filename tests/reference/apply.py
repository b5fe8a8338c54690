"""From the old file and a patch to the new one (docs/format.md, "Prediction")."""

from __future__ import annotations

import hashlib

from tests.reference.columns import Column, ModelColumn, PlainColumn
from tests.reference.container import (
    BYTES,
    COVER,
    LAYOUT,
    LITERALS,
    MODEL,
    MODEL_OWN,
    OVERRIDES,
    REFS,
    Broken,
    Patch,
    parse,
)
from tests.reference.entropy import RangeDecoder
from tests.reference.streams import (
    Fill,
    literal_runs,
    read_bytes,
    read_cover,
    read_layout,
    read_literals,
)

ABSENT = {LAYOUT: b"\1\0", COVER: b"\0", OVERRIDES: b"", REFS: b"\0", BYTES: b"\0", LITERALS: b""}
IMAGE_MAGICS = {b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"}


class Streams:
    """The patch's streams, opened one by one in the order of their ids."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self._shared = RangeDecoder(patch.shared)
        self._own: RangeDecoder | None = None

    def open(self, number: int) -> Column:
        stream = self._patch.streams.get(number)
        self._own = None
        if stream is None:
            return PlainColumn(ABSENT[number])
        if stream.codec == MODEL:
            return ModelColumn(self._shared, stream.plain_len)
        if stream.codec == MODEL_OWN:
            self._own = RangeDecoder(stream.encoded)
            return ModelColumn(self._own, stream.plain_len)
        return PlainColumn(stream.plain())

    def close(self, column: Column) -> None:
        column.close()
        if self._own is not None and not self._own.done():
            raise Broken("a code does not end as its encoder ends it")

    def end(self) -> None:
        modelled = any(s.codec == MODEL for s in self._patch.streams.values())
        if modelled and not self._shared.done():
            raise Broken("the shared code does not end as its encoder ends it")


def hashes_of(fill: Fill, new: bytes) -> bytes:
    made = b""
    page = 1 << fill.page_bits
    for start in range(fill.data_off, fill.data_off + fill.data_len, page):
        data = new[start : min(start + page, fill.data_off + fill.data_len)]
        if fill.hash == 1:
            made += hashlib.sha1(data).digest()
        else:
            made += hashlib.sha256(data).digest()[: 32 if fill.hash == 2 else 20]
    return made


def apply(old: bytes, data: bytes) -> bytes:
    """The new file.  Raises Broken, or NeedsImages when it is made of executables."""
    patch = parse(data)
    if len(old) != patch.old_size or hashlib.sha256(old).digest()[:8] != patch.old_check:
        raise Broken("not the old file of this patch")
    streams = Streams(patch)

    column = streams.open(LAYOUT)
    fills = read_layout(column, patch.new_size, old[:4] in IMAGE_MAGICS)
    streams.close(column)
    column = streams.open(COVER)
    cover = read_cover(column, patch.old_size, patch.new_size)
    streams.close(column)
    streams.close(streams.open(OVERRIDES))
    column = streams.open(REFS)
    if column.count(2):
        raise Broken("references without an image")
    streams.close(column)
    column = streams.open(BYTES)
    fixes = read_bytes(column, old, cover, patch.new_size)
    streams.close(column)
    runs = literal_runs(cover, fills, patch.new_size)
    column = streams.open(LITERALS)
    literals = read_literals(column, old, cover, runs)
    streams.close(column)
    streams.end()

    new = bytearray(patch.new_size)
    for entry in cover:
        source = old[entry.old_off : entry.old_off + entry.length]
        new[entry.new_off : entry.new_off + entry.length] = source
    for position, diff in fixes:
        new[position] = new[position] + diff & 0xFF
    done = 0
    for start, length in runs:
        new[start : start + length] = literals[done : done + length]
        done += length
    for fill in fills:
        new[fill.new_off : fill.new_off + fill.length] = hashes_of(fill, bytes(new))
    if hashlib.sha256(new).digest()[:8] != patch.new_check:
        raise Broken("the result is not the new file")
    return bytes(new)
