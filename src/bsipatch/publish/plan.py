"""Decides how each path gets from the old tree to the new one, before any byte is compressed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bsipatch.manifest import Action, Deed
from bsipatch.publish.similarity import Finder
from bsipatch.tree import Difference, Entry, State, Tree, compare
from bsipatch.tree.compare import content_index

__all__ = ["Job", "Plan", "plan"]

#: a renamed file is only worth a patch when one is at most this many times as large as the other
_SIZE_RATIO = 4
#: a changed file that resembles itself at least so much is patched from itself without more ado
_ITSELF = 0.15
#: a second base is tried when it resembles the new file at least this share of what the first does
_CLOSE = 0.7
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Job:
    """A file whose new bytes must come from a payload.

    sources  the old tree's files worth patching, at most two, the likelier first; none where
             nothing is alike
    paths    every path that gets this content; one payload serves them all
    """

    new: Entry
    sources: tuple[Entry, ...]
    paths: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes to be read for it, about what it costs."""
        return self.new.size + max((source.size for source in self.sources), default=0)


@dataclass(frozen=True, slots=True)
class Plan:
    """actions: for every path that needs no payload; jobs: the rest, in path order."""

    actions: tuple[Action, ...]
    jobs: tuple[Job, ...]


def plan(old: Tree, new: Tree, finder: Finder | None = None) -> Plan:
    """One action or job for each path of either tree; deterministic.

    finder: looks into the files, so that one which was renamed or divided and changed as well
    is patched from where it was.  Without it names alone decide.
    """
    planner = _Planner(old, new)
    actions: list[Action] = []
    needed: dict[tuple[int, str], list[Difference]] = {}
    differing = set()
    for difference in compare(old, new):
        differing.add(difference.path)
        action = planner.action(difference)
        if action is not None:
            actions.append(action)
        elif difference.new is not None:
            key = (difference.new.size, difference.new.digest)
            needed.setdefault(key, []).append(difference)
    actions.extend(
        Action(do="keep", path=entry.path, old=entry.state)
        for entry in old
        if entry.path not in differing
    )
    jobs = [planner.job(group) for group in needed.values()]
    if finder is not None:
        jobs = planner.look_into(jobs, finder)
    return Plan(tuple(actions), tuple(jobs))


class _Planner:
    def __init__(self, old: Tree, new: Tree) -> None:
        self._old = old
        self._contents = content_index(old)
        self._by_name: dict[str, list[Entry]] = {}
        self._gone = {entry.path for entry in old if entry.path not in new}
        for entry in old:
            if entry.kind == "file" and entry.size:
                self._by_name.setdefault(_plain_name(entry.path), []).append(entry)

    def action(self, difference: Difference) -> Action | None:
        """The action of a difference; None when it needs a payload."""
        old, new = _state(difference.old), _state(difference.new)
        path = difference.path
        if new is None:
            return Action(do="remove", path=path, old=old)
        if difference.kind == "mode":
            return Action(do="chmod", path=path, old=old, new=new)
        if new.kind != "file":
            deed: Deed = "mkdir" if new.kind == "dir" else "symlink"
            if difference.kind == "retargeted":
                deed = "retarget"
            return Action(do=deed, path=path, old=old, new=new)
        if new.size == 0:
            return Action(do="add", path=path, old=old, new=new)
        source = self._same_content(difference, new)
        if source is not None:
            return Action(do="clone", path=path, old=old, new=new, source=source)
        return None

    def _same_content(self, difference: Difference, new: State) -> str | None:
        if difference.source is not None:
            return difference.source
        twins = self._contents.get((new.size, new.digest), [])
        return twins[0].path if twins else None

    def job(self, group: list[Difference]) -> Job:
        """One payload for all differences of a group, whose new content is the same."""
        paths = tuple(difference.path for difference in group)
        for difference in group:
            old = difference.old
            if difference.new is not None and old is not None and old.kind == "file" and old.size:
                return Job(difference.new, (old,), paths)
        first = group[0].new
        assert first is not None
        alike = self._alike(first)
        return Job(first, () if alike is None else (alike,), paths)

    def look_into(self, jobs: list[Job], finder: Finder) -> list[Job]:
        """The jobs with the sources that their content tells."""
        shares = [self._own_share(job, finder) for job in jobs]
        if any(share is None or share < _ITSELF for share in shares):
            files = [entry for entry in self._old if entry.kind == "file" and entry.size]
            finder.consider(sorted(files, key=lambda old: old.path not in self._gone))
        return [
            job
            if share is not None and share >= _ITSELF
            else replace(job, sources=_choose(job, share, finder))
            for job, share in zip(jobs, shares, strict=True)
        ]

    @staticmethod
    def _own_share(job: Job, finder: Finder) -> float | None:
        """How much a changed file resembles what it was; None for a file that is new there."""
        if not job.sources or job.sources[0].path not in job.paths:
            return None
        return finder.share(job.new, job.sources[0]) or 0.0

    def _alike(self, new: Entry) -> Entry | None:
        """The old file that a new path most likely descends from.

        Alike are files whose names differ in numbers at most.  Preferred, in this order: a path
        that is gone, the same name, the most directories in common, the closest size.
        """
        candidates = [
            old
            for old in self._by_name.get(_plain_name(new.path), [])
            if old.size <= new.size * _SIZE_RATIO and new.size <= old.size * _SIZE_RATIO
        ]
        if not candidates:
            return None
        return min(candidates, key=lambda old: self._distance(old, new))

    def _distance(self, old: Entry, new: Entry) -> tuple[bool, bool, int, int, bytes]:
        return (
            old.path not in self._gone,
            _name(old.path) != _name(new.path),
            -len(set(old.path.split("/")[:-1]) & set(new.path.split("/")[:-1])),
            abs(old.size - new.size),
            old.path.encode(),
        )


def _choose(job: Job, own: float | None, finder: Finder) -> tuple[Entry, ...]:
    """The bases to try: what the content resembles most, and what path or name say."""
    likely = finder.likely(job.new)[:2]
    if not likely:
        return job.sources
    best = likely[0][0]
    found = [old for share, old in likely if share >= best * _CLOSE]
    # A file's own path, or its name, is no proof: it stays a base while little speaks against it.
    known = [old for old in job.sources if all(old.path != other.path for other in found)]
    if known and own is not None:
        return (found[0], *known)
    if known and (finder.share(job.new, known[0]) or 0.0) >= best * _CLOSE:
        return (found[0], *known)
    return tuple(found)


def _state(entry: Entry | None) -> State | None:
    return None if entry is None else entry.state


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _plain_name(path: str) -> str:
    return _NUMBERS.sub("#", _name(path).casefold())
