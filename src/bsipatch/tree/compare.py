"""What differs between two trees, each path classified once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bsipatch.tree.entry import Entry, Tree, path_order

__all__ = ["Difference", "DifferenceKind", "compare", "content_index"]

DifferenceKind = Literal[
    "added",  # only the new tree has the path, and its content is new
    "moved",  # as added, but the content is that of a path that lost it
    "copied",  # as added, but the content is that of a path that keeps it
    "removed",  # only the old tree has the path
    "changed",  # a file with other bytes
    "mode",  # the same content with another mode or other extended attributes
    "retargeted",  # a link that leads elsewhere
    "kind",  # a file that became a directory, and the like
]


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs. `old` or `new` is None where that tree lacks the path.

    source is the old tree's path with the same content, for "moved" and "copied".
    """

    kind: DifferenceKind
    path: str
    old: Entry | None = None
    new: Entry | None = None
    source: str | None = None

    @property
    def sentence(self) -> str:
        """For people: what differs, with the old and the new value."""
        if self.kind == "mode" and self.old and self.new:
            if self.old.mode != self.new.mode:
                return f"{self.path}: mode {self.new.mode:04o} for {self.old.mode:04o}"
            return f"{self.path}: other extended attributes"
        if self.kind == "kind" and self.old and self.new:
            return f"{self.path}: a {self.new.kind} for a {self.old.kind}"
        if self.kind == "retargeted" and self.old and self.new:
            return f"{self.path}: leads to {self.new.target!r} for {self.old.target!r}"
        if self.kind == "changed" and self.old and self.new:
            if self.old.size != self.new.size:
                return f"{self.path}: {self.new.size} bytes for {self.old.size}"
            return f"{self.path}: other content"
        if self.source is not None:
            return f"{self.path}: {self.kind} from {self.source}"
        return f"{self.path}: {self.kind}"


def content_index(tree: Tree) -> dict[tuple[int, str], list[Entry]]:
    """The non-empty files of a tree by size and digest, each list in path order."""
    index: dict[tuple[int, str], list[Entry]] = {}
    for entry in tree:
        if entry.kind == "file" and entry.size:
            index.setdefault((entry.size, entry.digest), []).append(entry)
    return index


def compare(old: Tree, new: Tree) -> list[Difference]:
    """Every path that differs, in path order; equal trees give an empty list.

    A file whose content merely moved is reported as "moved" at its new path and "removed" at its
    old one. Empty files never count as moved.
    """
    index = content_index(old)
    found: list[Difference] = []
    for path in sorted({e.path for e in old} | {e.path for e in new}, key=path_order):
        before, after = old.get(path), new.get(path)
        if after is None:
            found.append(Difference("removed", path, before))
        elif before is None:
            found.append(_arrival(after, index, new))
        elif before.kind != after.kind:
            found.append(Difference("kind", path, before, after))
        elif not before.same_content(after):
            kind: DifferenceKind = "changed" if after.kind == "file" else "retargeted"
            found.append(Difference(kind, path, before, after))
        elif before != after:
            found.append(Difference("mode", path, before, after))
    return found


def _arrival(entry: Entry, index: dict[tuple[int, str], list[Entry]], new: Tree) -> Difference:
    twins = index.get((entry.size, entry.digest), []) if entry.kind == "file" else []
    if not twins:
        return Difference("added", entry.path, None, entry)
    gone = [twin for twin in twins if not _still_there(twin, new)]
    source = (gone or twins)[0].path
    return Difference("moved" if gone else "copied", entry.path, None, entry, source)


def _still_there(entry: Entry, new: Tree) -> bool:
    after = new.get(entry.path)
    return after is not None and after.same_content(entry)
