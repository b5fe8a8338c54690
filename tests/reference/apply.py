"""From the old file and a patch to the new one (docs/format.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tests.reference.address_map import AddressMap, read_overrides
from tests.reference.columns import Column, ModelColumn, PlainColumn
from tests.reference.container import (
    BYTES,
    CODECS,
    COVER,
    LAYOUT,
    LITERALS,
    MODEL,
    MODEL_OWN,
    OVERRIDES,
    REFS,
    STREAMS,
    Broken,
    Patch,
    parse,
)
from tests.reference.entropy import RangeDecoder
from tests.reference.fills import hashes_of
from tests.reference.images import images_of
from tests.reference.layout import Fill, LayoutImage, read_layout
from tests.reference.literals import literal_runs, read_literals
from tests.reference.predict import Predictor
from tests.reference.streams import Entry, read_bytes, read_cover, read_refs

ABSENT = {LAYOUT: b"\1\0", COVER: b"\0", REFS: b"\0", BYTES: b"\0", LITERALS: b""}


class Streams:
    """The patch's streams, opened one by one in the order of their ids."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self._shared = RangeDecoder(patch.shared)
        self._own: RangeDecoder | None = None

    def open(self, number: int, absent: bytes | None = None) -> Column:
        """A stream; `absent` are the plain bytes of one that is not there."""
        stream = self._patch.streams.get(number)
        self._own = None
        if stream is None:
            return PlainColumn(ABSENT[number] if absent is None else absent)
        if stream.codec == MODEL:
            return ModelColumn(self._shared, stream.plain_len)
        if stream.codec == MODEL_OWN:
            self._own = RangeDecoder(stream.encoded)
            return ModelColumn(self._own, stream.plain_len)
        return PlainColumn(stream.plain())

    def close(self, column: Column) -> None:
        """Checks that a stream was used up."""
        column.close()
        if self._own is not None and not self._own.done():
            raise Broken("a code does not end as its encoder ends it")

    def end(self) -> None:
        """Checks that the shared code was."""
        modelled = any(s.codec == MODEL for s in self._patch.streams.values())
        if modelled and not self._shared.done():
            raise Broken("the shared code does not end as its encoder ends it")


@dataclass
class Decoded:
    """What the streams say."""

    images: list[LayoutImage]
    fills: list[Fill]
    cover: list[Entry]
    maps: list[AddressMap]
    refs: dict[int, int]
    fixes: list[tuple[int, int]]
    runs: list[tuple[int, int]]
    literals: bytes


def decode(old: bytes, patch: Patch) -> Decoded:
    """Reads all streams.  Raises Broken."""
    streams = Streams(patch)
    new_size = patch.new_size
    column = streams.open(LAYOUT)
    images, fills = read_layout(column, images_of(old), new_size)
    streams.close(column)
    column = streams.open(COVER)
    cover = read_cover(column, patch.old_size, new_size)
    streams.close(column)
    runs = literal_runs(cover, fills, new_size)
    maps = [AddressMap(image, cover) for image in images]
    column = streams.open(OVERRIDES, bytes(len(images)))
    for map_ in maps:
        map_.override(read_overrides(column, map_))
    streams.close(column)
    column = streams.open(REFS)
    refs = read_refs(column, new_size)
    streams.close(column)
    column = streams.open(BYTES)
    fixes = read_bytes(column, old, cover, new_size)
    streams.close(column)
    column = streams.open(LITERALS)
    literals = read_literals(column, old, cover, images, runs)
    streams.close(column)
    streams.end()
    return Decoded(images, fills, cover, maps, refs, fixes, runs, literals)


def _make(predictor: Predictor, said: Decoded, new_size: int) -> bytearray:
    """The new file without its fills."""
    new = predictor.predict(new_size)
    for position, diff in said.fixes:
        new[position] = new[position] + diff & 0xFF
    done = 0
    for start, length in said.runs:
        new[start : start + length] = said.literals[done : done + length]
        done += length
    for fill in said.fills:
        new[fill.new_off : fill.new_off + fill.length] = bytes(fill.length)
    return new


def rebuild(old: bytes, data: bytes, most_plain: int = 1 << 64) -> bytes:
    """What a patch makes of the old file, whether or not that is what it promises.

    most_plain: the caller's limit for the sum of all plain lengths.

    Raises: Broken.
    """
    patch = parse(data, most_plain)
    if len(old) != patch.old_size or hashlib.sha256(old).digest()[:8] != patch.old_check:
        raise Broken("not the old file of this patch", "OLD_MISMATCH")
    said = decode(old, patch)
    predictor = Predictor(old, said.images, said.maps, said.cover, said.refs)
    new = _make(predictor, said, patch.new_size)
    if predictor.find_pages(new):
        new = _make(predictor, said, patch.new_size)
    for fill in said.fills:
        new[fill.new_off : fill.new_off + fill.length] = hashes_of(fill, new)
    return bytes(new)


def apply(old: bytes, data: bytes, most_plain: int = 1 << 64) -> bytes:
    """The new file.  Raises Broken."""
    new = rebuild(old, data, most_plain)
    if hashlib.sha256(new).digest()[:8] != parse(data).new_check:
        raise Broken("the result is not the new file", "NEW_MISMATCH")
    return new


def describe(data: bytes) -> str:
    """What a patch's header and directory say, a line for each.  Raises Broken."""
    patch = parse(data)
    lines = [f"{patch.old_size} -> {patch.new_size} bytes, in {len(data)}"]
    for stream in patch.streams.values():
        told = f"{STREAMS[stream.id]}: {CODECS[stream.codec]}, {stream.plain_len} bytes"
        lines.append(told + (f" in {len(stream.encoded)}" if stream.encoded else ""))
    if patch.shared:
        lines.append(f"shared code: {len(patch.shared)} bytes")
    return "\n".join(lines)
