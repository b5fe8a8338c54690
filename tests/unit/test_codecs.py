"""Generic stream codecs: exact sizes, no bombs, no second truths."""

from __future__ import annotations

import lzma
import random
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bsipatch import errors
from bsipatch._core import Codec
from bsipatch.delta import _codecs

PLAIN = b"".join(random.Random(5).choices([b"alpha", b"beta", b"gamma", b"\0\1\2\3"], k=4000))


def stream(codec: Codec, data: bytes, plain_len: int) -> Any:
    return SimpleNamespace(id=1, codec=codec, data=memoryview(data), plain_len=plain_len)


def coded(codec: Codec, plain: bytes) -> bytes:
    if codec == Codec.ZSTD:
        return _codecs.encode_zstd(plain, 19)
    return _codecs.encode_lzma(plain, (3, 0, 2))


BOTH = pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZMA])


@BOTH
@given(plain=st.binary(max_size=5000))
def test_round_trip(codec: Codec, plain: bytes) -> None:
    assert _codecs.decode(stream(codec, coded(codec, plain), len(plain))) == plain


@BOTH
def test_wrong_lengths_are_refused(codec: Codec) -> None:
    data = coded(codec, PLAIN)
    for wrong in (0, 1, len(PLAIN) - 1, len(PLAIN) + 1, len(PLAIN) * 2):
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(codec, data, wrong))


@BOTH
def test_truncation_and_trailing_bytes_are_refused(codec: Codec) -> None:
    data = coded(codec, PLAIN)
    for cut in range(len(data)):
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(codec, data[:cut], len(PLAIN)))
    for tail in (b"\0", data):
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(codec, data + tail, len(PLAIN)))


@BOTH
def test_bit_flips_never_escape(codec: Codec) -> None:
    data = coded(codec, PLAIN[:300])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        try:
            plain = _codecs.decode(stream(codec, bytes(damaged), 300))
        except errors.BsipatchError:
            continue
        assert len(plain) == 300


def test_bombs_stop_at_the_declared_length() -> None:
    zeros = bytes(64 << 20)
    for codec in (Codec.ZSTD, Codec.LZMA):
        data = (
            zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
            if codec == Codec.ZSTD
            else coded(codec, zeros)
        )
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(codec, data, 1000))


def test_zstd_frames_of_another_shape_are_refused() -> None:
    shapes = [
        {"write_content_size": True},
        {"write_content_size": False, "write_checksum": True},
    ]
    for shape in shapes:
        data = zstandard.ZstdCompressor(**shape).compress(PLAIN)
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(Codec.ZSTD, data, len(PLAIN)))
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    with pytest.raises(errors.CorruptError):
        _codecs.decode(stream(Codec.ZSTD, skippable, len(PLAIN)))
    with pytest.raises(errors.CorruptError):
        _codecs.decode(stream(Codec.ZSTD, skippable + coded(Codec.ZSTD, PLAIN), len(PLAIN)))


def test_zstd_windows_beyond_the_rule_are_refused() -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=24, write_content_size=0)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    data = compressor.compress(PLAIN) + compressor.flush()
    with pytest.raises(errors.CorruptError):
        _codecs.decode(stream(Codec.ZSTD, data, len(PLAIN)))


def test_lzma_container_formats_are_refused() -> None:
    for data in (lzma.compress(PLAIN), lzma.compress(PLAIN, format=lzma.FORMAT_ALONE)):
        with pytest.raises(errors.CorruptError):
            _codecs.decode(stream(Codec.LZMA, data, len(PLAIN)))


@pytest.mark.parametrize(
    ("plain_len", "dictionary", "window_log"),
    [
        (0, 4096, 10),
        (4096, 4096, 12),
        (4097, 8192, 13),
        (1 << 26, 1 << 26, 26),
        (1 << 40, 1 << 26, 27),
    ],
)
def test_size_rules(plain_len: int, dictionary: int, window_log: int) -> None:
    assert _codecs.lzma_dict_size(plain_len) == dictionary
    assert _codecs.zstd_window_log(plain_len) == window_log


@pytest.mark.parametrize(("modelled", "tried"), [(60_000, False), (400_000, True)])
def test_long_streams_are_tried_thoroughly_only_where_that_may_pay(
    monkeypatch: pytest.MonkeyPatch, modelled: int, tried: bool
) -> None:
    """A quick coding of 300,000 random nibbles has about 150,000 bytes."""
    plain = bytes(random.Random(4).choices(range(16), k=300_000))
    levels: list[int] = []
    real = _codecs.encode_zstd

    def watched(data: Any, level: int) -> bytes:
        levels.append(level)
        return real(data, level)

    monkeypatch.setattr(_codecs, "encode_zstd", watched)
    one = SimpleNamespace(data=memoryview(plain), plain_len=len(plain), modelled_len=modelled)
    (choice,) = _codecs._generic_choices([one], _codecs.EFFORTS["balanced"], 1, None)  # type: ignore[list-item]
    assert (17 in levels) == tried
    assert (choice.codec == Codec.ZSTD) == tried
