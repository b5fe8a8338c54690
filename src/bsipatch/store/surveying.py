"""Looks at one generation's tree entry by entry, and says of each what is wrong with it.

Unlike a walk it never gives up: a file that cannot be read, a device or a name
that no tree may hold is one finding more, and the rest is looked at as well.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import BsipatchError, CancelledError, UnsafePathError
from ..parallel import each
from ..tree import Entry, Tree, verity_digest_fd
from .beneath import DIRECTORY, READ, Beneath, InOrder
from .witness import Notes
from .work import Work

_BATCH = 256
_XATTRS = ("user.", "com.apple.")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}

#: what is wrong: the entry is not there, is another kind of thing, has other bytes or cannot be
#: read, leads elsewhere, has another mode or other attributes, or is one that nobody signed
Fault = Literal["missing", "kind", "content", "target", "mode", "xattrs", "extra"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One entry that is not as it must be; `expected` is None for an extra one.

    path    as the system names it, so that it can be found again
    reason  for people: "mode 0664 for 0644"
    """

    fault: Fault
    path: str
    reason: str
    expected: Entry | None = None

    @property
    def shown(self) -> str:
        """The path as text that can be printed, whatever bytes the name has."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


def survey(
    tree: Beneath, expected: Tree, *, xattrs: bool, work: Work, notes: Notes | None = None
) -> list[Finding]:
    """Every entry that differs from `expected`, in path order; content is read from the disk.

    Raises CancelledError, and OSError when the root itself cannot be listed.
    """
    there: set[str] = set()
    found: list[Finding] = list(_strangers(tree.fd, "", expected, there, work))
    entries = expected.entries
    batches = [entries[at : at + _BATCH] for at in range(0, len(entries), _BATCH)]
    results: dict[int, list[Finding]] = {}

    def look(index: int) -> None:
        with tree.in_order() as reached:
            looker = Looker(reached, xattrs, work, notes)
            results[index] = [
                finding
                for entry in batches[index]
                for finding in looker.look(entry, entry.path in there)
            ]

    each(len(batches), work.jobs, look, tick=work.check)
    for index in sorted(results):
        found += results[index]
    return sorted(found, key=lambda finding: os.fsencode(finding.path))


def _strangers(
    folder: int, prefix: str, expected: Tree, there: set[str], work: Work
) -> Iterator[Finding]:
    """Notes which expected names are there, and yields the others."""
    work.check()
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened or rewound
    with os.scandir(folder) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in names:
        path = prefix + name
        entry = expected.get(path)
        if entry is None:
            yield Finding("extra", path, "added")
            continue
        there.add(path)
        if is_dir and entry.kind == "dir":
            try:
                below = os.open(name, DIRECTORY, dir_fd=folder)
            except OSError:
                continue  # its own look says why; what is below counts as missing
            try:
                yield from _strangers(below, path + "/", expected, there, work)
            finally:
                os.close(below)


class Looker:
    """Looks at entries one after the other, for one thread."""

    def __init__(self, reached: InOrder, xattrs: bool, work: Work, notes: Notes | None) -> None:
        self._reached, self._xattrs, self._work, self._notes = reached, xattrs, work, notes

    def look(self, entry: Entry, is_there: bool) -> Iterator[Finding]:
        self._work.check()
        if not is_there:
            yield Finding("missing", entry.path, "removed", entry)
            return
        try:
            yield from self._look(entry)
        except CancelledError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            yield Finding("missing", entry.path, "removed", entry)
        except (OSError, BsipatchError) as error:
            fault: Fault = "kind" if isinstance(error, UnsafePathError) else "content"
            why = error.message if isinstance(error, BsipatchError) else error.strerror
            yield Finding(fault, entry.path, f"cannot be read: {why}", entry)

    def _look(self, entry: Entry) -> Iterator[Finding]:
        folder, name = self._reached.at(entry.path)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
        if kind != entry.kind:
            yield Finding("kind", entry.path, f"a {kind} for a {entry.kind}", entry)
            return
        if kind == "symlink":
            target = os.readlink(name, dir_fd=folder)
            if target != entry.target:
                shown = f"leads to {target!r} for {entry.target!r}"
                yield Finding("target", entry.path, shown, entry)
            return
        mode = status.st_mode & 0o7777
        if mode != entry.mode:
            yield Finding("mode", entry.path, f"mode {mode:04o} for {entry.mode:04o}", entry)
        if kind == "file":
            yield from self._look_into(entry, folder, name, status)
        elif self._xattrs:
            fd = os.open(name, DIRECTORY, dir_fd=folder)
            try:
                yield from self._look_at_xattrs(entry, fd)
            finally:
                os.close(fd)

    def _look_into(
        self, entry: Entry, folder: int, name: str, status: os.stat_result
    ) -> Iterator[Finding]:
        if status.st_size != entry.size:
            reason = f"{status.st_size} bytes for {entry.size}"
            yield Finding("content", entry.path, reason, entry)
            return
        fd = os.open(name, READ, dir_fd=folder)
        try:
            before = os.fstat(fd)
            if (before.st_ino, stat.S_IFMT(before.st_mode)) != (status.st_ino, stat.S_IFREG):
                yield Finding("content", entry.path, "changed while it was read", entry)
                return
            forget(fd)
            digest, size = verity_digest_fd(fd, most=entry.size, progress=self._work.advance)
            after = os.fstat(fd)
            if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
                yield Finding("content", entry.path, "changed while it was read", entry)
                return
            if (digest, size) != (entry.digest, entry.size):
                yield Finding("content", entry.path, "other content", entry)
            elif self._notes is not None and (before.st_mode & 0o7777) == entry.mode:
                self._notes.note(entry.path, before)
            if self._xattrs:
                yield from self._look_at_xattrs(entry, fd)
        finally:
            os.close(fd)

    def _look_at_xattrs(self, entry: Entry, fd: int) -> Iterator[Finding]:
        if not hasattr(os, "listxattr"):
            return
        names = sorted((n for n in os.listxattr(fd) if n.startswith(_XATTRS)), key=os.fsencode)
        if tuple((name, os.getxattr(fd, name)) for name in names) != entry.xattrs:
            yield Finding("xattrs", entry.path, "other extended attributes", entry)


def forget(fd: int) -> None:
    """Drops a file's clean pages, so that the next read is one of the disk."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        with contextlib.suppress(OSError):
            advise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
