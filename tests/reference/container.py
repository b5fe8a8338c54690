"""Header, directory and streams of a patch (docs/format.md, "The file")."""

from __future__ import annotations

import lzma
from dataclasses import dataclass, field

import zstandard

PLAIN, MODEL, ZSTD, LZMA, MODEL_OWN = range(5)
LAYOUT, COVER, OVERRIDES, REFS, BYTES, LITERALS = range(1, 7)
MASK64 = (1 << 64) - 1


class Broken(Exception):
    """The patch breaks a rule of the format."""


class NeedsImages(Exception):
    """The patch rests on images of the old file, which this applier does not read."""


class Reader:
    """Bounded reading of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise Broken(f"{length} bytes wanted at {self.at}, {self.left} left")
        self.at += length
        return self.data[self.at - length : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            if (shift == 63 and byte > 1) or (shift and byte == 0):
                raise Broken(f"malformed varint at {self.at}")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Broken(f"endless varint at {self.at}")


def unzigzag(value: int) -> int:
    return -(value + 1 >> 1) if value & 1 else value >> 1


@dataclass
class Stream:
    id: int
    codec: int
    plain_len: int
    encoded_len: int
    encoded: bytes = b""

    def plain(self) -> bytes:
        """The plain bytes of a stream whose codec is generic."""
        if self.codec == ZSTD:
            window = 1 << min(max((self.plain_len - 1).bit_length(), 10), 27)
            decoder = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()
            made = decoder.decompress(self.encoded)
            ended, unused = decoder.eof, decoder.unused_data
        elif self.codec == LZMA:
            size = min(max(1 << (self.plain_len - 1).bit_length(), 4096), 64 << 20)
            filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size}]
            unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
            made = unpacker.decompress(self.encoded)
            ended, unused = unpacker.eof, unpacker.unused_data
        else:
            made, ended, unused = self.encoded, True, b""
        if len(made) != self.plain_len or not ended or unused:
            raise Broken(f"stream {self.id}: {len(made)} bytes for {self.plain_len}")
        return made


@dataclass
class Patch:
    old_size: int
    new_size: int
    old_check: bytes
    new_check: bytes
    streams: dict[int, Stream] = field(default_factory=dict)
    shared: bytes = b""


def parse(data: bytes) -> Patch:
    """Reads everything that can be read without decoding a stream."""
    reader = Reader(data)
    if reader.take(4) != b"BSIP":
        raise Broken("not a patch")
    if reader.u8() != 1:
        raise Broken("unknown version")
    old_size = reader.varint()
    new_size = old_size + unzigzag(reader.varint())
    if not (0 <= old_size < 1 << 63 and 0 <= new_size < 1 << 63):
        raise Broken("sizes")
    patch = Patch(old_size, new_size, reader.take(8), reader.take(8))
    count = reader.u8()
    if count > 6:
        raise Broken("stream count")
    last = 0
    for _ in range(count):
        head = reader.u8()
        number, codec, plain_len = head & 15, head >> 4, reader.varint()
        encoded_len = {PLAIN: plain_len, MODEL: 0}.get(codec, -1)
        if encoded_len < 0:
            encoded_len = reader.varint()
        if not last < number <= 6 or codec > MODEL_OWN or plain_len == 0:
            raise Broken(f"directory entry of stream {number}")
        last = number
        patch.streams[number] = Stream(number, codec, plain_len, encoded_len)
    for stream in patch.streams.values():
        stream.encoded = reader.take(stream.encoded_len)
    patch.shared = reader.take(reader.left)
    if patch.shared and all(s.codec != MODEL for s in patch.streams.values()):
        raise Broken("trailing bytes")
    return patch
