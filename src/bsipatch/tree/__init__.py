"""One directory tree: walk it, digest it, compare two.

walk(root) -> Tree            every entry, safely read, in one total order
Tree.digest                   SHA-256 over content, type, mode, link targets and names
compare(old, new)             what differs, classified
check_tree(entries)           the gate for entries that come from outside
verity_digest(file)           fs-verity's digest of one file
frameworks(tree)              the frameworks in it and their Versions/Current
"""

from __future__ import annotations

from bsipatch.tree.compare import Difference, DifferenceKind, compare
from bsipatch.tree.entry import Entry, Kind, State, Tree
from bsipatch.tree.frameworks import Framework, frameworks
from bsipatch.tree.names import check_path, check_tree, fold
from bsipatch.tree.verity import (
    VerityHasher,
    block_digests,
    digest_of_blocks,
    verity_digest,
    verity_digest_fd,
)
from bsipatch.tree.walk import Memory, Progress, walk

__all__ = [
    "Difference",
    "DifferenceKind",
    "Entry",
    "Framework",
    "Kind",
    "Memory",
    "Progress",
    "State",
    "Tree",
    "VerityHasher",
    "block_digests",
    "check_path",
    "check_tree",
    "compare",
    "digest_of_blocks",
    "fold",
    "frameworks",
    "verity_digest",
    "verity_digest_fd",
    "walk",
]
