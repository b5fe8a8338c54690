"""Linux fs-verity's file digest: SHA-256, 4 KiB blocks, no salt.

Hosts that have fs-verity can have the kernel enforce the digests of a manifest; on all others they
are a SHA-256 Merkle tree that can be computed while the bytes stream by.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from typing import IO

from bsipatch.errors import from_os_error

__all__ = ["VerityHasher", "block_digests", "digest_of_blocks", "verity_digest", "verity_digest_fd"]

BLOCK = 4096
HASH = 32
READ_SIZE = 1 << 20

# struct fsverity_descriptor: version, hash algorithm (SHA-256), log2 of the block size, salt
# length, signature length, data size, root hash padded to 64; salt and reserved space follow.
_DESCRIPTOR = struct.Struct("<BBBBIQ64s32x144x")


class VerityHasher:
    """Computes the digest of a file whose bytes are handed in piece by piece, in order."""

    def __init__(self) -> None:
        self._size = 0
        self._tail = b""
        # levels[0] gathers the hashes of data blocks, levels[1] those of hash blocks, and so on.
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        """Bytes handed in so far."""
        return self._size

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes of the file; pieces of any length give the same digest."""
        view = memoryview(data).cast("B")
        self._size += len(view)
        start = 0
        if self._tail:
            start = min(BLOCK - len(self._tail), len(view))
            self._tail += bytes(view[:start])
            if len(self._tail) < BLOCK:
                return
            self._push(hashlib.sha256(self._tail).digest())
            self._tail = b""
        sha256 = hashlib.sha256
        whole = start + (len(view) - start) // BLOCK * BLOCK
        for at in range(start, whole, BLOCK):
            self._push(sha256(view[at : at + BLOCK]).digest())
        self._tail = bytes(view[whole:])

    def _push(self, digest: bytes) -> None:
        level = 0
        while True:
            block = self._levels[level]
            block += digest
            if len(block) < BLOCK:
                return
            digest = hashlib.sha256(block).digest()
            block.clear()
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())

    def _root(self) -> bytes:
        """The root of the tree as if the file ended here; the state stays as it is."""
        if not self._size:
            return bytes(HASH)
        levels = [bytearray(level) for level in self._levels]
        if self._tail:
            carry = hashlib.sha256(self._tail.ljust(BLOCK, b"\0")).digest()
            levels[0] += carry
        at = 0
        while True:
            block = levels[at]
            is_top = not any(levels[at + 1 :])
            if is_top and len(block) == HASH:
                return bytes(block)
            if block:
                if at + 1 == len(levels):
                    levels.append(bytearray())
                levels[at + 1] += hashlib.sha256(bytes(block).ljust(BLOCK, b"\0")).digest()
            at += 1

    def digest(self) -> bytes:
        """The 32 bytes that `fsverity digest` prints for the file."""
        descriptor = _DESCRIPTOR.pack(1, 1, 12, 0, 0, self._size, self._root())
        return hashlib.sha256(descriptor).digest()

    def hexdigest(self) -> str:
        """The digest as 64 lower-case hex digits."""
        return self.digest().hex()


def verity_digest_fd(
    fd: int, *, most: int | None = None, progress: Callable[[int], None] | None = None
) -> tuple[str, int]:
    """(digest as hex, size in bytes) of the file open at `fd`, read from its start by offset.

    Reading ends soon after `most` bytes: a size above it means the file is longer, and the digest
    is then worthless.  `progress` gets the number of bytes just read.
    Raises SystemCallError when reading fails.
    """
    hasher = VerityHasher()
    buffer = bytearray(READ_SIZE)
    view = memoryview(buffer)
    try:
        while got := os.preadv(fd, [buffer], hasher.size):
            hasher.update(view[:got])
            if progress is not None:
                progress(got)
            if most is not None and hasher.size > most:
                break
    except OSError as error:
        raise from_os_error(error, detail="reading failed") from error
    return hasher.hexdigest(), hasher.size


def block_digests(fd: int, size: int) -> list[bytes | None]:
    """SHA-256 of each of the blocks that `size` bytes have; None for one that cannot be read.

    Together with digest_of_blocks() this tells which blocks of two copies differ, and
    whether blocks taken from several copies make the file that a digest stands for.
    """
    found: list[bytes | None] = []
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        try:
            data = os.pread(fd, length, at)
        except OSError:
            data = b""
        whole = len(data) == length
        found.append(hashlib.sha256(data.ljust(BLOCK, b"\0")).digest() if whole else None)
    return found


def digest_of_blocks(blocks: Sequence[bytes], size: int) -> str:
    """The digest, as hex, of a file of `size` bytes whose blocks have these SHA-256 digests."""
    level = list(blocks)
    while len(level) > 1:
        per_block = BLOCK // HASH
        level = [
            hashlib.sha256(b"".join(level[at : at + per_block]).ljust(BLOCK, b"\0")).digest()
            for at in range(0, len(level), per_block)
        ]
    root = level[0] if level else bytes(HASH)
    return hashlib.sha256(_DESCRIPTOR.pack(1, 1, 12, 0, 0, size, root)).hexdigest()


def verity_digest(file: str | os.PathLike[str] | IO[bytes]) -> str:
    """The digest of a file, given as a path or open for reading, as hex.

    Raises SystemCallError when it cannot be read.
    """
    if isinstance(file, str | os.PathLike):
        try:
            with open(file, "rb", buffering=0) as opened:
                return verity_digest_fd(opened.fileno())[0]
        except OSError as error:
            raise from_os_error(error, file, "cannot open") from error
    hasher = VerityHasher()
    while data := file.read(READ_SIZE):
        hasher.update(data)
    return hasher.hexdigest()
