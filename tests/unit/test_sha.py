"""SHA-256 and SHA-1 of the core: published vectors, hashlib, and every path against the oracle."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.native import load

ffi, lib = load(
    """
    typedef void bspi_sha256_compress(uint32_t *state, const uint8_t *blocks, size_t count);
    void bspi_sha256_portable(uint32_t *state, const uint8_t *blocks, size_t count);
    bspi_sha256_compress *bspi_sha256_x86_64(void);
    bspi_sha256_compress *bspi_sha256_arm64(void);
    bspi_sha256_compress *bspi_sha256_best(void);
    void bspi_sha256(bspi_sha256_compress *compress, const uint8_t *data, size_t len,
                     uint8_t *digest);
    typedef void bspi_sha256_compress_two(uint32_t *first, const uint8_t *first_blocks,
                                          uint32_t *second, const uint8_t *second_blocks,
                                          size_t count);
    bspi_sha256_compress_two *bspi_sha256_two(void);
    void bspi_sha256_pair(bspi_sha256_compress *compress, bspi_sha256_compress_two *two,
                          const uint8_t *first, const uint8_t *second, size_t len,
                          uint8_t *first_digest, uint8_t *second_digest);
    typedef void bspi_sha256_compress_lanes(uint32_t *states, const uint8_t *data,
                                            size_t stride, size_t count);
    bspi_sha256_compress_lanes *bspi_sha256_lanes(void);
    void bspi_sha256_pages(bspi_sha256_compress_lanes *lanes, const uint8_t *data, size_t page,
                           uint8_t *digests);
    void bsp_sha256(const uint8_t *data, size_t len, uint8_t *digest);
    void bspi_sha1(const uint8_t *data, size_t len, uint8_t *digest);
    """
)

PORTABLE = ffi.cast("bspi_sha256_compress *", ffi.addressof(lib, "bspi_sha256_portable"))
PATHS = {
    "portable": PORTABLE,
    "x86_64": lib.bspi_sha256_x86_64(),
    "arm64": lib.bspi_sha256_arm64(),
    "best": lib.bspi_sha256_best(),
}
HERE = [name for name, path in PATHS.items() if path != ffi.NULL]

# FIPS 180-4 examples and NIST's short and long messages.
VECTORS = [
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        b"".join(bytes(range(97 + i, 105 + i)) for i in range(14)),
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]
SHA1_VECTORS = [
    (b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
    ),
    (b"a" * 1_000_000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
]


def sha256(path: str, data: bytes) -> str:
    digest = ffi.new("uint8_t[32]")
    lib.bspi_sha256(PATHS[path], ffi.from_buffer("uint8_t[]", data), len(data), digest)
    return bytes(digest).hex()


def sha1(data: bytes) -> str:
    digest = ffi.new("uint8_t[20]")
    lib.bspi_sha1(ffi.from_buffer("uint8_t[]", data), len(data), digest)
    return bytes(digest).hex()


@pytest.mark.parametrize("path", HERE)
@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_sha256_vectors(path: str, data: bytes, expected: str) -> None:
    assert sha256(path, data) == expected


@pytest.mark.parametrize(("data", "expected"), SHA1_VECTORS)
def test_sha1_vectors(data: bytes, expected: str) -> None:
    assert sha1(data) == expected


@pytest.mark.parametrize("path", HERE)
def test_every_length_around_the_block_size(path: str) -> None:
    data = random.Random(1).randbytes(300)
    for length in range(301):
        piece = data[:length]
        assert sha256(path, piece) == hashlib.sha256(piece).hexdigest()
        assert sha1(piece) == hashlib.sha1(piece).hexdigest()


@given(st.binary(max_size=5000))
def test_paths_agree_with_hashlib(data: bytes) -> None:
    expected = hashlib.sha256(data).hexdigest()
    assert {sha256(path, data) for path in HERE} == {expected}
    assert sha1(data) == hashlib.sha1(data).hexdigest()


@pytest.mark.parametrize("path", HERE)
def test_unaligned_data(path: str) -> None:
    data = random.Random(2).randbytes(8192 + 16)
    buffer: Any = ffi.new("uint8_t[]", data)
    digest = ffi.new("uint8_t[32]")
    for shift in range(16):
        lib.bspi_sha256(PATHS[path], buffer + shift, 8192, digest)
        assert bytes(digest) == hashlib.sha256(data[shift : shift + 8192]).digest()


def test_public_entry() -> None:
    digest = ffi.new("uint8_t[32]")
    lib.bsp_sha256(ffi.NULL, 0, digest)
    assert bytes(digest).hex() == VECTORS[0][1]


@pytest.mark.parametrize("two", [ffi.NULL, lib.bspi_sha256_two()], ids=["one by one", "together"])
@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4096, 16384, 5000])
def test_a_pair_is_two_messages(two: Any, length: int) -> None:
    random_bytes = random.Random(length).randbytes
    messages = random_bytes(length), random_bytes(length)
    digests = ffi.new("uint8_t[32]"), ffi.new("uint8_t[32]")
    lib.bspi_sha256_pair(lib.bspi_sha256_best(), two, *messages, length, *digests)
    for message, digest in zip(messages, digests, strict=True):
        assert bytes(digest) == hashlib.sha256(message).digest()


@pytest.mark.parametrize("page", [64, 128, 4096, 16384])
@pytest.mark.parametrize("shift", [0, 1, 60])
def test_sixteen_pages_are_sixteen_messages(page: int, shift: int) -> None:
    lanes = lib.bspi_sha256_lanes()
    if lanes == ffi.NULL:
        pytest.skip("no AVX-512 here")
    data = random.Random(page).randbytes(16 * page)
    # Exactly so many bytes, so that a sanitized run sees one too many.
    buffer: Any = ffi.new("uint8_t[]", bytes(shift) + data)
    digests = ffi.new("uint8_t[512]")
    lib.bspi_sha256_pages(lanes, buffer + shift, page, digests)
    pages = [data[at : at + page] for at in range(0, len(data), page)]
    assert bytes(digests) == b"".join(hashlib.sha256(piece).digest() for piece in pages)
