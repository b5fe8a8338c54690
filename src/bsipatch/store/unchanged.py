"""Whether a base is, to its last entry, what it was when all of it was found right.

btrfs counts the transactions in which a subvolume changed, whatever changed in
it.  A base that still has the count at which a snapshot of it was found right
need not be looked at again, nor does what the next snapshot of it takes over:
an apply then looks at what it changes and at nothing else.

A count is believed only when it was read after the transaction had ended, and
while the generation was the same as when it was written down: replaying the log
after a power cut writes a new generation.  Reading a file can renew its access
time, which counts as a change: then the entries are looked at, one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Set

import msgspec

from ..manifest import Manifest
from . import btrfs, durable, records
from .btrfs import Subvolume

UNCHANGED = "unchanged.json"
_FORMAT = 1
_MAX_SIZE = 1 << 26


def folders_to_look_at(manifest: Manifest, unknown: Set[str]) -> set[str]:
    """Folders of the result with all that is changed, and all of which nothing is known."""
    folders: set[str] = set()
    for action in manifest.actions:
        if action.do != "keep" or action.path in unknown:
            folders.add(action.path.rpartition("/")[0])
            if action.do != "keep" and action.new is not None and action.new.kind == "dir":
                folders.add(action.path)
    return folders


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int
    #: the tree's digest, and whether extended attributes were looked at as well
    tree: str
    xattrs: bool
    subvolume: Subvolume
    #: paths of which nobody knows: the snapshot that was looked at did not take them over
    unknown: tuple[str, ...]


class Unchanged:
    """What is known of a base, before a snapshot of it is made, and what is learnt from that one.

    Not for use from several threads.
    """

    def __init__(self, root_fd: int, number: int, tree_fd: int, tree: str, *, xattrs: bool) -> None:
        """`tree_fd` is the base's root, `tree` its digest; a missing or foreign record is none."""
        self._root, self._number, self._fd = root_fd, number, tree_fd
        self._tree, self._xattrs = tree, xattrs
        before = btrfs.describe(tree_fd)
        self._after: Subvolume | None = None
        record = None if before is None else _load(root_fd, number)
        if record is not None and (
            (record.format, record.tree, record.subvolume) != (_FORMAT, tree, before)
            or record.xattrs < xattrs
        ):
            record = None
        self._record = record

    def snapshot_made(self) -> frozenset[str] | None:
        """To be called right after the snapshot: the paths of which nothing is known.

        None when something in the base may have changed: then nothing is known at all.
        """
        self._after = after = btrfs.describe(self._fd)
        record = self._record
        if record is None or after is None:
            return None
        # A change since the record was written is of a later transaction, and counted as such.
        if (after.uuid, after.changed) != (record.subvolume.uuid, record.subvolume.changed):
            return None
        return frozenset(record.unknown)

    def remember(self, unknown: Iterable[str]) -> None:
        """The snapshot was found right, but for these paths, which it did not take over.

        Nothing is written when the base changed since its snapshot was made, which ended a
        transaction.  Not synced, and not missed: a record that a power cut or a full disk takes
        or halves is none, and costs a look at every entry.
        """
        if self._after is None or self._after.changed > self._after.generation:
            return
        record = _Record(_FORMAT, self._tree, self._xattrs, self._after, tuple(sorted(unknown)))
        name = f"{records.generation_name(self._number)}/{UNCHANGED}"
        with contextlib.suppress(OSError):
            durable.remove_file(name, dir_fd=self._root, sync=False)
            durable.write_new(name, msgspec.json.encode(record), dir_fd=self._root)


def _load(root_fd: int, number: int) -> _Record | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        name = f"{records.generation_name(number)}/{UNCHANGED}"
        data = durable.read_file(name, dir_fd=root_fd, limit=_MAX_SIZE)
        return msgspec.json.decode(data, type=_Record)
    return None
