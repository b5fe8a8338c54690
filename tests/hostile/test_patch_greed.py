"""Patches that ask for more than they hold: bombs, frames that lie, greedy counts (threat 2)."""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zstandard

from bsipatch import delta, limits
from bsipatch._core import Codec, Control, Patch
from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    FormatError,
    LimitError,
)
from tests.support import patch_forge as forge
from tests.support.patch_forge import (
    COVER,
    LITERALS,
    Entry,
    Forged,
    toy_pair,
)

#: what any of the small files here may need: far less than the defaults
LIMITS = limits.DEFAULT.but(memory_budget=64 << 20, max_plain=64 << 20)

# --- 2. decompression bombs ---


def bomb(codec: Codec, encoded: bytes, plain_len: int) -> bytes:
    entry = Entry(LITERALS, b"", codec, encoded, plain_len)
    return Forged(0, 1000, [entry], hashlib.sha256(b"").digest()[:8]).build()


def zeros_lzma(size: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
    return lzma.compress(bytes(size), lzma.FORMAT_RAW, filters=filters)


def zeros_zstd(size: int, **options: int) -> bytes:
    told = {"write_content_size": False, "write_checksum": False, **options}
    parameters = zstandard.ZstdCompressionParameters.from_level(1, **told)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(size))


@pytest.mark.parametrize("plain_len", [1, 1000, 65536])
@pytest.mark.parametrize("size", [1 << 20, 1 << 28])
@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZMA])
def test_2_a_bomb_makes_no_more_than_it_declares(codec: Codec, size: int, plain_len: int) -> None:
    encoded = zeros_zstd(size) if codec == Codec.ZSTD else zeros_lzma(min(size, 1 << 24))
    with pytest.raises(FormatError):
        delta.patch_bytes(b"", bomb(codec, encoded, plain_len), limits=LIMITS)


@pytest.mark.parametrize("options", [{"write_content_size": True}, {"write_checksum": True}])
def test_2_a_frame_says_nothing_about_itself(options: dict[str, bool]) -> None:
    encoded = zeros_zstd(1000, **options)
    with pytest.raises(FormatError, match="zstd frame with size"):
        delta.patch_bytes(b"", bomb(Codec.ZSTD, encoded, 1000), limits=LIMITS)


@pytest.mark.parametrize("tail", [b"x", zeros_zstd(10)])
def test_2_bytes_behind_the_frame(tail: bytes) -> None:
    encoded = zeros_zstd(1000) + tail
    with pytest.raises(FormatError, match="after the end"):
        delta.patch_bytes(b"", bomb(Codec.ZSTD, encoded, 1000), limits=LIMITS)


def test_2_a_frame_that_is_cut_short() -> None:
    with pytest.raises(FormatError):
        delta.patch_bytes(b"", bomb(Codec.ZSTD, zeros_zstd(1000)[:-1], 1000), limits=LIMITS)


@pytest.mark.parametrize("codec", [c for c in Codec if c != Codec.PLAIN])
def test_2_more_than_the_limit_is_not_decoded(codec: Codec) -> None:
    patch = bomb(codec, b"", LIMITS.max_plain + 1)
    with pytest.raises(LimitError, match="decoded streams"):
        delta.patch_bytes(b"", patch, limits=LIMITS)


def test_2_a_window_beyond_the_stream() -> None:
    header = b"\x28\xb5\x2f\xfd\x00\x88"  # a window of 2^27
    encoded = header + (1000 << 3 | 1).to_bytes(3, "little") + bytes(1000)
    with pytest.raises(FormatError, match="window"):
        delta.patch_bytes(b"", bomb(Codec.ZSTD, encoded, 1000), limits=LIMITS)


# --- 2. and 7. memory and time under the default limits ---

#: gives the error's class and how many MiB it took; an AS limit would count the sanitizers' shadow
MEASURED = """
import resource, sys
from bsipatch import delta, errors
old, patch = (open(name, "rb").read() for name in sys.argv[1:3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    delta.patch_bytes(old, patch, jobs=1)
    name = "accepted"
except errors.BsipatchError as error:
    name = type(error).__name__
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(name, grown // 1024)
"""


def modelled(id_: int, plain_len: int, model: bytes, new_size: int = 9000) -> Forged:
    forged = Forged(len(OLD), new_size, [Entry(id_, b"", Codec.MODEL, None, plain_len)])
    forged.old_check, forged.model = hashlib.sha256(OLD).digest()[:8], model
    return forged


OLD = toy_pair("arm64", 1)[0]
GREEDY: dict[str, Forged] = {
    "new size 2^62": modelled(COVER, 100, b"x", new_size=1 << 62),
    "a billion entries, told plainly": Forged(
        len(OLD),
        len(OLD),
        [Entry(COVER, forge.varint(10**9))],
        hashlib.sha256(OLD).digest()[:8],
    ),
    **{
        f"stream {id_} of 4 GB from {len(model)} bytes": modelled(id_, 4 * 10**9, model)
        for id_ in range(1, 7)
        for model in (b"", b"\xf0" * 8, b"\xff" * 30, bytes(range(1, 200)))
    },
    **{
        f"stream {id_} of 4 GB for a new file of 60": modelled(
            id_, 4 * 10**9, b"\xff" * 30, new_size=60 * 10**9
        )
        for id_ in range(1, 7)
    },
}


@pytest.mark.parametrize("name", GREEDY)
def test_2_a_greedy_patch_fails_soon_and_small(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "patch").write_bytes(GREEDY[name].build())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "old"), str(tmp_path / "patch")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    error, grown = done.stdout.split()
    assert issubclass(getattr(__import__("bsipatch").errors, error), BsipatchError)
    assert os.environ.get("BSIPATCH_SANITIZED") or int(grown) < 256, f"{grown} MiB"


@pytest.mark.timeout(60)
def test_2_a_modelled_bomb_can_be_stopped() -> None:
    """A gigabyte of literals out of nothing is sound and takes minutes; not after a Ctrl-C."""
    size = 1 << 30
    patch = Forged(0, size, [Entry(LITERALS, b"", Codec.MODEL, None, size)]).build()
    control = Control()
    timer = threading.Timer(0.3, control.cancel)
    with Patch(patch, max_plain=size) as handle:
        timer.start()
        with pytest.raises(CancelledError):
            handle.prepare(b"", control)
    timer.join()
