"""The store on a file system that keeps no more than it must, and bugs planted into its syncs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import machine, modelled, planted
from .accepted import ACCEPTED
from .kit import Kit, make_kit
from .scenarios import SCENARIOS


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with machine.memory_folder() as made:
        yield made


@pytest.fixture(scope="module")
def kit(folder: Path) -> Kit:
    return make_kit(folder / "kit")


@pytest.mark.parametrize("name", [s.name for s in SCENARIOS.values() if s.modelled])
def test_whole_in_every_state(name: str, kit: Kit, folder: Path) -> None:
    found = modelled.run(kit, SCENARIOS[name], folder, budget=30)
    assert not found.failed
    assert not found.broke
    assert found.states > 5


def test_every_bug_planted_into_a_revert_is_noticed(kit: Kit, folder: Path) -> None:
    hunter = planted.OnModel(kit, folder, seed=1)
    bugs = planted.groups(hunter.calls(SCENARIOS["revert"]))
    found = list(hunter.hunt_all(SCENARIOS["revert"], bugs))
    assert len(found) == len(bugs)
    assert [str(noticed.bug) for noticed in found if not noticed.how] == []


def test_the_list_of_what_may_be_missed_goes_out_of_date_aloud() -> None:
    known = next(iter(ACCEPTED))
    rows = [
        {"operation": "apply", "bug": known, "noticed": {"model": "a torn tree"}},
        {"operation": "revert", "bug": known, "noticed": {}},
        {"operation": "apply", "bug": "another", "noticed": {}},
    ]
    assert planted.judged(rows) == {"missed": ["another"], "stale": [known], "covered": []}
    assert planted.judged(rows[1:2]) == {"missed": [], "stale": [], "covered": [known]}


def test_the_documentation_names_all_that_may_be_missed() -> None:
    page = (Path(__file__).parents[2] / "docs/testing-crashes.md").read_text()
    assert [bug for bug in ACCEPTED if bug not in page] == []
