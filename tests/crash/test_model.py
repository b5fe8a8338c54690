"""The store on a file system that keeps no more than it must, and bugs planted into its syncs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import machine, modelled, planted
from .kit import Kit, make_kit
from .scenarios import SCENARIOS

#: What may be left out alone, since another sync of the same thing follows before anything
#: depends on it; docs/testing-crashes.md says which. Leaving out both is noticed.
_COVERED = (
    "every sync at applying._fill",
    "every sync at durable.remove_file",
    "every sync at durable.replace_file",
    "every sync at durable.replace_link",
    "every sync of generations/N.tmp",
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with machine.memory_folder() as made:
        yield made


@pytest.fixture(scope="module")
def kit(folder: Path) -> Kit:
    return make_kit(folder / "kit")


@pytest.mark.parametrize("name", ["init", "apply", "revert", "collect", "unhealthy"])
def test_whole_in_every_state(name: str, kit: Kit, folder: Path) -> None:
    found = modelled.run(kit, SCENARIOS[name], folder, budget=150)
    assert not found.failed
    assert not found.broke
    assert found.states > 10


def test_every_bug_planted_into_a_revert_is_noticed(kit: Kit, folder: Path) -> None:
    hunter = planted.OnModel(kit, folder, seed=1)
    bugs = planted.groups(hunter.calls(SCENARIOS["revert"]))
    missed = [str(bug) for bug in bugs if not hunter.hunt(SCENARIOS["revert"], bug).how]
    assert [bug for bug in missed if not bug.startswith(_COVERED)] == []
    assert len(missed) < len(bugs) / 2
