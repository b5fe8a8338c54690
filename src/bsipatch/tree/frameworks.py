"""The framework convention: NAME.framework/Versions/Current and the links that go through it."""

from __future__ import annotations

from dataclasses import dataclass

from bsipatch.tree.entry import Entry, Tree

__all__ = ["Framework", "frameworks"]


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework bundle of a tree.

    path      of the bundle's directory; "" when the tree itself is one
    current   the version that Versions/Current names; "" for the shallow layout without versions
    versions  the directories in Versions, in order
    links     the top-level links that go through Versions/Current, in order
    problems  what breaks the convention, as sentences; empty for a well-formed bundle
    """

    path: str
    current: str
    versions: tuple[str, ...]
    links: tuple[str, ...]
    problems: tuple[str, ...]


def frameworks(tree: Tree) -> tuple[Framework, ...]:
    """The frameworks in `tree`, in path order.

    Recognised are directories named *.framework, every directory that holds Versions/Current, and
    the tree itself when it does.
    """
    children: dict[str, list[Entry]] = {}
    for entry in tree:
        children.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    bundles = {e.path for e in tree if e.kind == "dir" and e.path.endswith(".framework")}
    for entry in tree:
        if entry.kind == "symlink" and (entry.path + "/").endswith("Versions/Current/"):
            head = entry.path.removesuffix("Versions/Current")
            if head == "" or head.endswith("/"):
                bundles.add(head.removesuffix("/"))
    return tuple(_framework(tree, path, children) for path in sorted(bundles, key=str.encode))


def _framework(tree: Tree, path: str, children: dict[str, list[Entry]]) -> Framework:
    prefix = f"{path}/" if path else ""
    versions_dir = f"{prefix}Versions"
    versions = tuple(
        entry.path.rpartition("/")[2]
        for entry in children.get(versions_dir, [])
        if entry.kind == "dir"
    )
    problems: list[str] = []
    current = ""
    link = tree.get(f"{versions_dir}/Current")
    if link is not None and link.kind == "symlink":
        current = link.target
        if current not in versions:
            problems.append(f"Versions/Current names {current!r}, which is not there")
    elif versions:
        problems.append("Versions has no link named Current")
    links: list[str] = []
    for entry in children.get(path, []):
        name = entry.path.rpartition("/")[2]
        if entry.kind == "symlink" and entry.target.startswith("Versions/Current/"):
            links.append(name)
            inside = entry.target.removeprefix("Versions/Current/")
            if current and f"{versions_dir}/{current}/{inside}" not in tree:
                problems.append(f"{name} leads to {entry.target!r}, which is not there")
    return Framework(path, current, versions, tuple(links), tuple(problems))
