"""Reads a directory tree through directory descriptors, following no link and missing nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import Protocol

from bsipatch.errors import (
    BsipatchError,
    LimitError,
    NotFoundError,
    TreeDriftError,
    UnsafePathError,
    from_os_error,
)
from bsipatch.limits import DEFAULT, Limits
from bsipatch.tree.entry import Entry, State, Tree
from bsipatch.tree.names import check_path, check_tree
from bsipatch.tree.verity import verity_digest_fd

__all__ = ["Memory", "Progress", "walk"]

#: gets the number of bytes just read; may raise to stop
Progress = Callable[[int], None]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a fifo put in place of a file must not make the open wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KEPT_XATTRS = ("user.", "com.apple.")


class Memory(Protocol):
    """What a caller knows of files already, and is told of those that are read."""

    def recall(self, path: str, status: os.stat_result) -> State | None:
        """What the file is, when it need not be read. Called by the walking thread alone.

        Only the digest counts, and on a walk with extended attributes those.
        """

    def note(self, path: str, status: os.stat_result) -> None:
        """The file was digested; it looked so before and after. Called by any thread."""


def walk(
    root: str | os.PathLike[str] | int,
    *,
    xattrs: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
    memory: Memory | None = None,
    uncached: bool = False,
) -> Tree:
    """The tree below `root`, a directory's path (its last component may be a link) or descriptor.

    Every file is opened without following links, through its directory's descriptor, and digested
    by `jobs` threads.  Hard links count as separate files.  With `xattrs`, extended attributes
    named user.* and com.apple.* are read too, where the system has them.  `progress` gets the
    number of file bytes just read; it may be called from any of the threads, and may raise.
    `memory` can spare files from being read.  `uncached` reads from the disk what is not dirty.
    Raises NotFoundError, SystemCallError, LimitError, UnsafePathError (devices, fifos, sockets,
    setuid, names that check_path refuses, links that lead out) and TreeDriftError (something
    changed while it was read).
    """
    shown = Path(f"/dev/fd/{root}") if isinstance(root, int) else Path(root)
    try:
        # A descriptor of our own: a shared one would share its reading position.
        top = os.open(".", _DIRECTORY, dir_fd=root) if isinstance(root, int) else _open_root(shown)
    except FileNotFoundError:
        raise NotFoundError("no such directory", file=shown) from None
    except NotADirectoryError:
        raise NotFoundError("is not a directory", file=shown) from None
    except OSError as error:
        raise from_os_error(error, shown, "cannot open") from error
    threads = max(1, min(jobs, limits.max_jobs))
    walker = _Walker(shown, xattrs, threads, progress, limits, memory, uncached)
    try:
        entries = walker.run(top)
    finally:
        os.close(top)
    check_tree(entries, limits=limits)
    return Tree(entries)


def _open_root(path: Path) -> int:
    return os.open(path, _DIRECTORY & ~os.O_NOFOLLOW)


class _Walker:
    def __init__(
        self,
        shown: Path,
        xattrs: bool,
        jobs: int,
        progress: Progress | None,
        limits: Limits,
        memory: Memory | None,
        uncached: bool,
    ) -> None:
        self._shown = shown
        self._xattrs = xattrs
        self._progress = progress
        self._limits = limits
        self._jobs = jobs
        self._memory = memory
        self._forget = getattr(os, "posix_fadvise", None) if uncached else None
        self._entries: list[Entry] = []
        self._files: list[tuple[Future[Entry], int]] = []
        # Files wait for a thread with their descriptor open, so their number is bounded.
        self._open_files = BoundedSemaphore(jobs * 4)

    def run(self, top: int) -> list[Entry]:
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="digest") as pool:
            try:
                self._directory(top, "", pool)
                return self._entries + [future.result() for future, _ in self._files]
            except BaseException:
                for future, fd in self._files:
                    if future.cancel():
                        os.close(fd)
                raise

    def _directory(self, fd: int, prefix: str, pool: ThreadPoolExecutor) -> None:
        try:
            os.lseek(fd, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened or rewound
            names = sorted(os.listdir(fd), key=os.fsencode)
        except OSError as error:
            raise self._failed("cannot list", prefix, error) from error
        for name in names:
            path = prefix + name
            check_path(path, limits=self._limits)
            if len(self._entries) + len(self._files) >= self._limits.max_entries:
                raise LimitError("too many entries", expected=self._limits.max_entries)
            self._entry(fd, name, path, pool)

    def _entry(self, parent: int, name: str, path: str, pool: ThreadPoolExecutor) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=parent)
                self._entries.append(Entry(path=path, kind="symlink", target=target))
                return
            self._check_type(status, path)
            is_dir = stat.S_ISDIR(status.st_mode)
            if not is_dir:
                if self._recalled(status, path):
                    return
                self._wait_for_slot()
            try:
                fd = os.open(name, _DIRECTORY if is_dir else _FILE, dir_fd=parent)
            except BaseException:
                if not is_dir:
                    self._open_files.release()
                raise
        except OSError as error:
            raise self._failed("cannot read", path, error) from error
        if is_dir:
            try:
                opened = self._same(fd, status, path)
                self._entries.append(
                    Entry(
                        path=path,
                        kind="dir",
                        mode=stat.S_IMODE(opened.st_mode),
                        xattrs=self._read_xattrs(fd, path),
                    )
                )
                self._directory(fd, path + "/", pool)
            finally:
                os.close(fd)
        else:
            self._files.append((pool.submit(self._file, fd, status, path), fd))

    def _recalled(self, status: os.stat_result, path: str) -> bool:
        """Whether the file is known without being opened; then its entry was added."""
        known = None if self._memory is None else self._memory.recall(path, status)
        if known is None:
            return False
        self._entries.append(
            Entry(
                path=path,
                kind="file",
                mode=stat.S_IMODE(status.st_mode),
                size=status.st_size,
                digest=known.digest,
                xattrs=known.xattrs if self._xattrs else (),
            )
        )
        if self._progress is not None:
            self._progress(status.st_size)
        return True

    def _wait_for_slot(self) -> None:
        """Waits for a descriptor to be free; a failed digest ends the walk instead."""
        while not self._open_files.acquire(timeout=1.0):
            pass
        for future, _ in self._files[-self._jobs * 4 :]:
            if future.done() and future.exception() is not None:
                self._open_files.release()
                future.result()

    def _file(self, fd: int, listed: os.stat_result, path: str) -> Entry:
        try:
            before = self._same(fd, listed, path)
            if self._forget is not None:
                with contextlib.suppress(OSError):
                    self._forget(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            digest, size = verity_digest_fd(fd, most=before.st_size, progress=self._progress)
            after = os.fstat(fd)
            if size != before.st_size or _version(before) != _version(after):
                raise TreeDriftError("changed while it was read", file=self._shown / path)
            if self._memory is not None:
                self._memory.note(path, before)
            return Entry(
                path=path,
                kind="file",
                mode=stat.S_IMODE(before.st_mode),
                size=size,
                digest=digest,
                xattrs=self._read_xattrs(fd, path),
            )
        finally:
            os.close(fd)
            self._open_files.release()

    def _check_type(self, status: os.stat_result, path: str) -> None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise UnsafePathError(
                "is a device, fifo or socket, which no tree may hold", file=self._shown / path
            )
        special = stat.S_IMODE(status.st_mode) & 0o7000
        if special:
            raise UnsafePathError(
                f"has the special mode bits {special:04o} (setuid, setgid or sticky)",
                file=self._shown / path,
                hint="Clear them: chmod u-s,g-s,-t.",
            )

    def _same(self, fd: int, listed: os.stat_result, path: str) -> os.stat_result:
        """What was opened must be what was looked at: nothing may slip in between."""
        opened = os.fstat(fd)
        if (opened.st_dev, opened.st_ino, opened.st_mode) != (
            listed.st_dev,
            listed.st_ino,
            listed.st_mode,
        ):
            raise TreeDriftError("changed while it was read", file=self._shown / path)
        return opened

    def _read_xattrs(self, fd: int, path: str) -> tuple[tuple[str, bytes], ...]:
        if not self._xattrs or not hasattr(os, "listxattr"):
            return ()
        try:
            names = [n for n in os.listxattr(fd) if n.startswith(_KEPT_XATTRS)]
            pairs = [(name, os.getxattr(fd, name)) for name in sorted(names, key=os.fsencode)]
        except OSError as error:
            raise self._failed("cannot read the extended attributes", path, error) from error
        return tuple(pairs)

    def _failed(self, what: str, path: str, error: OSError) -> BsipatchError:
        return from_os_error(error, self._shown / path, what)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
