"""The health checks of one generation: run them, and say what came of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import BsipatchError, CancelledError, CorruptError, HealthError
from ..manifest import HealthCheck, Manifest
from ..tree import Entry, compare, walk
from . import commands, durable, images, records
from .beneath import Beneath
from .eligibility import without_xattrs
from .store import Store
from .work import Work

_SHOWN = 3
#: lines of a program's output that a message repeats
_LINES = 4
#: what loads one library, in a process of its own: the loader runs the library's code
_LOADER = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW | os.RTLD_LOCAL)"


@dataclass(frozen=True, slots=True)
class Result:
    """One check.

    problem  "" when it passed, else one clause
    detail   what was looked at, for people: "12 images, 3,000 pages of signatures"
    output   what a program wrote
    seconds  how long it took
    """

    title: str
    kind: str
    problem: str
    detail: str
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it found nothing wrong."""
        return not self.problem


def run(store: Store, number: int, checks: Sequence[HealthCheck], work: Work) -> tuple[Result, ...]:
    """Runs the checks on a generation, in order, up to the first that fails.

    Raises CancelledError; whatever else goes wrong while looking is a problem
    of the generation that is looked at.
    """
    manifest = store.manifest(number)
    results: list[Result] = []
    for check in checks:
        work.check()
        began = time.perf_counter()
        try:
            problem, detail, output = _run_one(store, number, manifest, check, work)
        except CancelledError:
            raise
        except BsipatchError as error:
            problem, detail, output = error.message, "", ""
        taken = time.perf_counter() - began
        results.append(Result(check.title, check.kind, problem, detail, output, taken))
        if problem:
            break
    return tuple(results)


def failure(results: Sequence[Result], file: str) -> HealthError | None:
    """The error that stands for the check that failed, if one did."""
    for result in results:
        if not result.passed:
            last = result.output.splitlines()[-_LINES:]
            told = f"; it wrote: {' / '.join(last)}" if last else ""
            return HealthError(f"{result.title} {result.problem}{told}", file=file)
    return None


def _run_one(
    store: Store, number: int, manifest: Manifest | None, check: HealthCheck, work: Work
) -> tuple[str, str, str]:
    """(problem, detail, output) of one check."""
    if check.kind == "command":
        return _command(store, number, check, work)
    place = f"{records.generation_name(number)}/{records.TREE}"
    shown = str(store.root / place)
    with durable.system_calls("checking", shown), Beneath(place, dir_fd=store.fd) as tree:
        if check.kind == "digest":
            return _digest(store, number, tree, work)
        entries = store.expected_tree(number)[0] if manifest is None else manifest.new_entries()
        files = [entry for entry in entries if entry.kind == "file" and entry.size]
        if check.kind == "images":
            return _images(tree, files, work)
        return _load(store, number, tree, files, check, work)


def _command(store: Store, number: int, check: HealthCheck, work: Work) -> tuple[str, str, str]:
    tree = str(store.tree_path(number))
    program, *arguments = check.command
    outcome = commands.run(
        [program if program.startswith("/") else f"{tree}/{program}", *arguments],
        cwd=tree,
        env=commands.environment({"BSIPATCH_TREE": tree, "BSIPATCH_GENERATION": str(number)}),
        seconds=check.seconds,
        most=store.limits.max_health_output,
        stop=work.stop,
    )
    return outcome.problem, " ".join(check.command), outcome.output


def _digest(store: Store, number: int, tree: Beneath, work: Work) -> tuple[str, str, str]:
    expected, xattrs = store.expected_tree(number)
    work.begin("checking", expected.size)
    found = walk(tree.fd, xattrs=xattrs, jobs=work.jobs, progress=work.advance, limits=store.limits)
    if not xattrs:
        found = without_xattrs(found)
    differences = [difference.sentence for difference in compare(expected, found)]
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    problem = "found: " + "; ".join(differences[:_SHOWN]) + more if differences else ""
    return problem, f"{len(expected)} entries", ""


def _images(tree: Beneath, files: Sequence[Entry], work: Work) -> tuple[str, str, str]:
    work.begin("checking images", sum(entry.size for entry in files))
    found = pages = 0
    for path, image in _inspected(tree, files, work):
        if isinstance(image, str):
            return f"found: {path}: {image}", "", ""
        found, pages = found + 1, pages + image.pages
    return "", f"{found} images, {pages} pages of code signatures", ""


def _inspected(
    tree: Beneath, files: Sequence[Entry], work: Work
) -> Iterator[tuple[str, images.Image | str]]:
    """Every file that is an image, or what is wrong with it."""
    for entry in files:
        work.check()
        with tree.opened(entry.path) as fd:
            try:
                image = images.inspect(fd)
            except CorruptError as error:
                at = "" if error.offset is None else f" at byte {error.offset}"
                yield entry.path, f"{error.detail}{at}"
                continue
        if image is not None:
            yield entry.path, image
        work.advance(entry.size)


def _load(
    store: Store,
    number: int,
    tree: Beneath,
    files: Sequence[Entry],
    check: HealthCheck,
    work: Work,
) -> tuple[str, str, str]:
    """Loads each library in a process of its own, which its constructors cannot outlive."""
    work.begin("loading libraries", sum(entry.size for entry in files))
    root = str(store.tree_path(number))
    env = commands.environment({"BSIPATCH_TREE": root, "BSIPATCH_GENERATION": str(number)})
    loaded = skipped = 0
    for path, image in _inspected(tree, files, work):
        if isinstance(image, str) or not image.library or not sys.executable:
            skipped += 1
            continue
        outcome = commands.run(
            [sys.executable, "-I", "-S", "-c", _LOADER, f"{root}/{path}"],
            cwd=root,
            env=env,
            seconds=check.seconds,
            most=store.limits.max_health_output,
            stop=work.stop,
        )
        if outcome.problem:
            # the loader's own words stand in the last line of the traceback
            said = outcome.output.splitlines()[-1:] or [outcome.problem]
            return f"could not load {path}: {said[0]}", "", outcome.output
        loaded += 1
    return "", f"{loaded} libraries loaded, {skipped} images not for this host skipped", ""
