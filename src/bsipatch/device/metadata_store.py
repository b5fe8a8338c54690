"""The feed's metadata on the disk: changed in a copy, synced, swapped in by one rename, locked.

python-tuf's client writes each file as it goes, and neither syncs nor locks.  So it only
ever works in a copy; what a reader, a power cut or another process sees is the set
before a refresh or the set after it.

::

    STORE/feed/
      lock                       held while the metadata change
      downloads.lock             held while a payload comes in or goes
      floor.lock                 held while the floor is read and written anew
      metadata -> metadata.7     the accepted set
      consistent -> metadata.7   the newest that is whole
      metadata.7/                root_history/N.root.json, timestamp.json, snapshot.json, ...
      metadata.8.tmp/            a refresh under way; whoever locks next removes it

The two links lead to different sets after a refresh that broke off: what it did verify binds
the next one, while what is known of the feed is read from the set before it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..closing import Closing
from ..errors import NotFoundError, StoreBusyError, StoreDamagedError
from ..limits import DEFAULT, Limits
from ..store import durable
from ..store.lock import locked
from .state.floor import FLOOR

LINK = "metadata"
CONSISTENT = "consistent"
ROOTS = "root_history"
_NAME = re.compile(r"metadata\.([1-9]\d{0,17})")
_STAGE = ".tmp"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DOWNLOADS_LOCK, _FLOOR_LOCK = "downloads.lock", "floor.lock"
#: seconds that a writer of the floor waits for another, whose work takes two syncs
_FLOOR_WAIT = 10.0


class MetadataStore(Closing):
    """The folder STORE/feed. Use it as a context manager, or call close().

    Reading needs no lock; what changes something holds the one of what it changes.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
        """Opens it. Raises NotFoundError, SystemCallError."""
        self.folder, self._limits = Path(os.path.abspath(folder)), limits
        with durable.system_calls("opening the feed's folder", folder):
            try:
                self.fd = os.open(self.folder, _FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(
                    "this store follows no feed",
                    file=folder,
                    hint="Say which with `bsipatch follow`.",
                ) from None

    def close(self) -> None:
        """Lets go of the folder. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @contextlib.contextmanager
    def changing(self, doing: str) -> Iterator[None]:
        """Holds the lock, over a folder cleared of what an interrupted refresh has left.

        Raises StoreBusyError that names the holder, SystemCallError.
        """
        with locked(self.fd, doing, timeout=self._limits.lock_timeout, file=str(self.folder)):
            with durable.system_calls("clearing the feed's folder", self.folder):
                self._clear()
            yield

    @contextlib.contextmanager
    def downloading(self, doing: str) -> Iterator[None]:
        """Holds the lock of the payloads, for hours if need be: metadata have their own.

        Raises StoreBusyError that names the holder, SystemCallError.
        """
        with locked(
            self.fd,
            doing,
            timeout=self._limits.lock_timeout,
            file=str(self.folder / "downloads"),
            name=_DOWNLOADS_LOCK,
        ):
            yield

    @contextlib.contextmanager
    def changing_floor(self) -> Iterator[None]:
        """Holds the lock of the floor, which is never held for long: waits for it.

        Raises StoreBusyError, SystemCallError.
        """
        timeout = max(_FLOOR_WAIT, self._limits.lock_timeout)
        with locked(self.fd, "floor", timeout=timeout, file=str(self.folder), name=_FLOOR_LOCK):
            with durable.system_calls("clearing the feed's folder", self.folder):
                for name in filter(_is_of_floor, os.listdir(self.fd)):
                    os.unlink(name, dir_fd=self.fd)
            yield

    def current(self) -> Path | None:
        """The accepted set; None before the first refresh. Raises StoreDamagedError."""
        name = self._link(LINK)
        return None if name is None else self.folder / name

    def known(self) -> tuple[dict[str, bytes], dict[str, bytes] | None] | None:
        """(accepted set, consistent set where that is another one), read without any lock.

        None before the first refresh.  Raises StoreBusyError when they were swapped at every
        try, StoreDamagedError, SystemCallError.
        """
        for _ in range(2):
            names = self._links()
            accepted, consistent = names
            if accepted is None:
                return None
            with durable.system_calls("reading the feed's metadata", self.folder):
                first = self._set(accepted)
                second = None if consistent in (None, accepted) else self._set(consistent or "")
            # A set is removed only after the links have left it: unmoved, all of it was there.
            if self._links() != names:
                continue
            if first is None:
                raise StoreDamagedError(
                    "the feed's metadata are gone",
                    file=self.folder / accepted,
                    hint="Run `bsipatch check`, which fetches them anew.",
                )
            return first, second
        raise StoreBusyError("the feed is being renewed right now", file=self.folder)

    def _links(self) -> tuple[str | None, str | None]:
        return self._link(LINK), self._link(CONSISTENT)

    def _link(self, link: str) -> str | None:
        try:
            name = os.readlink(link, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreDamagedError(f"`{link}` is not a link", file=self.folder) from error
        if not _NAME.fullmatch(name):
            raise StoreDamagedError(f"`{link}` leads elsewhere", file=self.folder, found=name)
        return name

    def copy(self, of: Path | None, roots: dict[str, bytes] | None = None) -> Path:
        """A new stage that holds the files of `of` and these further roots. Under the lock."""
        stage = self.folder / f"metadata.{secrets.token_hex(6)}{_STAGE}"
        with durable.system_calls("copying the feed's metadata", self.folder):
            files = {} if of is None else self.files(of)
            lay_out(stage, {**files, **{f"{ROOTS}/{n}": data for n, data in (roots or {}).items()}})
        return stage

    def files(self, folder: Path) -> dict[str, bytes]:
        """Every metadata file of a set by its path in it; links and strangers are left out."""
        return self._set(folder.name) or {}

    def _set(self, name: str) -> dict[str, bytes] | None:
        """None when there is no such set. One descriptor: whatever the name leads to by then."""
        try:
            fd = os.open(name, _FOLDER, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            found = self._files(fd)
            with contextlib.suppress(FileNotFoundError):
                below = os.open(ROOTS, _FOLDER, dir_fd=fd)
                try:
                    found.update({f"{ROOTS}/{n}": d for n, d in self._files(below).items()})
                finally:
                    os.close(below)
            return found
        finally:
            os.close(fd)

    def _files(self, fd: int) -> dict[str, bytes]:
        with os.scandir(fd) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False)
            ]
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self._read(name, fd)
        return found

    def roots(self, folder: Path) -> dict[str, bytes]:
        """The roots of a set, by file name."""
        return {name.removeprefix(f"{ROOTS}/"): data for name, data in roots_of(self.files(folder))}

    def prune_roots(self, stage: Path, verified: int) -> None:
        """Removes what calls itself a root beyond the newest that was verified."""
        with durable.system_calls("clearing roots", stage):
            for entry in list(os.scandir(stage / ROOTS)):
                number = entry.name.partition(".")[0]
                if not number.isdigit() or int(number) > verified:
                    os.unlink(entry.path)

    def adopt(self, stage: Path, *, consistent: bool = True) -> Path:
        """Makes a stage the accepted set: synced first, then one rename. Under the lock.

        consistent: False for one that a refresh left when it broke off.  Raises SystemCallError;
        then the set before is still the accepted one.
        """
        old, whole = self._links()
        number = 1 + max(
            (int(m[1]) for m in map(_NAME.fullmatch, os.listdir(self.fd)) if m), default=0
        )
        name = f"{LINK}.{number}"
        with durable.system_calls("keeping the feed's metadata", self.folder):
            for folder in (stage / ROOTS, stage):
                for entry in os.scandir(folder):
                    if entry.is_file(follow_symlinks=False):
                        _sync(entry.path)
                durable.sync_dir(folder)
            os.rename(stage.name, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            durable.sync_fd(self.fd)
            # First: a power cut in between must not leave an older one as the newest whole one.
            if consistent:
                durable.replace_link(CONSISTENT, name, dir_fd=self.fd)
            elif whole is None and old is not None:
                durable.replace_link(CONSISTENT, old, dir_fd=self.fd)
            durable.replace_link(LINK, name, dir_fd=self.fd)
            for left in {old, whole} - {None, *self._links()}:
                durable.remove_tree(left or "", dir_fd=self.fd)
        return self.folder / name

    def discard(self, stage: Path) -> None:
        """Removes a stage."""
        durable.remove_tree(stage.name, dir_fd=self.fd)

    def _clear(self) -> None:
        kept = self._links()
        for name in os.listdir(self.fd):
            stale = name.endswith(_STAGE) and name.startswith((f"{LINK}.", "."))
            old = _NAME.fullmatch(name) is not None and name not in kept
            if (stale and not _is_of_floor(name)) or old:
                durable.remove_tree(name, dir_fd=self.fd)

    def _read(self, name: str, dir_fd: int) -> bytes:
        limit = max(self._limits.max_root, self._limits.max_targets)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            file_name = self.folder / name
            raise StoreDamagedError("a metadata file is too large", file=file_name, expected=limit)
        return data


def roots_of(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """The roots among a set's files."""
    return [(name, data) for name, data in files.items() if name.startswith(f"{ROOTS}/")]


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    """Writes a set into a folder that may not be there yet. Raises OSError."""
    (folder / ROOTS).mkdir(parents=True, mode=0o700)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _is_of_floor(name: str) -> bool:
    """Whether a power cut left it while the floor was written; its lock is another one."""
    return name.startswith(f".{FLOOR}.") and name.endswith(_STAGE)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        durable.sync_fd(fd)
    finally:
        os.close(fd)
