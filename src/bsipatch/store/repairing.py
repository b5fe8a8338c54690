"""Puts right what drifted in one generation's tree, entry by entry, even while it is live.

No file's bytes are changed in place: a new file is made, verified, synced and
renamed over the old one, so that a program meets the rotten file or the sound
one.  Modes and attributes are set in place; each is one step of the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import BsipatchError, CancelledError
from ..tree import Entry
from . import durable
from .beneath import DIRECTORY, Beneath
from .seeded import writable
from .sourcing import Sources, temporary_name
from .surveying import Finding

_FLAGS = {"dir": DIRECTORY}


@dataclass(frozen=True, slots=True)
class Repaired:
    """One entry that was put right.

    what    what was wrong with it
    source  where the right content came from; "" where none was needed
    blocks  how many 4 KiB blocks of the file had been wrong; None without an old file
    """

    generation: int
    path: str
    what: str
    source: str = ""
    blocks: int | None = None


def repair_tree(
    number: int, tree: Beneath, findings: Sequence[Finding], sources: Sources, *, xattrs: bool
) -> tuple[list[Repaired], dict[str, str]]:
    """Repairs what can be; gives that, and by path why the rest could not.

    The caller looks at the tree again.  Raises SystemCallError (a failed sync),
    CancelledError.
    """
    done: list[Repaired] = []
    failed: dict[str, str] = {}
    repairer = _Repairer(number, tree, sources, xattrs)
    extras = [finding for finding in findings if finding.fault == "extra"]
    others = [finding for finding in findings if finding.fault != "extra"]
    for finding in [*extras, *others]:  # parents come first
        try:
            made = repairer.repair(finding)
        except CancelledError:
            raise
        except OSError as error:
            failed[finding.path] = error.strerror or str(error)
            continue
        except BsipatchError as error:
            failed[finding.path] = error.message
            continue
        if isinstance(made, str):
            failed[finding.path] = made
        else:
            done.append(made)
    with durable.system_calls("syncing the repaired tree"):
        repairer.close_folders()
        durable.sync_file_system(tree.fd)
    return done, failed


class _Repairer:
    def __init__(self, number: int, tree: Beneath, sources: Sources, xattrs: bool) -> None:
        self._number, self._tree, self._sources = number, tree, sources
        self._xattrs = xattrs
        self._new_folders: list[Entry] = []

    def repair(self, finding: Finding) -> Repaired | str:
        """What was done, or why nothing could be. Raises OSError, BsipatchError."""
        entry = finding.expected
        if entry is None:
            with self._folder(finding.path) as (fd, name):
                durable.remove_tree(name, dir_fd=fd)
                durable.sync_fd(fd)
            return Repaired(self._number, finding.shown, finding.reason)
        if finding.fault in ("mode", "xattrs"):
            with (
                self._tree.opened(entry.path, DIRECTORY)
                if entry.kind == "dir"
                else (self._tree.opened(entry.path)) as fd
            ):
                self._set(fd, entry)
                durable.sync_fd(fd)
            return Repaired(self._number, finding.shown, finding.reason)
        if entry.kind == "file":
            return self._make_file(finding, entry)
        with self._folder(entry.path) as (fd, name), temporary_name(fd) as temporary:
            if entry.kind == "dir":
                os.mkdir(temporary, 0o700, dir_fd=fd)
                self._new_folders.append(entry)
            else:
                os.symlink(entry.target, temporary, dir_fd=fd)
            self._put(temporary, name, fd)
        return Repaired(self._number, finding.shown, finding.reason)

    def _make_file(self, finding: Finding, entry: Entry) -> Repaired | str:
        with self._folder(entry.path) as (fd, name), temporary_name(fd) as temporary:
            made = self._sources.make(self._number, entry, fd, temporary)
            if made is None:
                links = 0
                with contextlib.suppress(OSError):
                    links = os.stat(name, dir_fd=fd, follow_symlinks=False).st_nlink
                shared = "; the file is shared with other generations by hard links" * (links > 1)
                return f"{finding.reason}, and no other copy holds its content{shared}"
            if self._xattrs:
                with self._tree_file(fd, temporary) as new:
                    self._set(new, entry)
                    durable.sync_fd(new)
            self._put(temporary, name, fd)
        return Repaired(self._number, finding.shown, finding.reason, made.source, made.blocks)

    def _put(self, temporary: str, name: str, fd: int) -> None:
        """Gives a finished entry its name; what was there goes, in one step for onlookers."""
        try:
            durable.rename_over(temporary, name, old_dir=fd, new_dir=fd)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise
            durable.exchange(temporary, name, old_dir=fd, new_dir=fd)
            durable.remove_tree(temporary, dir_fd=fd)
        durable.sync_fd(fd)

    def close_folders(self) -> None:
        """Gives new folders their modes, children first."""
        for entry in reversed(self._new_folders):
            with (
                contextlib.suppress(FileNotFoundError),
                self._tree.opened(entry.path, DIRECTORY) as fd,
            ):
                self._set(fd, entry)

    def _set(self, fd: int, entry: Entry) -> None:
        if self._xattrs and sys.platform == "linux":
            if os.fstat(fd).st_mode & 0o200 == 0:
                os.fchmod(fd, 0o700)  # attributes can only be set on what is writable
            wanted = dict(entry.xattrs)
            for name in os.listxattr(fd):
                if name.startswith(("user.", "com.apple.")) and name not in wanted:
                    os.removexattr(fd, name)
            for name, value in wanted.items():
                os.setxattr(fd, name, value)
        os.fchmod(fd, entry.mode)

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of an entry, open for changes, and the entry's name."""
        head, _, name = path.rpartition("/")
        with self._tree.opened(head, DIRECTORY) as fd, writable(fd):
            yield fd, name

    @contextlib.contextmanager
    def _tree_file(self, folder: int, name: str) -> Iterator[int]:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            yield fd
        finally:
            os.close(fd)
