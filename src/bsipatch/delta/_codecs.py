"""How a patch's streams are coded: which codec is the smallest, and safe decoding.

The generic codecs live here because the native core depends on nothing; the core's
own range coder (MODEL) codes the rest.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bsipatch._core import Codec, Diff, Stream
from bsipatch.errors import CorruptError, LimitError, TruncatedError
from bsipatch.parallel import each

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: below this no generic codec can win against its own framing
_TINY = 12
#: zstd without these 4 bytes and the frame header is never smaller
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_UNKNOWN_SIZE = (1 << 64) - 1
#: about what a generic stream's entry costs beyond a modelled one's, in bytes
_ENTRY = 2
#: choices closer than this are settled by writing the patch both ways
_CLOSE = 48
#: only while all modelled streams together are shorter than this, in bytes
_CLOSE_PLAIN = 4 << 20
#: lc, lp and pb of LZMA worth a try; LZMA2 carries them, so the decoder need not know
_LZMA_SHAPES = ((3, 0, 2), (3, 0, 0), (0, 2, 2), (0, 0, 0))
#: streams longer than this get the first two shapes only, to save time
_LZMA_ALL_SHAPES = 2 << 20
#: streams from here on are tried at zstd's _QUICK level first, in bytes
_LONG = 256 << 10
_QUICK = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """What a profile spends on coding.

    hopeless: how many times the modelled size a quick coding of a long stream may have;
    when it has more, no other generic coding is tried.  On the public pairs the thorough
    codings are at most 1.16 (zstd) times smaller than the quick one.
    """

    zstd_level: int
    lzma: bool
    model: bool
    hopeless: float = 0.0


EFFORTS: dict[str, Effort] = {
    "fast": Effort(zstd_level=9, lzma=False, model=False),
    "balanced": Effort(zstd_level=17, lzma=False, model=True, hopeless=1.3),
    "max": Effort(zstd_level=22, lzma=True, model=True, hopeless=1.6),
}


def lzma_dict_size(plain_len: int) -> int:
    """The dictionary of a stream's LZMA2 coding: a rule, so that it need not be stored."""
    return min(max(1 << max(plain_len - 1, 0).bit_length(), 4 << 10), 64 << 20)


def zstd_window_log(plain_len: int) -> int:
    """The largest window that a stream's zstd frame may ask for, as a power of two."""
    return min(max(max(plain_len - 1, 0).bit_length(), 10), 27)


# --- decoding ---


def decode(stream: Stream) -> bytes:
    """The plain bytes of a ZSTD or LZMA stream, exactly plain_len of them.

    Never makes more than plain_len + 1 bytes, whatever the coded bytes say.
    Raises: CorruptError, TruncatedError, LimitError.
    """
    place = f"stream {stream.id}"
    if stream.data is None or stream.codec not in (Codec.ZSTD, Codec.LZMA):
        raise CorruptError(f"{place} is not coded by a generic codec")
    decoder = _decode_zstd if stream.codec == Codec.ZSTD else _decode_lzma
    try:
        plain = decoder(stream.data, stream.plain_len, place)
    except (MemoryError, OverflowError) as error:
        raise LimitError(f"{place} does not fit in memory", found=stream.plain_len) from error
    if len(plain) != stream.plain_len:
        raise CorruptError(f"{place}: decoded size", expected=stream.plain_len, found=len(plain))
    return plain


def _decode_zstd(data: memoryview, plain_len: int, place: str) -> bytes:
    import zstandard

    if bytes(data[:4]) != _ZSTD_MAGIC:
        raise CorruptError(f"{place} is not a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise CorruptError(f"{place}: {error}") from error
    # A declared size would be trusted by the decoder, a checksum would be a second truth.
    if frame.content_size != _UNKNOWN_SIZE or frame.has_checksum or frame.dict_id:
        raise CorruptError(f"{place}: zstd frame with size, checksum or dictionary")
    window = 1 << zstd_window_log(plain_len)
    if frame.window_size > window:
        raise CorruptError(f"{place}: zstd window", expected=window, found=frame.window_size)
    _check_frame_ends(data, zstandard.frame_header_size(data), place)
    decoder = zstandard.ZstdDecompressor(max_window_size=window)
    try:
        return decoder.decompress(data, max_output_size=plain_len + 1)
    except zstandard.ZstdError as error:
        raise CorruptError(f"{place}: {error}") from error


def _check_frame_ends(data: memoryview, header_len: int, place: str) -> None:
    """The one frame must end where the bytes do; the library does not say when it has not."""
    at = header_len
    last = False
    while not last:
        if at + 3 > len(data):
            raise TruncatedError(place)
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        at += 3 + (1 if kind == 1 else size)  # kind 1 repeats a single byte
    if at > len(data):
        raise TruncatedError(place)
    if at < len(data):
        raise CorruptError(f"{place}: bytes after the end of its zstd frame")


def _decode_lzma(data: memoryview, plain_len: int, place: str) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": lzma_dict_size(plain_len)}]
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    try:
        plain = decoder.decompress(data, plain_len + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise CorruptError(f"{place}: {error}") from error
    if not decoder.eof and len(plain) <= plain_len:
        raise TruncatedError(place)
    if decoder.eof and decoder.unused_data:
        raise CorruptError(f"{place}: bytes after the end of its LZMA data")
    return plain


# --- encoding ---


def encode_zstd(plain: Buffer, level: int) -> bytes:
    """One frame without content size, checksum or dictionary id."""
    import zstandard

    with memoryview(plain) as view:
        plain_len = view.nbytes
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=plain_len,
            window_log=zstd_window_log(plain_len),
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        coded: bytes = zstandard.ZstdCompressor(compression_params=parameters).compress(view)
        return coded


def encode_lzma(plain: Buffer, shape: tuple[int, int, int]) -> bytes:
    """Raw LZMA2 with the given lc, lp and pb."""
    lc, lp, pb = shape
    with memoryview(plain) as view:
        return lzma.compress(
            view,
            format=lzma.FORMAT_RAW,
            filters=[
                {
                    "id": lzma.FILTER_LZMA2,
                    "preset": 9 | lzma.PRESET_EXTREME,
                    "dict_size": lzma_dict_size(view.nbytes),
                    "lc": lc,
                    "lp": lp,
                    "pb": pb,
                }
            ],
        )


@dataclass(frozen=True, slots=True)
class _Choice:
    """One way to code one stream, and about what it costs, in bytes."""

    cost: int
    codec: Codec
    encoded: bytes | None = None


def _hopeless(
    streams: Sequence[Stream], effort: Effort, jobs: int, tick: Callable[[], None] | None
) -> set[int]:
    """The long streams that no generic codec will make as small as the model does."""
    if not effort.model:
        return set()
    long = [i for i, stream in enumerate(streams) if stream.plain_len >= _LONG]
    found: set[int] = set()

    def run(number: int) -> None:
        stream = streams[long[number]]
        if stream.data is not None:
            quick = len(encode_zstd(stream.data, _QUICK))
            if quick > effort.hopeless * stream.modelled_len:
                found.add(long[number])

    each(len(long), jobs, run, tick=tick)
    return found


def _generic_choices(
    streams: Sequence[Stream], effort: Effort, jobs: int, tick: Callable[[], None] | None
) -> list[_Choice]:
    """The smallest of PLAIN, ZSTD and LZMA for each stream."""
    tries: list[tuple[int, Codec, Callable[[Buffer], bytes]]] = []
    best = [_Choice(stream.plain_len + _ENTRY, Codec.PLAIN) for stream in streams]
    hopeless = _hopeless(streams, effort, jobs, tick)
    for position, stream in enumerate(streams):
        if stream.plain_len < _TINY or position in hopeless:
            continue
        tries.append((position, Codec.ZSTD, partial(encode_zstd, level=effort.zstd_level)))
        if effort.lzma:
            shapes = _LZMA_SHAPES if stream.plain_len <= _LZMA_ALL_SHAPES else _LZMA_SHAPES[:2]
            tries += [(position, Codec.LZMA, partial(encode_lzma, shape=s)) for s in shapes]
    # The longest first, so that the threads end together.
    order = sorted(range(len(tries)), key=lambda i: (-streams[tries[i][0]].plain_len, i))
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        position, _, encoder = tries[order[number]]
        data = streams[position].data
        if data is not None:
            coded = encoder(data)
            if len(coded) < len(data):
                results[order[number]] = coded

    each(len(tries), jobs, run, tick=tick)
    for index in sorted(results):
        position, codec, _ = tries[index]
        cost = len(results[index]) + _ENTRY
        if cost < best[position].cost:
            best[position] = _Choice(cost, codec, results[index])
    return best


def code_streams(
    diff: Diff,
    profile: str,
    old_check: bytes,
    new_check: bytes,
    *,
    jobs: int = 1,
    tick: Callable[[], None] | None = None,
) -> bytes:
    """Chooses each stream's codec and gives the smallest patch found.

    A generic codec's cost is known exactly, a modelled stream's only about: where the
    two are close the patch is written both ways.  MODEL streams share one coder, whose
    own few bytes are paid once, so the patch without any is always tried as well.
    The result depends on the inputs alone, never on `jobs`.
    """
    effort = EFFORTS[profile]
    streams = diff.streams()
    try:
        generic = _generic_choices(streams, effort, jobs, tick)
        modelled = [_Choice(stream.modelled_len, Codec.MODEL) for stream in streams]
        sizes = [stream.plain_len for stream in streams]
    finally:
        for stream in streams:
            if stream.data is not None:
                stream.data.release()

    def write(choices: Sequence[_Choice]) -> bytes:
        for index, choice in enumerate(choices):
            diff.set_codec(index, choice.codec, choice.encoded)
        return diff.finish(old_check, new_check)

    best = write(generic)
    if not effort.model:
        return best
    chosen = [
        model if size and model.cost < plain.cost else plain
        for model, plain, size in zip(modelled, generic, sizes, strict=True)
    ]
    if all(choice.codec != Codec.MODEL for choice in chosen):
        return best
    mixed = write(chosen)
    modelled_plain = sum(
        size for choice, size in zip(chosen, sizes, strict=True) if choice.codec == Codec.MODEL
    )
    if modelled_plain <= _CLOSE_PLAIN:
        for index, (model, plain) in enumerate(zip(modelled, generic, strict=True)):
            if not sizes[index] or abs(model.cost - plain.cost) > _CLOSE:
                continue
            trial = list(chosen)
            trial[index] = plain if chosen[index].codec == Codec.MODEL else model
            written = write(trial)
            if len(written) < len(mixed):
                chosen, mixed = trial, written
    return min(best, mixed, key=len)
