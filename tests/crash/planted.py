"""Bugs planted on purpose: one sync left out, or one rename done as a copy.

Each must show in some crash state, or the harness proves nothing.  A bug is
named by the kind of call and its place in the operation's order of such calls.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from bsipatch.store import durable

from . import modelled, states
from .accepted import ACCEPTED
from .campaign import Bench, Case, replay
from .kit import GROUP, STORE, Kit
from .machine import Kind
from .scenarios import Scenario

#: functions of bsipatch.store.durable that sync, or rename, by calling the kernel directly
_PLUMBING = frozenset({"sync_fd", "sync_dir", "_visit", "writing", "wrapper", "<lambda>"})
#: states of the model: all of them, or some where a bug is expected to show in none
_ALL, _GLANCE = 100_000, 200
_SYNCFS, _RENAME_NEW = "sync_file_system", "rename_new"


@dataclass(frozen=True)
class Call:
    """One sync or rename of an operation: `place` counts calls of its kind from 0.

    line    the statement that makes it, in words that outlast other changes to its file; place -1
            stands for all calls of that statement, place -3 for all of its module
    target  what is synced, "" for renames; place -2 stands for all syncs of it
    """

    kind: str
    place: int
    line: str
    target: str = ""
    site: str = ""

    def __str__(self) -> str:
        what = "left out" if self.kind == "sync" else "done as a copy"
        if self.place == -1:
            return f"every {self.kind} at {self.line} {what}"
        if self.place == -2:
            return f"every {self.kind} of {self.target} {what}"
        if self.place == -3:
            return f"every {self.kind} in {self.line}.py {what}"
        return f"{self.kind} {self.place + 1} {what} ({self.site})"

    def hits(self, other: Call) -> bool:
        """Whether this bug spoils that call."""
        if self.kind != other.kind:
            return False
        if self.place == -1:
            return self.line == other.line
        if self.place == -3:
            return self.line == _module(other)
        return self.target == other.target if self.place == -2 else self.place == other.place


def groups(calls: Iterable[Call]) -> list[Call]:
    """One bug for each statement that syncs or renames, and one for each thing that is synced.

    And one for each module in which several statements sync: what covers one of them may be
    another.
    """
    known = list(calls)
    at = {replace(call, place=-1, site="", target="") for call in known}
    of = {replace(call, place=-2, site="", line="") for call in known if call.target}
    syncs = [_module(bug) for bug in at if bug.kind == "sync"]
    within = {Call("sync", -3, name) for name in syncs if syncs.count(name) > 1}
    return sorted(at | of | within, key=str)


def _module(call: Call) -> str:
    return call.line.partition(".")[0]


class Watch:
    """Counts the syncs and renames of this process from now on, and spoils at most one of them."""

    def __init__(self, spoiled: Call | None = None) -> None:
        self.calls: list[Call] = []
        self._spoiled = spoiled
        self._next = {"sync": 0, "rename": 0}
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Watch:
        self._patch_os("fsync", "sync", lambda *arguments, **named: None)
        self._patch_os("rename", "rename", _copy_instead)
        self._patch_durable(_SYNCFS, "sync", lambda *arguments, **named: True)
        self._patch_durable(_RENAME_NEW, "rename", _copy_new)
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, plain in reversed(self._undo):
            setattr(owner, name, plain)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _patch_os(self, name: str, kind: str, instead: Callable[..., Any]) -> None:
        self._set(os, name, self._wrapped(getattr(os, name), kind, instead))

    def _patch_durable(self, name: str, kind: str, instead: Callable[..., Any]) -> None:
        """The function wherever it was imported to."""
        plain = getattr(durable, name)
        wrapped = self._wrapped(plain, kind, instead)
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("bsipatch."):
                for key, value in list(vars(module).items()):
                    if value is plain:
                        self._set(module, key, wrapped)

    def _wrapped(
        self, plain: Callable[..., Any], kind: str, instead: Callable[..., Any]
    ) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            place = self._next[kind]
            self._next[kind] += 1
            target = _target(arguments[0]) if kind == "sync" else ""
            line, site = _site()
            call = Call(kind, place, line, target, site)
            self.calls.append(call)
            if self._spoiled is not None and self._spoiled.hits(call):
                return instead(*arguments, **named)
            return plain(*arguments, **named)

        return wrapper


def _site() -> tuple[str, str]:
    """The statement behind a call, and the functions of bsipatch that led to it."""
    frames = [frame for frame in traceback.extract_stack() if "/src/bsipatch/" in frame.filename]
    shown = [frame for frame in frames if frame.name not in _PLUMBING]
    names = [f"{Path(frame.filename).stem}.{frame.name}" for frame in shown]
    return f"{names[-1]} `{shown[-1].line}`" if names else "?", " > ".join(names[-3:])


def _target(fd: int) -> str:
    """What a descriptor is of, below the store, without numbers and random parts."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    path = re.sub(f".*/(?:{STORE}|{GROUP}/components/[^/]*)(?:/|$)", "", path) or "the store"
    path = re.sub(f".*/{GROUP}(?:/|$)", "the group/", path)
    if path.startswith("/"):
        path = "the folder that holds the store"
    path = re.sub(r"\.([a-z.]+)\.[0-9a-f]{12}\.tmp", r"\1", path)
    return re.sub(r"(tree)/.*", r"\1/*", re.sub(r"\b\d+\b", "N", path))


def _copy_instead(
    old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
) -> None:
    """What a program does that knows no rename: write the new name, remove the old one."""
    source, target = _path(old, src_dir_fd), _path(new, dst_dir_fd)
    _copy(source, target)
    if os.path.isdir(source) and not os.path.islink(source):
        for folder, folders, files in os.walk(source, topdown=False):
            for name in (*files, *folders):
                path = os.path.join(folder, name)
                is_dir = os.path.isdir(path) and not os.path.islink(path)
                os.rmdir(path) if is_dir else os.unlink(path)
        os.rmdir(source)
    else:
        os.unlink(source)


def _copy(source: str, target: str) -> None:
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(mode):
        os.mkdir(target)
        for name in os.listdir(source):
            _copy(f"{source}/{name}", f"{target}/{name}")
        os.chmod(target, stat.S_IMODE(mode))
    else:
        data = Path(source).read_bytes()
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IMODE(mode))
        os.write(fd, data)
        os.fchmod(fd, stat.S_IMODE(mode))
        os.close(fd)


def _copy_new(old: str, new: str, *, dir_fd: int) -> None:
    _copy_instead(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def _path(name: str, dir_fd: int | None) -> str:
    return name if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{name}"


@dataclass(frozen=True)
class Noticed:
    """Whether a planted bug showed, and how; `states` were looked at until it did."""

    bug: Call
    how: str
    states: int


def judged(rows: Iterable[Mapping[str, object]], single: bool = False) -> dict[str, list[str]]:
    """What was missed against expectation, what was expected to be missed and was noticed.

    A statement serves several operations: it is needed when one of them needs it.
    """
    noticed = {str(row["bug"]) for row in rows if row["noticed"]}
    unnoticed = {str(row["bug"]) for row in rows} - noticed
    return {
        "missed": sorted(unnoticed if single else unnoticed - ACCEPTED.keys()),
        "stale": sorted(noticed & ACCEPTED.keys()),
        "covered": sorted(unnoticed & ACCEPTED.keys()),
    }


class OnModel:
    """Hunts on the file system of model.py, several bugs at a time."""

    def __init__(self, kit: Kit, folder: Path, seed: int, *, jobs: int = 1) -> None:
        self._kit, self._folder, self._seed, self._jobs = kit, folder, seed, jobs

    def close(self) -> None:
        """Nothing to let go of."""

    def calls(self, scenario: Scenario) -> list[Call]:
        """Every sync and rename of an operation, in order."""
        found = modelled.run(
            self._kit, scenario, self._folder, seed=self._seed, watch=Watch, budget=1
        )
        return [Call(**call) for call in found.calls]

    def hunt_all(self, scenario: Scenario, bugs: Iterable[Call]) -> Iterator[Noticed]:
        """Plants each in turn, and looks at states until one of them shows it."""
        waiting = list(reversed(list(bugs)))
        running: dict[int, Call] = {}
        while waiting or running:
            while waiting and len(running) < self._jobs:
                bug = waiting.pop()
                child = modelled.start(
                    self._kit,
                    scenario,
                    self._folder,
                    seed=self._seed,
                    watch=functools.partial(Watch, bug),
                    budget=_GLANCE if str(bug) in ACCEPTED else _ALL,
                    stop=True,
                )
                running[child] = bug
            child, _ = os.wait()
            bug = running.pop(child)
            found = modelled.finish(child, scenario, self._folder)
            yield Noticed(bug, (found.failed or [found.broke])[0], found.states)


class OnDisk:
    """Hunts in crash states of a real file system. Needs private_mounts() first."""

    def __init__(
        self, kit: Kit, folder: Path, seed: int, kind: Kind, *, budget: int, jobs: int
    ) -> None:
        self._bench = Bench(kind, folder, kit)
        self._seed, self._budget, self._jobs = seed, budget, jobs

    def close(self) -> None:
        """Ends the recorder."""
        self._bench.close()

    def calls(self, scenario: Scenario) -> list[Call]:
        """Every sync and rename of an operation, in order."""
        return self._record(scenario, None)[1]

    def hunt_all(self, scenario: Scenario, bugs: Iterable[Call]) -> Iterator[Noticed]:
        """Plants each in turn, and looks at states until one of them shows it."""
        for bug in bugs:
            yield self._hunt(scenario, bug)

    def _hunt(self, scenario: Scenario, bug: Call) -> Noticed:
        try:
            case, _ = self._record(scenario, bug)
        except RuntimeError as error:
            return Noticed(bug, str(error), 0)
        chosen = states.choose(case.log, case.kind, self._budget, self._seed)
        # the end of the operation first: a missing sync shows most often there
        chosen.sort(key=lambda state: -state.at)
        bench = self._bench
        findings = replay(case, chosen, bench.folder, bench.kit, jobs=self._jobs)
        try:
            for count, finding in enumerate(findings, 1):
                if not finding.verdict.ok:
                    return Noticed(bug, finding.verdict.why, count)
        finally:
            findings.close()
        return Noticed(bug, "", len(chosen))

    def _record(self, scenario: Scenario, bug: Call | None) -> tuple[Case, list[Call]]:
        listed = self._bench.folder / "calls"

        def act(kit: Kit, place: Path) -> None:
            with Watch(bug) as watch:
                scenario.act(kit, place)
            listed.write_bytes(msgspec.json.encode(watch.calls))

        case = self._bench.record(replace(scenario, act=act))
        return case, msgspec.json.decode(listed.read_bytes(), type=list[Call])
