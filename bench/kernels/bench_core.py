"""Kernels that the compiled core exports: SHA-256, the whole diff, decoding, windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bsipatch import delta, limits
from bsipatch._core import Patch, sha256
from bsipatch.delta._apply import prepare

Pair = tuple[bytes, bytes]


def test_sha256(benchmark: Any, pair: Pair) -> None:
    benchmark.extra_info["bytes"] = len(pair[0])
    benchmark(sha256, pair[0])


@pytest.mark.parametrize("profile", ["fast", "balanced", "max"])
def test_diff(benchmark: Any, pair: Pair, profile: str) -> None:
    made = benchmark.pedantic(
        delta.diff_bytes, pair, {"profile": profile, "jobs": 1}, rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["patch bytes"] = len(made)


@pytest.fixture(scope="module", params=["fast", "balanced"])
def patch(request: pytest.FixtureRequest, pair: Pair) -> bytes:
    return delta.diff_bytes(*pair, profile=request.param)


def _ready(patch: bytes, old: bytes) -> Patch:
    handle = Patch(patch, max_plain=limits.DEFAULT.max_plain)
    prepare(handle, old, 1, limits.DEFAULT, None)
    return handle


def test_decode_and_prepare(benchmark: Any, patch: bytes, pair: Pair) -> None:
    def run() -> None:
        _ready(patch, pair[0]).close()

    benchmark(run)


@pytest.fixture
def prepared(patch: bytes, pair: Pair) -> Iterator[Patch]:
    with _ready(patch, pair[0]) as handle:
        yield handle


def test_predict_windows(benchmark: Any, prepared: Patch) -> None:
    """Every window of the file on one thread: prediction, corrections, copying."""
    size = prepared.info.new_size
    step = limits.DEFAULT.window_size
    out = bytearray(step)

    def run() -> None:
        for offset in range(0, size, step):
            with memoryview(out)[: min(step, size - offset)] as view:
                prepared.window(offset, view)

    benchmark.extra_info["bytes"] = size
    benchmark(run)
