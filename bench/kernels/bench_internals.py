"""Kernels inside the core, by the library that the unit tests use: cover search, entropy coding."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.native import load

CDEF = """
typedef struct { uint64_t budget; uint64_t in_use; uint64_t peak; uint8_t rest[64]; } bspi_heap;
typedef struct { bspi_heap *heap; uint8_t *bytes; size_t len; size_t capacity; uint8_t rest[64]; }
    bspi_buffer;
typedef struct { uint8_t rest[128]; } bspi_encoder;
typedef struct { uint8_t rest[128]; } bspi_decoder;
typedef struct { uint32_t contexts, selectors, table_bits, match_bits; } bspi_byte_options;
typedef struct { uint64_t new_off, old_off, len; } bspi_cover;
typedef struct { bspi_heap *heap; bspi_cover *items; size_t count; size_t capacity; }
    bspi_cover_list;
typedef struct { unsigned jobs; unsigned effort; } bspi_match_options;
typedef struct bspi_byte_model bspi_byte_model;
void bspi_heap_init(bspi_heap *heap, uint64_t budget);
void bspi_free(bspi_heap *heap, void *block);
void bspi_encoder_init(bspi_encoder *encoder, bspi_buffer *out);
void bspi_encoder_bit(bspi_encoder *encoder, uint16_t p, unsigned bit);
void bspi_encoder_raw(bspi_encoder *encoder, uint64_t value, unsigned bits);
_Bool bspi_encoder_flush(bspi_encoder *encoder);
void bspi_decoder_init(bspi_decoder *decoder, const uint8_t *data, size_t len);
uint64_t bspi_decoder_raw(bspi_decoder *decoder, unsigned bits);
bspi_byte_options bspi_byte_options_for(uint32_t contexts, uint32_t selectors, uint64_t len);
bspi_byte_model *bspi_byte_model_new(bspi_heap *heap, const bspi_byte_options *options);
void bspi_byte_model_free(bspi_byte_model *model);
void bspi_byte_encode(bspi_byte_model *model, bspi_encoder *encoder, const uint32_t *contexts,
                      uint32_t selector, uint8_t byte);
int bspi_match(bspi_heap *heap, const uint8_t *old, uint64_t old_size, const uint8_t *new_,
               uint64_t new_size, const bspi_match_options *options, void *control,
               bspi_cover_list *cover, void *fault);
"""

ffi, lib = load(CDEF)
Pair = tuple[bytes, bytes]
_NUMBERS = 20_000
_BYTES = 20_000


@pytest.fixture
def heap() -> Any:
    made = ffi.new("bspi_heap *")
    lib.bspi_heap_init(made, 0)
    return made


def _buffer(heap: Any) -> Any:
    made = ffi.new("bspi_buffer *")
    made.heap = heap
    return made


@pytest.mark.parametrize("effort", [0, 1, 2], ids=["quick", "normal", "thorough"])
def test_cover(benchmark: Any, heap: Any, pair: Pair, effort: int) -> None:
    """The search on raw bytes, one thread."""
    old, new = (ffi.from_buffer(data) for data in pair)
    options = ffi.new("bspi_match_options *", {"jobs": 1, "effort": effort})

    def run() -> int:
        cover = ffi.new("bspi_cover_list *")
        cover.heap = heap
        status = lib.bspi_match(
            heap, old, len(pair[0]), new, len(pair[1]), options, ffi.NULL, cover, ffi.NULL
        )
        assert status == 0
        count: int = cover.count
        lib.bspi_free(heap, cover.items)
        return count

    benchmark.extra_info["entries"] = benchmark(run)


def test_range_encoder(benchmark: Any, heap: Any) -> None:
    """Numbers of 64 equally likely bits: the coder alone, and little of the call."""
    draw = random.Random(5)
    values = [draw.getrandbits(64) for _ in range(_NUMBERS)]

    def run() -> None:
        out, encoder = _buffer(heap), ffi.new("bspi_encoder *")
        lib.bspi_encoder_init(encoder, out)
        for value in values:
            lib.bspi_encoder_raw(encoder, value, 64)
        assert lib.bspi_encoder_flush(encoder)
        lib.bspi_free(heap, out.bytes)

    benchmark.extra_info["bits"] = 64 * _NUMBERS
    benchmark(run)


def test_range_decoder(benchmark: Any) -> None:
    data = random.Random(6).randbytes(8 * _NUMBERS)
    kept = ffi.from_buffer(data)

    def run() -> None:
        decoder = ffi.new("bspi_decoder *")
        lib.bspi_decoder_init(decoder, kept, len(data))
        for _ in range(_NUMBERS):
            lib.bspi_decoder_raw(decoder, 64)

    benchmark.extra_info["bits"] = 64 * _NUMBERS
    benchmark(run)


@pytest.mark.parametrize("contexts", [1, 4, 8])
def test_byte_model(benchmark: Any, heap: Any, pair: Pair, contexts: int) -> None:
    """Coding bytes of code with some contexts; decoding costs the same."""
    data = pair[0][4096 : 4096 + _BYTES]
    options = ffi.new("bspi_byte_options *")
    options[0] = lib.bspi_byte_options_for(contexts, 4, len(data))
    hashes = ffi.new("uint32_t[8]")

    def run() -> None:
        model = lib.bspi_byte_model_new(heap, options)
        out, encoder = _buffer(heap), ffi.new("bspi_encoder *")
        lib.bspi_encoder_init(encoder, out)
        seen = 0
        for place, byte in enumerate(data):
            for order in range(contexts):
                hashes[order] = (seen & (1 << 8 * order) - 1) * 0x9E3779B1 + order & 0xFFFFFFFF
            lib.bspi_byte_encode(model, encoder, hashes, place & 3, byte)
            seen = (seen << 8 | byte) & (1 << 64) - 1
        assert lib.bspi_encoder_flush(encoder)
        lib.bspi_free(heap, out.bytes)
        lib.bspi_byte_model_free(model)

    benchmark.extra_info["bytes"] = len(data)
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
