"""What a patch may allocate when an update is laid out."""

from __future__ import annotations

import pytest

from bsipatch.limits import DEFAULT
from bsipatch.manifest import Payload
from bsipatch.store.stage import patch_budget


def payload(memory: int) -> Payload:
    return Payload(
        kind="patch", offset=0, length=1, sha256="0" * 64, size=1, decoded=1, memory=memory
    )


@pytest.mark.parametrize(("jobs", "at_once"), [(0, 1), (1, 1), (2, 2), (3, 3), (16, 3)])
def test_every_thread_has_room_beside_what_the_manifest_says(jobs: int, at_once: int) -> None:
    declared, making = 5 << 20, max(jobs, 1) + 1
    budget = patch_budget(payload(declared), jobs, DEFAULT)
    assert budget == at_once * declared + making * DEFAULT.thread_memory


def test_a_manifest_that_says_nothing() -> None:
    assert patch_budget(payload(0), 4, DEFAULT) == DEFAULT.memory_budget
