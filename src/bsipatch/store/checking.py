"""Reads every generation again and reports what is not as it was signed."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BsipatchError
from ..tree import Tree, compare, walk
from . import durable, records
from .beneath import Beneath
from .eligibility import without_xattrs
from .store import Store
from .work import Work


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is wrong: in which generation, where, and how ("mode 0664 for 0644")."""

    generation: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """drift: empty when all is well. checked: the generations. size: bytes that were read."""

    drift: tuple[Drift, ...]
    checked: tuple[int, ...]
    size: int
    recovered: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every generation is exactly what its signed digest says."""
        return not self.drift


def check(store: Store, *, work: Work | None = None) -> CheckReport:
    """Digests every file of every generation. Changes nothing but what recovery clears away.

    Raises StoreBusyError, StoreDamagedError, SystemCallError, CancelledError.
    """
    work = work or Work()
    with store.writing("check-store") as recovered:
        numbers = records.generation_numbers(store.fd)
        drift: list[Drift] = []
        size = 0
        for number in numbers:
            try:
                expected, xattrs = store.expected_tree(number)
            except BsipatchError as error:
                drift.append(Drift(number, "", error.message))
                continue
            drift += _check_one(store, number, expected, xattrs, work)
            size += expected.size
        return CheckReport(tuple(drift), tuple(numbers), size, tuple(recovered))


def _check_one(store: Store, number: int, expected: Tree, xattrs: bool, work: Work) -> list[Drift]:
    found: list[Drift] = []
    recorded = store.generation(number).tree
    digest = without_xattrs(expected).digest if number == records.BASELINE else expected.digest
    if recorded != digest:
        found.append(Drift(number, "", "the record names another tree digest"))
    work.begin(f"checking generation {number}", expected.size)
    place = f"{records.generation_name(number)}/{records.TREE}"
    try:
        with (
            durable.system_calls("reading a generation", store.root / place),
            Beneath(place, dir_fd=store.fd) as tree,
        ):
            seen = walk(
                tree.fd, xattrs=xattrs, jobs=work.jobs, progress=work.advance, limits=store.limits
            )
    except BsipatchError as error:
        if error.exit_code == 130:
            raise
        return [*found, Drift(number, "", error.message)]
    return found + [
        Drift(number, difference.path, difference.sentence.removeprefix(f"{difference.path}: "))
        for difference in compare(expected, seen)
    ]
