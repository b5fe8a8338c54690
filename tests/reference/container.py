"""Header, directory and streams of a patch (docs/format.md, "The file")."""

from __future__ import annotations

import lzma
from dataclasses import dataclass, field

import zstandard

PLAIN, MODEL, ZSTD, LZMA, MODEL_OWN = range(5)
LAYOUT, COVER, OVERRIDES, REFS, BYTES, LITERALS = range(1, 7)
CODECS = ["plain", "model", "zstd", "lzma", "model, a code of its own"]
STREAMS = ["", "layout", "cover", "overrides", "refs", "bytes", "literals"]
MASK64 = (1 << 64) - 1


class Broken(Exception):
    """The patch breaks a rule of the format; `status` is the answer that chapter 14 names."""

    def __init__(self, message: str, status: str = "CORRUPT") -> None:
        super().__init__(message)
        self.status = status


class Reader:
    """Bounded reading of bytes; what is lacking or malformed has the given status."""

    def __init__(self, data: bytes, status: str = "CORRUPT") -> None:
        self.data = data
        self.at = 0
        self._status = status

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            message = f"{length} bytes wanted at {self.at}, {self.left} left"
            raise Broken(message, self._status)
        self.at += length
        return self.data[self.at - length : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            if (shift == 63 and byte > 1) or (shift and byte == 0):
                raise Broken(f"malformed varint at {self.at}", self._status)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Broken(f"endless varint at {self.at}", self._status)


def unzigzag(value: int) -> int:
    return -(value + 1 >> 1) if value & 1 else value >> 1


@dataclass
class Stream:
    id: int
    codec: int
    plain_len: int
    encoded_len: int
    encoded: bytes = b""

    @property
    def is_modelled(self) -> bool:
        return self.codec in (MODEL, MODEL_OWN)

    def plain(self) -> bytes:
        """The plain bytes of a stream whose codec is generic."""
        if self.codec == PLAIN:
            return self.encoded
        try:
            made, sound = self._zstd() if self.codec == ZSTD else self._lzma()
        except (zstandard.ZstdError, lzma.LZMAError) as error:
            raise Broken(f"stream {self.id}: {error}") from error
        if len(made) != self.plain_len or not sound:
            raise Broken(f"stream {self.id}: {len(made)} bytes for {self.plain_len}")
        return made

    def _zstd(self) -> tuple[bytes, bool]:
        window = 1 << min(max((self.plain_len - 1).bit_length(), 10), 27)
        decoder = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()
        if not zstd_header_ok(self.encoded):
            return b"", False
        made = decoder.decompress(self.encoded)
        return made, decoder.eof and not decoder.unused_data

    def _lzma(self) -> tuple[bytes, bool]:
        size = min(max(1 << (self.plain_len - 1).bit_length(), 4096), 64 << 20)
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size}]
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        made = decoder.decompress(self.encoded)
        return made, decoder.eof and not decoder.unused_data


@dataclass
class Patch:
    old_size: int
    new_size: int
    old_check: bytes
    new_check: bytes
    checks_at: int  # where the two checks stand in the patch
    streams: dict[int, Stream] = field(default_factory=dict)
    shared: bytes = b""


def zstd_header_ok(frame: bytes) -> bool:
    """Whether a frame declares neither a content size nor a checksum nor a dictionary."""
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6 or frame[4] & 0b11100100:
        return False
    id_len = (0, 1, 2, 4)[frame[4] & 3]
    return not any(frame[6 : 6 + id_len])


def parse(data: bytes, most_plain: int = 1 << 64) -> Patch:
    """Reads everything that can be read without decoding a stream.  Raises Broken.

    most_plain: the caller's limit for the sum of all plain lengths.
    """
    reader = Reader(data, "TRUNCATED")
    if data[:4] != b"BSIP":
        raise Broken("not a patch", "MAGIC")
    reader.take(4)
    if reader.u8() != 1:
        raise Broken("unknown version", "VERSION")
    old_size = reader.varint()
    new_size = old_size + unzigzag(reader.varint())
    if not (0 <= old_size < 1 << 63 and 0 <= new_size < 1 << 63):
        raise Broken("sizes")
    checks_at = reader.at
    patch = Patch(old_size, new_size, reader.take(8), reader.take(8), checks_at)
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
    plain_len = sum(stream.plain_len for stream in patch.streams.values())
    if plain_len >= 1 << 64:
        raise Broken("plain lengths")
    if plain_len > most_plain:
        raise Broken("plain lengths", "LIMIT")
    for stream in patch.streams.values():
        if stream.encoded_len == 0 and stream.codec in (ZSTD, LZMA):
            raise Broken("no encoded bytes")
        stream.encoded = reader.take(stream.encoded_len)
    patch.shared = reader.take(reader.left)
    if patch.shared and all(s.codec != MODEL for s in patch.streams.values()):
        raise Broken("trailing bytes")
    return patch
