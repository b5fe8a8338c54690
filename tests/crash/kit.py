"""What the scenarios work with: three builds of a small tree, updates between them, a store."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bsipatch.limits import DEFAULT
from bsipatch.manifest import Activation, HealthCheck
from bsipatch.store import Applied, Group, Store, apply, exchange
from bsipatch.tree import Tree, walk
from tests.support.stores import NOW, THIRD, new_store
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, Content, tree_of, write_tree
from tests.support.updates import make_update

#: the store's folder inside the file system under test, or that of a group of stores
STORE, GROUP = "store", "group"
#: where a live path lies that is a directory
LIVE = "live"
#: the file systems are small, so that thousands of states can be built of them
_LIMITS = DEFAULT.but(reserve_space=0)
FOURTH = {**OLD_FRAMEWORK, "Versions/A/Resources/Info.plist": b"<plist>4</plist>\n" * 8}
#: mode and bytes, or a link's target, by path
Entries: TypeAlias = dict[str, tuple[int, bytes]]
LETTERS = {"a": NEW_FRAMEWORK, "b": THIRD, "c": FOURTH}


@dataclass(frozen=True)
class Kit:
    """The baseline's folder, the update files by letter, and what each leads to ("" the baseline).

    All of it lies off the file system under test.
    """

    base: Path
    updates: dict[str, Path]
    digests: dict[str, str]
    #: the entries of build (a), and what `spoil` makes of them
    sound: Entries
    spoilt: Entries
    #: called by an act of several operations when the first of them has reported its success
    report: Callable[[], None] = lambda: None

    def name_of(self, tree: Tree) -> str | None:
        """Which build a tree is; None for a mix."""
        return next((name for name, known in self.digests.items() if known == tree.digest), None)

    def shown(self, place: Path) -> str | None:
        """Which builds are live as programs see them, of several stores "a&b"; None for a mix."""
        names = [self.name_of(walk(live_tree(root))) for root in stores(place)]
        return "&".join(name for name in names if name is not None) if None not in names else None

    def init(self, place: Path, *, live_mode: str = "", **options: object) -> None:
        """A new store below `place`, with a live path of its own where a mode is given."""
        if live_mode:
            options = {"live_path": place / LIVE, "live_mode": live_mode, **options}
        new_store(place / STORE, self.base, **options).close()

    def apply(self, place: Path, letter: str, **options: object) -> Applied:
        """Applies an update to the store below `place`."""
        with opened(place) as store:
            return apply(store, self.updates[letter], now=NOW, **options)  # type: ignore[arg-type]


def make_kit(folder: Path) -> Kit:
    """Writes everything below `folder`."""
    base = write_tree(folder / "base", OLD_FRAMEWORK)
    # the same build as (a): effective after a restart, and one that cannot pass its check
    special = {
        "restart": {"activation": Activation(scope="restart")},
        "unhealthy": {"health": (HealthCheck(kind="command", command=("/bin/false",)),)},
    }
    trees: dict[str, dict[str, Content]] = {"": OLD_FRAMEWORK, **LETTERS}
    updates = {}
    for letter, contents in LETTERS.items():
        updates[letter] = folder / f"{letter}.bsi"
        updates[letter].write_bytes(
            make_update(OLD_FRAMEWORK, contents, letter=letter, build=f"25D77128{letter}")
        )
    for name, fields in special.items():
        updates[name] = folder / f"{name}.bsi"
        updates[name].write_bytes(
            make_update(OLD_FRAMEWORK, LETTERS["a"], letter="a", build=f"25D{name}", **fields)
        )
    digests = {name: tree_of(tree).digest for name, tree in trees.items()}
    whole = write_tree(folder / "whole", NEW_FRAMEWORK)
    return Kit(base, updates, digests, entries(whole), entries(spoil(whole)))


def entries(tree: Path) -> Entries:
    """All that is in a tree, also what has no business there."""
    found: Entries = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(tree))] = (status.st_mode, content)
    return found


def spoil(tree: Path) -> Path:
    """Does to a tree of build (a) whatever check-store knows to repair; gives the tree."""
    program = tree / "Versions/A/Demo"
    data = bytearray(program.read_bytes())
    data[5000] ^= 1
    program.write_bytes(data)
    (tree / "Versions/A/Resources/Info.plist").write_bytes(b"<plist>")
    (tree / "Versions/A/Resources/same.dat").unlink()
    (tree / "Versions/A/Resources/fresh.txt").chmod(0o600)
    (tree / "Versions/A/Helpers/tool").unlink()
    (tree / "Versions/A/Helpers").rmdir()
    (tree / "Helpers").unlink()
    (tree / "Versions/A/stranger").write_bytes(b"nobody signed this")
    return tree


def stores(place: Path) -> list[Path]:
    """Every store below `place`: one, or the components of a group."""
    if (place / GROUP).is_dir():
        return sorted((place / GROUP / "components").iterdir())
    return [place / STORE]


def live_tree(root: Path) -> Path:
    """Where programs see the live tree of the store at `root`."""
    if (root / exchange.LIVE).exists():
        return root.parent / LIVE
    return root / "current/tree"


def open_store(root: Path) -> Store:
    """The store at `root`."""
    return Store(root, limits=_LIMITS)


@contextmanager
def opened(place: Path) -> Iterator[Store]:
    """The store below `place`."""
    with open_store(place / STORE) as store:
        yield store


def group_of(place: Path) -> Group:
    """The group below `place`."""
    return Group(place / GROUP, limits=_LIMITS)
