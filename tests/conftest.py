"""Settings for every test: hypothesis profiles, and which marked tests can run here.

HYPOTHESIS_PROFILE chooses default, ci (derandomised) or expensive.
BSIPATCH_CORPORA names the folder of public file pairs for tests marked `corpora`.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

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

# A shell that starts a run in the background leaves it deaf to Ctrl-C, and with it every
# program that it starts: then tests of interruption wait for what never ends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: tests of what only calls the core through layers that other tests drive as well, by how their
#: files' names begin; a sanitized run, in which every process starts slowly, leaves them out
WITHOUT_CORE = (
    "test_agent",
    "test_bench",
    "test_conditions",
    "test_device",
    "test_faults",
    "test_feed",
    "test_local",
    "test_model",
    "test_notify",
    "test_packaging",
    "test_policy",
    "test_power_cuts",
    "test_schedule",
    "test_settings_page",
    "test_store_boot",
    "test_store_group",
    "test_telemetry",
    "test_threat_model",
    "test_trial_commands",
)


def corpora_folder() -> Path | None:
    """Where the public corpora lie, when they have been fetched."""
    named = os.environ.get("BSIPATCH_CORPORA")
    return Path(named) if named and Path(named).is_dir() else None


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker that the fixture below asks for."""
    config.addinivalue_line(
        "markers", "no_reference: its patches are not applied by the reference applier as well"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run, and says why."""
    reasons = {
        "root": None if os.geteuid() == 0 else "needs root",
        "corpora": None if corpora_folder() else "needs BSIPATCH_CORPORA (see bench/corpora.py)",
    }
    sanitized = bool(os.environ.get("BSIPATCH_SANITIZED"))
    for item in items:
        if sanitized and item.path.name.startswith(WITHOUT_CORE):
            item.add_marker(pytest.mark.skip(reason="sanitized: nothing of the core in it"))
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def reference_agrees(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every patch that a test makes is applied by the reference applier too, and must agree.

    A sanitized run looks for other things, and is slow enough.
    """
    sanitized = bool(os.environ.get("BSIPATCH_SANITIZED"))
    if not sanitized and request.node.get_closest_marker("no_reference") is None:
        from tests.support import agreement

        agreement.watch(monkeypatch)


@pytest.fixture
def corpora() -> Path:
    """The folder of public file pairs."""
    folder = corpora_folder()
    assert folder is not None
    return folder
