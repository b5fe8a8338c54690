"""Reads every generation again, reports what is not as it was signed, and repairs it on request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ..errors import BsipatchError
from ..tree import Tree
from . import durable, exchange, history, records
from .beneath import DIRECTORY, Beneath
from .eligibility import without_xattrs
from .repairing import Repaired, repair_tree
from .sourcing import Sources
from .store import Store
from .surveying import Finding, survey
from .sweeping import swept
from .witness import Notes
from .work import Work


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is wrong: in which generation, where, and how ("mode 0664 for 0644")."""

    generation: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    drift     what is wrong in the end; empty when all is well
    checked   the generations
    size      bytes that were read
    repaired  what was wrong and has been put right
    """

    drift: tuple[Drift, ...]
    checked: tuple[int, ...]
    size: int
    recovered: tuple[str, ...]
    repaired: tuple[Repaired, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every generation is exactly what its signed digest says."""
        return not self.drift


@dataclass(frozen=True, slots=True)
class _Open:
    """A generation whose records could be read."""

    tree: Beneath
    expected: Tree
    xattrs: bool
    digest: str


def check(
    store: Store,
    *,
    work: Work | None = None,
    repair: bool = False,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> CheckReport:
    """Digests every file of every generation. Without `repair` nothing is changed.

    With it, what differs is put right from other generations, and from `sources`:
    update files signed by the store's keys, and folders that hold the tree.  Every
    generation that was repaired is then read once more.

    Raises StoreBusyError, StoreDamagedError, SystemCallError, CancelledError, and
    for a source NotFoundError, TrustError, FormatError.
    """
    work = work or Work()
    with store.writing("check-store") as recovered, ExitStack() as stack:
        numbers = records.generation_numbers(store.fd)
        opened: dict[int, _Open] = {}
        drift: list[Drift] = []
        findings: dict[int, list[Finding]] = {}
        for number in numbers:
            found = _open(store, number, stack)
            if isinstance(found, _Open):
                opened[number] = found
                drift += _check_record(store, number, found)
            else:
                drift.append(found)
        for number, generation in opened.items():
            findings[number] = _look(store, number, generation, work)
        repaired: list[Repaired] = []
        why: dict[tuple[int, str], str] = {}
        if repair and any(findings.values()):
            repaired, why = _repair(store, opened, findings, sources, work)
        drift += [
            Drift(number, finding.shown, why.get((number, finding.path), finding.reason))
            for number in sorted(findings)
            for finding in findings[number]
        ]
        drift += _check_live_path(store, opened, repaired if repair else None, work)
        size = sum(generation.expected.size for generation in opened.values())
        return CheckReport(tuple(drift), tuple(numbers), size, tuple(recovered), tuple(repaired))


def _open(store: Store, number: int, stack: ExitStack) -> _Open | Drift:
    place = f"{records.generation_name(number)}/{records.TREE}"
    try:
        expected, xattrs = store.expected_tree(number)
        with durable.system_calls("reading a generation", store.root / place):
            tree = stack.enter_context(Beneath(place, dir_fd=store.fd))
    except BsipatchError as error:
        return Drift(number, "", error.message)
    digest = without_xattrs(expected).digest if number == records.BASELINE else expected.digest
    return _Open(tree, expected, xattrs, digest)


def _check_record(store: Store, number: int, generation: _Open) -> list[Drift]:
    try:
        recorded = store.generation(number).tree
    except BsipatchError as error:
        return [Drift(number, "", error.message)]
    if recorded != generation.digest:
        return [Drift(number, "", "the record names another tree digest")]
    return []


def _look(store: Store, number: int, generation: _Open, work: Work) -> list[Finding]:
    """One generation's findings; a sound one is vouched for from now on."""
    work.begin(f"checking generation {number}", generation.expected.size)
    shown = store.tree_path(number)
    notes = Notes(xattrs=generation.xattrs)
    with durable.system_calls("reading a generation", shown):
        found = survey(
            generation.tree, generation.expected, xattrs=generation.xattrs, work=work, notes=notes
        )
    with suppress(OSError):  # a full disk must not keep anyone from checking
        folder = os.open(records.generation_name(number), DIRECTORY, dir_fd=store.fd)
        try:
            notes.write(folder, generation.digest)
        finally:
            os.close(folder)
    return found


def _check_live_path(
    store: Store, opened: dict[int, _Open], repaired: list[Repaired] | None, work: Work
) -> list[Drift]:
    """A live path that is a directory of its own must be like the live generation.

    With `repaired` it is made anew from that one when it is not.
    """
    with durable.system_calls("reading the live path", store.file):
        record = exchange.exchanged(store.fd)
        live = records.live_number(store.fd, store.file)
        if record is None or live not in opened:
            return []
        one = opened[live]
        found = _faults_of_live_path(record.path, one, work)
        if not found or repaired is None:
            return [Drift(live, path, reason) for path, reason in found]
        if exchange.shown(store.fd) == live:
            exchange.renew(store.fd, live)
            source = f"generation {live}"
            repaired += [Repaired(live, path, reason, source) for path, reason in found]
            found = _faults_of_live_path(record.path, one, work)
    return [Drift(live, path, reason) for path, reason in found]


def _faults_of_live_path(path: str, one: _Open, work: Work) -> list[tuple[str, str]]:
    work.begin("checking the live path", one.expected.size)
    try:
        with Beneath(path) as tree:
            found = survey(tree, one.expected, xattrs=one.xattrs, work=work)
    except OSError as error:
        return [(path, error.strerror or str(error))]
    return [(f"{path}/{finding.shown}", finding.reason) for finding in found]


def _repair(
    store: Store,
    opened: dict[int, _Open],
    findings: dict[int, list[Finding]],
    sources: Sequence[str | os.PathLike[str]],
    work: Work,
) -> tuple[list[Repaired], dict[tuple[int, str], str]]:
    """Repairs every generation and looks at each again; `findings` becomes what is left."""
    repaired: list[Repaired] = []
    why: dict[tuple[int, str], str] = {}
    trees = {number: (one.tree, one.expected) for number, one in opened.items()}
    waiting = [number for number in sorted(findings) if findings[number]]
    with (
        Sources(store, trees, sources, work) as good,
        durable.system_calls("repairing", store.file),
        swept(store.fd, store.file, store.limits, waiting),
    ):
        for number in waiting:
            one = opened[number]
            with durable.system_calls("repairing", store.tree_path(number)):
                done, failed = repair_tree(
                    number, one.tree, findings[number], good, xattrs=one.xattrs
                )
            repaired += done
            why |= {(number, path): reason for path, reason in failed.items()}
    for number in waiting:
        findings[number] = _look(store, number, opened[number], work)
    left = {(number, finding.shown) for number in waiting for finding in findings[number]}
    repaired = [one for one in repaired if (one.generation, one.path) not in left]
    with durable.system_calls("writing the history", store.file):
        _record(store, repaired, len(left))
    return repaired, why


def _record(store: Store, repaired: Sequence[Repaired], left: int) -> None:
    live = store.live()
    history.append(
        store.fd,
        history.event(
            "repair",
            live.number,
            display=live.display,
            build=live.build,
            reason=f"repaired {len(repaired)} entries, {left} left",
        ),
    )
