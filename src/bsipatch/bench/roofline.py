"""The machine's limit for an apply: `python roofline.py OLD NEW_SIZE OUT` prints JSON.

Whoever applies a patch and checks both files must read the old one, compute SHA-256 of
old and new, and write the new one.  This does just that, with the old file's own bytes in
the place of the new one's, in the best known ways, and says how long each took.  What a
patch adds to it is decoding and reconstruction.

Run as a file; the clock starts behind the imports, so that the start of an interpreter is
no part of the limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

CHUNK = 1 << 20


def _pieces(size: int, body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of the pieces that make up the new file: `body`, again and again."""
    at = 0
    while at < size:
        start = at % len(body)
        length = min(CHUNK, size - at, len(body) - start)
        yield at, body[start : start + length]
        at += length


def fused(old: memoryview, body: memoryview, size: int, fd: int) -> None:
    """One thread hashes the old file, one writes and hashes the new one piece by piece."""

    def make() -> None:
        digest = hashlib.sha256()
        for at, piece in _pieces(size, body):
            os.pwrite(fd, piece, at)
            digest.update(piece)
        digest.digest()

    _together(lambda: _hash(old), make)


def shared(old: memoryview, body: memoryview, size: int, fd: int) -> None:
    """Each of two threads hashes one file, then both write."""
    pieces = _pieces(size, body)
    lock = threading.Lock()

    def write() -> None:
        while True:
            with lock:
                at, piece = next(pieces, (-1, body))
            if at < 0:
                return
            os.pwrite(fd, piece, at)

    def new() -> None:
        _hash_new(body, size)
        write()

    def hash_old() -> None:
        _hash(old)
        write()

    _together(hash_old, new)


def apart(old: memoryview, body: memoryview, size: int, fd: int) -> None:
    """Three threads: hash the old file, hash the new one, write."""

    def write() -> None:
        for at, piece in _pieces(size, body):
            os.pwrite(fd, piece, at)

    _together(lambda: _hash(old), lambda: _hash_new(body, size), write)


def direct(old: memoryview, body: memoryview, size: int, fd: int) -> None:
    """As apart, but past the page cache, into room that was set aside."""
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    past = flags | getattr(os, "O_DIRECT", 0)

    def write() -> None:
        for at, piece in _pieces(size, body):
            fcntl.fcntl(fd, fcntl.F_SETFL, past)
            try:
                os.pwrite(fd, piece, at)
            except OSError:  # what is not whole pages goes the ordinary way
                fcntl.fcntl(fd, fcntl.F_SETFL, flags)
                os.pwrite(fd, piece, at)

    _together(lambda: _hash(old), lambda: _hash_new(body, size), write)


WAYS: dict[str, Callable[[memoryview, memoryview, int, int], None]] = {
    "fused": fused,
    "shared": shared,
    "apart": apart,
    "direct": direct,
}


def _hash(data: memoryview) -> None:
    digest = hashlib.sha256()
    for at in range(0, len(data), CHUNK):
        digest.update(data[at : at + CHUNK])
    digest.digest()


def _hash_new(body: memoryview, size: int) -> None:
    digest = hashlib.sha256()
    for _, piece in _pieces(size, body):
        digest.update(piece)
    digest.digest()


def _together(*calls: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call) for call in calls[1:]]
    for thread in threads:
        thread.start()
    calls[0]()
    for thread in threads:
        thread.join()


def main(old_path: str, new_size: str, out: str) -> None:
    """Prints {way: [seconds, seconds with the sync]}."""
    told: dict[str, list[float]] = {}
    for name, way in WAYS.items():
        began = time.perf_counter()
        fd = os.open(old_path, os.O_RDONLY)
        old_size = os.fstat(fd).st_size
        mapped = mmap.mmap(fd, 0, access=mmap.ACCESS_READ) if old_size else b""
        old = memoryview(mapped)
        # Of a small file whole pieces are made, or there would be too many.
        some = bytes(old[:CHUNK]) or b"0"
        body = old if old_size >= CHUNK else memoryview(some * -(-CHUNK // len(some)))[:CHUNK]
        made = os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        way(old, body, int(new_size), made)
        written = time.perf_counter()
        os.fsync(made)
        told[name] = [written - began, time.perf_counter() - began]
        os.close(made)
        os.unlink(out)
        os.close(fd)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
