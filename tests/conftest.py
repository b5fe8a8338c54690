"""Settings for every test: hypothesis profiles, and which marked tests can run here.

HYPOTHESIS_PROFILE chooses default, ci (derandomised) or expensive.
BSIPATCH_CORPORA names the folder of public file pairs for tests marked `corpora`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

settings.register_profile("default", max_examples=50, deadline=None, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", max_examples=100, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile(
    "expensive", max_examples=2000, deadline=None, suppress_health_check=_QUIET
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)


def corpora_folder() -> Path | None:
    """Where the public corpora lie, when they have been fetched."""
    named = os.environ.get("BSIPATCH_CORPORA")
    return Path(named) if named and Path(named).is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run, and says why."""
    reasons = {
        "root": None if os.geteuid() == 0 else "needs root",
        "corpora": None if corpora_folder() else "needs BSIPATCH_CORPORA (see bench/corpora.py)",
    }
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


#: larger files would take the plain-Python applier too long
_REFERENCE_NEW, _REFERENCE_OLD = 16 << 10, 256 << 10


@pytest.fixture(autouse=True)
def reference_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every patch that a test makes is applied by the reference applier too, and must agree.

    It has its limits: files up to some size, and none that its chapter on images would be
    needed for.  A sanitized run looks for other things, and is slow enough.
    """
    if os.environ.get("BSIPATCH_SANITIZED"):
        return
    from bsipatch.delta import _make

    verify = _make._verify

    def verify_twice(made: bytes, old: Any, new: Any, *rest: Any) -> tuple[int, int]:
        result = verify(made, old, new, *rest)
        if len(memoryview(new)) <= _REFERENCE_NEW and len(memoryview(old)) <= _REFERENCE_OLD:
            from tests.reference import NeedsImages, apply

            with contextlib.suppress(NeedsImages):
                assert apply(bytes(old), made) == bytes(new), "the reference applier disagrees"
        return result

    monkeypatch.setattr(_make, "_verify", verify_twice)


@pytest.fixture
def corpora() -> Path:
    """The folder of public file pairs."""
    folder = corpora_folder()
    assert folder is not None
    return folder
