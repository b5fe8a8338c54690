"""Numbers and bytes of a stream, plain or modelled (docs/format.md, "Codecs")."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference.container import MASK64, Broken, Reader, unzigzag
from tests.reference.entropy import ByteModel, IntModel, RangeDecoder

CONTEXTS = 60


def size_class(value: int) -> int:
    return value.bit_length()


def varint_len(value: int) -> int:
    return max((value.bit_length() + 6) // 7, 1)


class PlainColumn:
    """A stream's plain bytes, number by number."""

    modelled = False

    def __init__(self, data: bytes) -> None:
        self._reader = Reader(data)

    def u64(self, context: int) -> int:
        return self._reader.varint()

    def s64(self, context: int) -> int:
        return unzigzag(self._reader.varint())

    def count(self, least: int) -> int:
        value = self.u64(0)
        if value > self._reader.left // least:
            raise Broken("count")
        return value

    def begin_bytes(self, contexts: int, selectors: int, count: int) -> None:
        if count > self._reader.left:
            raise Broken("bytes")

    def byte(self, hashes: Sequence[int], selector: int) -> int:
        return self._reader.u8()

    def close(self) -> None:
        if self._reader.left:
            raise Broken(f"{self._reader.left} bytes left in a stream")


class ModelColumn:
    """The same out of the entropy coder."""

    modelled = True

    def __init__(self, decoder: RangeDecoder, plain_len: int) -> None:
        self._decoder = decoder
        self._left = plain_len
        self._ints = IntModel(CONTEXTS)
        self._bytes: ByteModel | None = None

    def _account(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise Broken("more than plain_len")

    def u64(self, context: int) -> int:
        value = self._ints.decode(self._decoder, context)
        self._account(varint_len(value))
        return value

    def s64(self, context: int) -> int:
        value = self._ints.decode_signed(self._decoder, context)
        value = (value + (1 << 63) & MASK64) - (1 << 63)
        self._account(varint_len(value * 2 if value >= 0 else -value * 2 - 1))
        return value

    def count(self, least: int) -> int:
        value = self.u64(0)
        if value > self._left // least:
            raise Broken("count")
        return value

    def begin_bytes(self, contexts: int, selectors: int, count: int) -> None:
        if count > self._left:
            raise Broken("bytes")
        if count:
            bits = min(max((count - 1).bit_length(), 4), 24)
            self._bytes = ByteModel(contexts, selectors, min(bits, 17), max(bits, 8))

    def byte(self, hashes: Sequence[int], selector: int) -> int:
        assert self._bytes is not None
        self._account(1)
        return self._bytes.decode(self._decoder, hashes, selector)

    def close(self) -> None:
        if self._left:
            raise Broken("less than plain_len")


Column = PlainColumn | ModelColumn
