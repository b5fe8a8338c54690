"""What the scenarios work with: three builds of a small tree, updates between them, a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bsipatch.limits import DEFAULT
from bsipatch.manifest import Activation, HealthCheck
from bsipatch.store import Applied, Store, apply
from bsipatch.tree import Tree
from tests.support.stores import NOW, THIRD, new_store
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, Content, tree_of, write_tree
from tests.support.updates import make_update

#: the store's folder inside the file system under test
STORE = "store"
#: the file systems are small, so that thousands of states can be built of them
_LIMITS = replace(DEFAULT, reserve_space=0)
LETTERS = {"a": NEW_FRAMEWORK, "b": THIRD}


@dataclass(frozen=True)
class Kit:
    """The baseline's folder, the update files by letter, and what each leads to ("" the baseline).

    All of it lies off the file system under test.
    """

    base: Path
    updates: dict[str, Path]
    digests: dict[str, str]

    def name_of(self, tree: Tree) -> str | None:
        """Which build a tree is; None for a mix."""
        return next((name for name, known in self.digests.items() if known == tree.digest), None)

    def init(self, place: Path, **options: object) -> None:
        """A new store below `place`."""
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
    return Kit(base, updates, {name: tree_of(tree).digest for name, tree in trees.items()})


@contextmanager
def opened(place: Path) -> Iterator[Store]:
    """The store below `place`."""
    with Store(place / STORE, limits=_LIMITS) as store:
        yield store
