"""What files looked like when they were last read and found right, so as not to read them again.

A generation's witness says of each file: inode, change time, modification time
and size, as they were when its content was verified.  A file that still looks
so has not been written to since: the kernel sets the change time at every
write, and nobody can set it back.  It does not tell that the medium still
gives those bytes; `check-store` reads them.

A snapshot keeps all four.  A hard link changes the change time of the file that
every generation shares, so where the base's own witness fails the others' are
asked for the same path, the newest first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from ..manifest import Manifest
from ..tree import State
from . import durable, records

WITNESS = "witness.json"
_FORMAT = 1
#: the kernel's clock for change times may stand still for so long
_TICK_NS = 20_000_000
_MAX_SIZE = 1 << 30


class Seen(NamedTuple):
    """How a file looked: inode number, times in nanoseconds, size in bytes."""

    inode: int
    changed: int
    modified: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> Seen:
        """What lstat or fstat tells."""
        # as cls(...), which costs three times as much and is called for every file
        return tuple.__new__(
            cls, (status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)
        )


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int
    #: the tree's digest: a witness is of one content only
    tree: str
    #: whether extended attributes were read as well
    xattrs: bool
    files: dict[str, Seen]


class Witness:
    """What is known of the files of one generation, `base`. For reading from any thread."""

    def __init__(self, root_fd: int, base: int, tree: str, *, xattrs: bool = False) -> None:
        """`tree` is the digest of the base's tree. A missing or foreign witness knows nothing.

        `xattrs`: it must speak of extended attributes, too.
        """
        self._root, self._base, self._xattrs = root_fd, base, xattrs
        record = _load(root_fd, base)
        of_this = record is not None and record.tree == tree and record.xattrs >= xattrs
        self._files = record.files if record is not None and of_this else {}
        #: those of other generations, the newest first, as far as they were asked for
        self._others: list[Mapping[str, Seen]] = []
        self._unasked: list[int] | None = None
        self._lock = threading.Lock()

    def files(self) -> Mapping[str, Seen]:
        """How each file looked when it was last found right."""
        return self._files

    def vouches(self, path: str, status: os.stat_result) -> bool:
        """Whether the file still has the content that its generation must have."""
        known = self._files.get(path)
        if known is None:
            return False
        inode, changed, modified, size = known
        # the same bytes, if only a link was made or removed since
        if (inode, modified, size) != (status.st_ino, status.st_mtime_ns, status.st_size):
            return False
        return changed == status.st_ctime_ns or self._others_vouch(path, Seen.of(status))

    def _others_vouch(self, path: str, now: Seen) -> bool:
        """Whether another generation's witness saw this file as it is now."""
        asked = 0
        while asked < len(self._others) or self._ask_next(asked):
            if self._others[asked].get(path) == now:
                return True
            asked += 1
        return False

    def _ask_next(self, asked: int) -> bool:
        """Loads one witness more, if there is one: who made the last link has the last word."""
        with self._lock:
            if asked < len(self._others):
                return True  # another thread did it
            if self._unasked is None:
                numbers: list[int] = []
                with contextlib.suppress(OSError):
                    numbers = records.generation_numbers(self._root)
                self._unasked = [number for number in numbers if number != self._base]
            while self._unasked:
                record = _load(self._root, self._unasked.pop())
                if record is not None and record.xattrs >= self._xattrs:
                    self._others.append(record.files)
                    return True
            return False


class Notes:
    """A walk's memory: what need not be read, and what was read; becomes the next witness."""

    def __init__(
        self,
        known: Callable[[str, os.stat_result], State | None] | None = None,
        *,
        xattrs: bool = False,
    ) -> None:
        """`known`: asked what a file is that need not be read, given its path and lstat.

        `xattrs`: whether the walk reads extended attributes.
        """
        self._known, self._xattrs = known, xattrs
        self._files: dict[str, Seen] = {}
        time.sleep(_TICK_NS / 1e9)  # what changes from here on gets another change time
        self._began = time.time_ns()
        #: files that were not read, and the bytes they have
        self.skipped = self.skipped_bytes = 0

    def inherit(self, files: Mapping[str, Seen], manifest: Manifest) -> None:
        """What stays and was not looked at is as the witness of the snapshot's base has it."""
        for action in manifest.actions:
            path = action.path
            if action.do == "keep" and path in files:
                self._files.setdefault(path, files[path])

    def recall(self, path: str, status: os.stat_result) -> State | None:
        """What the file is, when it need not be read. Called by one thread."""
        known = None if self._known is None else self._known(path, status)
        if known is not None:
            self._files[path] = Seen.of(status)
            self.skipped += 1
            self.skipped_bytes += status.st_size
        return known

    def note(self, path: str, status: os.stat_result) -> None:
        """The file was read; `status` was the same before and after. Called by any thread."""
        if status.st_ctime_ns < self._began - _TICK_NS // 2:
            self._files[path] = Seen.of(status)

    def write(self, folder: int, tree: str) -> None:
        """Writes the witness of the tree with that digest into its generation. Raises OSError.

        Not synced: one that a power cut takes or halves is no witness, and costs a reading.
        """
        record = _Record(_FORMAT, tree, self._xattrs, self._files)
        name = f".{WITNESS}.tmp"
        durable.remove_file(name, dir_fd=folder, sync=False)
        durable.write_new(name, msgspec.json.encode(record), dir_fd=folder)
        durable.rename_over(name, WITNESS, old_dir=folder, new_dir=folder)


def _load(root_fd: int, number: int) -> _Record | None:
    try:
        name = f"{records.generation_name(number)}/{WITNESS}"
        data = durable.read_file(name, dir_fd=root_fd, limit=_MAX_SIZE)
        record = msgspec.json.decode(data, type=_Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None  # files to be read, nothing worse
    return record if record.format == _FORMAT else None
