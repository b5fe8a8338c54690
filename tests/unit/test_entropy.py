"""The entropy coder: round trips, the reference decoder, hostile bytes, sizes of tiny streams."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import entropy as reference
from tests.support.native import load

CDEF = """
typedef struct bspi_heap {
    uint64_t budget, in_use, peak, requests, fail_at;
} bspi_heap;
void bspi_heap_init(bspi_heap *heap, uint64_t budget);
typedef struct bspi_buffer { bspi_heap *heap; uint8_t *data; size_t len, capacity; } bspi_buffer;
void bspi_buffer_free(bspi_buffer *buffer);

typedef struct bspi_encoder {
    bspi_buffer *out; size_t start; uint32_t low, range; bool failed;
} bspi_encoder;
void bspi_encoder_init(bspi_encoder *encoder, bspi_buffer *out);
void bspi_encoder_bit(bspi_encoder *encoder, uint16_t p, unsigned bit);
void bspi_encoder_raw(bspi_encoder *encoder, uint64_t value, unsigned bits);
bool bspi_encoder_flush(bspi_encoder *encoder);
typedef struct bspi_decoder {
    const uint8_t *data; size_t len, pos; uint64_t overrun; uint32_t code, range;
} bspi_decoder;
void bspi_decoder_init(bspi_decoder *decoder, const uint8_t *data, size_t len);
unsigned bspi_decoder_bit(bspi_decoder *decoder, uint16_t p);
uint64_t bspi_decoder_raw(bspi_decoder *decoder, unsigned bits);
bool bspi_decoder_done(const bspi_decoder *decoder);
uint32_t bspi_bit_cost(uint16_t p, unsigned bit);
typedef struct bspi_bit { uint32_t word; uint8_t limit; } bspi_bit;
void bspi_bit_init(bspi_bit *model, uint16_t p, uint8_t limit);
void bspi_bit_encode(bspi_bit *model, bspi_encoder *encoder, unsigned bit);
unsigned bspi_bit_decode(bspi_bit *model, bspi_decoder *decoder);

typedef struct bspi_int_model {
    bspi_heap *heap; void *contexts; void *shared; uint32_t context_count;
} bspi_int_model;
bool bspi_int_model_init(bspi_int_model *model, bspi_heap *heap, uint32_t contexts);
void bspi_int_model_free(bspi_int_model *model);
void bspi_int_encode(bspi_int_model *, bspi_encoder *, uint32_t context, uint64_t value);
uint64_t bspi_int_decode(bspi_int_model *, bspi_decoder *, uint32_t context);
uint32_t bspi_int_cost(const bspi_int_model *, uint32_t context, uint64_t value);
void bspi_int_encode_signed(bspi_int_model *, bspi_encoder *, uint32_t context, int64_t value);
int64_t bspi_int_decode_signed(bspi_int_model *, bspi_decoder *, uint32_t context);
uint32_t bspi_int_cost_signed(const bspi_int_model *, uint32_t context, int64_t value);

typedef struct bspi_byte_options {
    uint32_t contexts, selectors, table_bits, match_bits;
} bspi_byte_options;
typedef struct bspi_byte_model bspi_byte_model;
bspi_byte_options bspi_byte_options_for(uint32_t contexts, uint32_t selectors, uint64_t len);
bspi_byte_model *bspi_byte_model_new(bspi_heap *heap, const bspi_byte_options *options);
void bspi_byte_model_free(bspi_byte_model *model);
void bspi_byte_model_use_no_vectors(bspi_byte_model *model);
void bspi_byte_encode(bspi_byte_model *, bspi_encoder *, const uint32_t *contexts,
                      uint32_t selector, uint8_t byte);
uint8_t bspi_byte_decode(bspi_byte_model *, bspi_decoder *, const uint32_t *contexts,
                         uint32_t selector);
void bspi_byte_train(bspi_byte_model *, const uint32_t *contexts, uint32_t selector, uint8_t byte);
"""

ffi, lib = load(CDEF)

U64 = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 20),
    st.integers(0, 64).map(lambda bits: (1 << bits) - 1),
)
I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-20, 20),
    st.sampled_from([-(2**63), 2**63 - 1, -1]),
)
# (context, signed, value); context 3 is beyond the last of three.
NUMBERS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 3), st.just(False), U64),
        st.tuples(st.integers(0, 3), st.just(True), I64),
    ),
    max_size=60,
)
Number = tuple[int, bool, int]
# (hashes, selector, byte)
Item = tuple[list[int], int, int]


@pytest.fixture
def heap() -> Iterator[Any]:
    heap = new_heap()
    yield heap
    assert heap.in_use == 0


def new_heap(fail_at: int = 0) -> Any:
    heap: Any = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    heap.fail_at = fail_at
    return heap


def coded(heap: Any, encode: Callable[[Any], object]) -> bytes:
    """What `encode` writes into a fresh encoder."""
    buffer: Any = ffi.new("bspi_buffer *", {"heap": heap})
    encoder = ffi.new("bspi_encoder *")
    lib.bspi_encoder_init(encoder, buffer)
    encode(encoder)
    assert lib.bspi_encoder_flush(encoder)
    data = bytes(ffi.buffer(buffer.data, buffer.len)) if buffer.len else b""
    lib.bspi_buffer_free(buffer)
    return data


def decoder_of(data: bytes) -> tuple[Any, Any]:
    keep = ffi.new("uint8_t[]", data) if data else ffi.new("uint8_t[1]")
    decoder = ffi.new("bspi_decoder *")
    lib.bspi_decoder_init(decoder, keep, len(data))
    return decoder, keep


def encode_numbers(heap: Any, numbers: list[Number], contexts: int = 3) -> bytes:
    def encode(encoder: Any) -> None:
        for context, signed, value in numbers:
            put = lib.bspi_int_encode_signed if signed else lib.bspi_int_encode
            put(model, encoder, context, value)

    model = ffi.new("bspi_int_model *")
    assert lib.bspi_int_model_init(model, heap, contexts)
    data = coded(heap, encode)
    lib.bspi_int_model_free(model)
    return data


def decode_numbers(heap: Any, data: bytes, shape: list[Number], contexts: int = 3) -> list[int]:
    model = ffi.new("bspi_int_model *")
    assert lib.bspi_int_model_init(model, heap, contexts)
    decoder, _keep = decoder_of(data)
    values = []
    for context, signed, _ in shape:
        get = lib.bspi_int_decode_signed if signed else lib.bspi_int_decode
        values.append(get(model, decoder, context))
    lib.bspi_int_model_free(model)
    return values


def reference_numbers(data: bytes, shape: list[Number], contexts: int = 3) -> list[int]:
    decoder = reference.RangeDecoder(data)
    model = reference.IntModel(contexts)
    return [
        (model.decode_signed if signed else model.decode)(decoder, context)
        for context, signed, _ in shape
    ]


def byte_model(heap: Any, contexts: int, selectors: int, table_bits: int, match_bits: int) -> Any:
    options = ffi.new("bspi_byte_options *", [contexts, selectors, table_bits, match_bits])
    return lib.bspi_byte_model_new(heap, options)


def encode_bytes(heap: Any, items: list[Item], options: tuple[int, int, int, int]) -> bytes:
    def encode(encoder: Any) -> None:
        for hashes, selector, byte in items:
            lib.bspi_byte_encode(model, encoder, hashes, selector, byte)

    model = byte_model(heap, *options)
    assert model
    data = coded(heap, encode)
    lib.bspi_byte_model_free(model)
    return data


def decode_bytes(
    heap: Any, data: bytes, shape: list[Item], options: tuple[int, int, int, int]
) -> list[int]:
    model = byte_model(heap, *options)
    decoder, _keep = decoder_of(data)
    values = [lib.bspi_byte_decode(model, decoder, h, selector) for h, selector, _ in shape]
    lib.bspi_byte_model_free(model)
    return values


def text_items(data: bytes, contexts: int) -> list[Item]:
    """Orders 0 to contexts - 1 as contexts, the place modulo 4 as the selector."""
    return [
        (
            [zlib.crc32(data[max(i - n, 0) : i], n) for n in range(contexts)],
            i & 3,
            byte,
        )
        for i, byte in enumerate(data)
    ]


# --- the range coder ---


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 1)), max_size=400))
def test_bits_round_trip(bits: list[tuple[int, int]]) -> None:
    heap = new_heap()
    data = coded(heap, lambda e: [lib.bspi_encoder_bit(e, p, bit) for p, bit in bits])
    decoder, _keep = decoder_of(data)
    assert [lib.bspi_decoder_bit(decoder, p) for p, _ in bits] == [bit for _, bit in bits]
    assert lib.bspi_decoder_done(decoder)
    plain = reference.RangeDecoder(data)
    assert [plain.bit(p) for p, _ in bits] == [bit for _, bit in bits]
    assert plain.done()
    assert heap.in_use == 0


@given(st.lists(st.tuples(st.integers(1, 16), st.booleans()), max_size=300))
def test_carries_reach_every_byte_before_them(steps: list[tuple[int, bool]]) -> None:
    """Bits that hug the upper edge of the interval make runs of 0xFF and then a carry."""
    heap = new_heap()
    bits = [(1 << (k % 16) or 1, int(up)) for k, up in steps] + [(65535, 1)] * 20
    data = coded(heap, lambda e: [lib.bspi_encoder_bit(e, p, bit) for p, bit in bits])
    decoder, _keep = decoder_of(data)
    assert [lib.bspi_decoder_bit(decoder, p) for p, _ in bits] == [bit for _, bit in bits]


@given(st.lists(st.tuples(U64, st.integers(0, 64)), max_size=50))
def test_raw_round_trip(values: list[tuple[int, int]]) -> None:
    heap = new_heap()
    data = coded(heap, lambda e: [lib.bspi_encoder_raw(e, v, n) for v, n in values])
    decoder, _keep = decoder_of(data)
    plain = reference.RangeDecoder(data)
    for value, bits in values:
        wanted = value & ((1 << bits) - 1)
        assert lib.bspi_decoder_raw(decoder, bits) == wanted
        assert plain.raw(bits) == wanted


def test_the_code_leaves_what_was_in_the_buffer_before(heap: Any) -> None:
    buffer: Any = ffi.new("bspi_buffer *", {"heap": heap})
    first, second = ffi.new("bspi_encoder *"), ffi.new("bspi_encoder *")
    lib.bspi_encoder_init(first, buffer)
    lib.bspi_encoder_raw(first, 0xABCD00FF, 32)
    assert lib.bspi_encoder_flush(first)
    before = bytes(ffi.buffer(buffer.data, buffer.len))
    lib.bspi_encoder_init(second, buffer)
    for _ in range(1000):
        lib.bspi_encoder_bit(second, 65535, 0)
    assert lib.bspi_encoder_flush(second)
    assert bytes(ffi.buffer(buffer.data, buffer.len))[: len(before)] == before
    lib.bspi_buffer_free(buffer)


def test_done_tells_superfluous_bytes(heap: Any) -> None:
    data = coded(heap, lambda e: lib.bspi_encoder_raw(e, 0x1234, 16))
    for extra in (b"", b"\0", b"\0" * 9, b"12345678"):
        decoder, _keep = decoder_of(data + extra)
        assert lib.bspi_decoder_raw(decoder, 16) == 0x1234
        assert lib.bspi_decoder_done(decoder) == (extra == b"")


def test_cost_is_minus_log2() -> None:
    assert lib.bspi_bit_cost(32768, 0) == lib.bspi_bit_cost(32768, 1) == 256
    assert lib.bspi_bit_cost(1, 1) == 16 * 256
    assert lib.bspi_bit_cost(1, 0) == 0
    assert lib.bspi_bit_cost(65535, 1) == 0
    assert lib.bspi_bit_cost(16384, 1) == 512


def test_a_predictable_flag_costs_next_to_nothing(heap: Any) -> None:
    flag = ffi.new("bspi_bit *")
    lib.bspi_bit_init(flag, 32768, 255)

    def encode(encoder: Any) -> None:
        lib.bspi_bit_encode(flag, encoder, 1)
        for i in range(1_000_000):
            lib.bspi_bit_encode(flag, encoder, int(i % 100_000 == 7))

    data = coded(heap, encode)
    assert len(data) <= 30
    decoder = reference.RangeDecoder(data)
    plain = reference.AdaptiveBit()
    assert plain.decode(decoder) == 1
    assert [i for i in range(20_000) if plain.decode(decoder)] == [7]


# --- whole numbers ---


@given(NUMBERS)
def test_numbers_round_trip(numbers: list[Number]) -> None:
    heap = new_heap()
    data = encode_numbers(heap, numbers)
    values = [value for _, _, value in numbers]
    assert decode_numbers(heap, data, numbers) == values
    assert reference_numbers(data, numbers) == values
    assert heap.in_use == 0


@given(NUMBERS, st.binary(max_size=40))
def test_any_bytes_decode_to_some_numbers(shape: list[Number], data: bytes) -> None:
    heap = new_heap()
    assert decode_numbers(heap, data, shape) == reference_numbers(data, shape)


@pytest.mark.parametrize("seed", range(4))
def test_long_columns_agree_with_the_reference(heap: Any, seed: int) -> None:
    rng = random.Random(seed)
    numbers: list[Number] = []
    for i in range(1500):
        value = rng.choice([4711, 4711, -4711, rng.randrange(-500, 500) * 4, 0])
        numbers.append((i % 3, True, value))
        numbers.append((seed % 4, False, rng.getrandbits(rng.randrange(1, 65))))
    data = encode_numbers(heap, numbers)
    assert reference_numbers(data, numbers) == [value for _, _, value in numbers]


def encode_priced(heap: Any, numbers: list[Number]) -> tuple[bytes, int]:
    """The code and the sum of the prices asked for before each number, in 1/256 bits."""
    model = ffi.new("bspi_int_model *")
    assert lib.bspi_int_model_init(model, heap, 3)
    total = 0

    def encode(encoder: Any) -> None:
        nonlocal total
        for context, signed, value in numbers:
            price = lib.bspi_int_cost_signed if signed else lib.bspi_int_cost
            put = lib.bspi_int_encode_signed if signed else lib.bspi_int_encode
            total += price(model, context, value)
            put(model, encoder, context, value)

    data = coded(heap, encode)
    lib.bspi_int_model_free(model)
    return data, total


@given(NUMBERS)
def test_asking_the_price_changes_nothing(numbers: list[Number]) -> None:
    heap = new_heap()
    assert encode_priced(heap, numbers)[0] == encode_numbers(heap, numbers)


def test_the_price_is_what_it_costs(heap: Any) -> None:
    rng = random.Random(11)
    numbers = [
        (i % 3, i % 2 == 0, int(rng.expovariate(0.001)) * rng.choice([1, 4])) for i in range(4000)
    ]
    data, total = encode_priced(heap, numbers)
    assert abs(total / 2048 / len(data) - 1) < 0.01


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ([], 0),
        ([0] * 100_000, 0),
        ([1], 1),
        ([5], 1),
        ([300], 2),
        ([4711] * 20_000, 10),
        ([1, 0, 2, 1, 1, 3, 0, 0, 1, 5, 2, 1, 0, 1, 0, 2, 2, 1, 0, 1], 7),
        ([8 * n for n in range(20)], 18),
    ],
    ids=["nothing", "zeros", "1", "5", "300", "constant", "20 small", "20 multiples"],
)
def test_tiny_columns_are_tiny(heap: Any, values: list[int], most: int) -> None:
    data = encode_numbers(heap, [(0, False, value) for value in values], contexts=1)
    print(len(data))
    assert len(data) <= most


def test_a_nearly_constant_column_costs_far_below_a_tenth_of_a_bit(heap: Any) -> None:
    values = [123456 if i % 5000 else i for i in range(50_000)]
    data = encode_numbers(heap, [(0, True, value) for value in values], contexts=1)
    assert len(data) * 8 < 0.02 * len(values)


# --- bytes ---

OPTIONS = st.tuples(
    st.integers(1, 8), st.integers(1, 5), st.integers(4, 9), st.sampled_from([0, 8, 9])
)


@st.composite
def byte_streams(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], list[Item]]:
    options = draw(OPTIONS)
    hashes = st.lists(
        st.integers(0, 2**32 - 1) | st.integers(0, 2),
        min_size=options[0],
        max_size=options[0],
    )
    byte = st.integers(0, 255) | st.integers(65, 67)
    return options, draw(st.lists(st.tuples(hashes, st.integers(0, 5), byte), max_size=40))


@settings(deadline=None)
@given(byte_streams())
def test_bytes_round_trip(stream: tuple[tuple[int, int, int, int], list[Item]]) -> None:
    options, items = stream
    heap = new_heap()
    data = encode_bytes(heap, items, options)
    values = [byte for _, _, byte in items]
    assert decode_bytes(heap, data, items, options) == values
    decoder = reference.RangeDecoder(data)
    plain = reference.ByteModel(*options)
    assert [plain.decode(decoder, h, selector) for h, selector, _ in items] == values
    assert heap.in_use == 0


@settings(deadline=None)
@given(byte_streams(), st.binary(max_size=60))
def test_any_bytes_decode_to_some_bytes(
    stream: tuple[tuple[int, int, int, int], list[Item]], data: bytes
) -> None:
    options, shape = stream
    values = decode_bytes(new_heap(), data, shape, options)
    decoder = reference.RangeDecoder(data)
    plain = reference.ByteModel(*options)
    assert [plain.decode(decoder, h, selector) for h, selector, _ in shape] == values


@pytest.mark.parametrize(
    "options", [(4, 4, 6, 10), (6, 4, 12, 13), (1, 1, 4, 0), (8, 2, 9, 8)], ids=str
)
def test_long_streams_agree_with_the_reference(
    heap: Any, options: tuple[int, int, int, int]
) -> None:
    """Crowded tables, a ring that wraps, matches broken by single bytes."""
    rng = random.Random(7)
    phrases = [rng.randbytes(rng.randrange(5, 60)) for _ in range(12)]
    text = bytearray()
    while len(text) < 3000:
        phrase = bytearray(rng.choice(phrases))
        phrase[rng.randrange(len(phrase))] ^= rng.choice([0, 0, 1])
        text += phrase
    items = text_items(bytes(text), options[0])
    data = encode_bytes(heap, items, options)
    assert len(data) < len(text)
    decoder = reference.RangeDecoder(data)
    plain = reference.ByteModel(*options)
    assert bytes(plain.decode(decoder, h, s) for h, s, _ in items) == bytes(text)
    assert decode_bytes(heap, data, items, options) == list(text)


@pytest.mark.parametrize("contexts", range(1, 9))
@pytest.mark.parametrize("match_bits", [0, 9])
def test_vectors_code_what_every_machine_codes(heap: Any, contexts: int, match_bits: int) -> None:
    """And learn the same, in tables where much is new and much is thrown out."""
    rng = random.Random(contexts)
    words = [rng.randbytes(rng.randrange(2, 40)) for _ in range(30)]
    text = b"".join(rng.choice([rng.choice(words), rng.randbytes(2)]) for _ in range(400))
    items = text_items(text, contexts)
    made = []
    for plainly in (False, True):
        model = byte_model(heap, contexts, 3, 7, match_bits)
        if plainly:
            lib.bspi_byte_model_use_no_vectors(model)

        def encode(encoder: Any, model: Any = model) -> None:
            for number, (hashes, selector, byte) in enumerate(items):
                if number % 5 == 3:
                    lib.bspi_byte_train(model, hashes, selector, byte)
                else:
                    lib.bspi_byte_encode(model, encoder, hashes, selector, byte)

        made.append(coded(heap, encode))
        lib.bspi_byte_model_free(model)
    assert made[0] == made[1]
    assert len(made[0]) < len(text)


def test_training_makes_known_bytes_cheap(heap: Any) -> None:
    text = random.Random(3).randbytes(500)
    items = text_items(text, 4)
    model = byte_model(heap, 4, 4, 10, 10)

    def encode(encoder: Any) -> None:
        for hashes, selector, byte in items:
            lib.bspi_byte_encode(model, encoder, hashes, selector, byte)

    for hashes, selector, byte in items:
        lib.bspi_byte_train(model, hashes, selector, byte)
    data = coded(heap, encode)
    lib.bspi_byte_model_free(model)
    assert len(data) < 100

    plain = reference.ByteModel(4, 4, 10, 10)
    for hashes, selector, byte in items:
        plain.decode(None, hashes, selector, byte)
    decoder = reference.RangeDecoder(data)
    assert bytes(plain.decode(decoder, h, s) for h, s, _ in items) == text


@pytest.mark.parametrize("text", [b"", b"\0", b"a", b"hello, hello, hello, hello"])
def test_tiny_byte_streams_are_tiny(heap: Any, text: bytes) -> None:
    options = lib.bspi_byte_options_for(4, 4, len(text))
    data = encode_bytes(
        heap,
        text_items(text, 4),
        (options.contexts, options.selectors, options.table_bits, options.match_bits),
    )
    assert len(data) <= min(len(text) + 1, 14)


@pytest.mark.parametrize(
    "options",
    [
        (0, 1, 8, 0),
        (9, 1, 8, 0),
        (1, 0, 8, 0),
        (1, 65, 8, 0),
        (1, 1, 3, 0),
        (1, 1, 23, 0),
        (1, 1, 8, 7),
        (1, 1, 8, 25),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(heap: Any, options: tuple[int, int, int, int]) -> None:
    assert byte_model(heap, *options) == ffi.NULL


# --- memory ---


def test_every_refused_allocation_is_survived() -> None:
    for fail_at in range(1, 12):
        heap = new_heap(fail_at)
        model = byte_model(heap, 3, 2, 6, 8)
        lib.bspi_byte_model_free(model)
        numbers = ffi.new("bspi_int_model *")
        if lib.bspi_int_model_init(numbers, heap, 2):
            lib.bspi_int_model_free(numbers)
        assert heap.in_use == 0


def test_a_refused_byte_sticks() -> None:
    heap = new_heap(fail_at=2)
    buffer: Any = ffi.new("bspi_buffer *", {"heap": heap})
    encoder = ffi.new("bspi_encoder *")
    lib.bspi_encoder_init(encoder, buffer)
    for i in range(1000):
        lib.bspi_encoder_raw(encoder, i * 7919, 16)
    assert not lib.bspi_encoder_flush(encoder)
    lib.bspi_buffer_free(buffer)
    assert heap.in_use == 0
