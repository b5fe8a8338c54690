"""The feed's metadata on the disk: changed in a copy, synced, swapped in by one rename, locked.

python-tuf's client writes each file as it goes, and neither syncs nor locks.  So it only
ever works in a copy; what a reader, a power cut or another process sees is the set
before a refresh or the set after it.

::

    STORE/feed/
      lock                       held while anything here changes
      metadata -> metadata.7     the accepted set
      metadata.7/                root_history/N.root.json, timestamp.json, snapshot.json, ...
      metadata.8.tmp/            a refresh under way; whoever locks next removes it
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import NotFoundError, StoreDamagedError
from ..limits import DEFAULT, Limits
from ..store import durable
from ..store.lock import locked

LINK = "metadata"
ROOTS = "root_history"
_NAME = re.compile(r"metadata\.([1-9]\d{0,17})")
_STAGE = ".tmp"
_MOST_FILES = 64


class MetadataStore:
    """The folder STORE/feed. Use it as a context manager, or call close().

    Reading needs no lock; `changing` holds it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
        """Opens it. Raises NotFoundError, SystemCallError."""
        self.folder, self._limits = Path(os.path.abspath(folder)), limits
        with durable.system_calls("opening the feed's folder", folder):
            try:
                self.fd = os.open(
                    self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                )
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(
                    "this store follows no feed",
                    file=folder,
                    hint="Say which with `bsipatch follow`.",
                ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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

    def current(self) -> Path | None:
        """The accepted set; None before the first refresh. Raises StoreDamagedError."""
        try:
            name = os.readlink(LINK, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreDamagedError("`metadata` is not a link", file=self.folder) from error
        if not _NAME.fullmatch(name):
            raise StoreDamagedError("`metadata` leads elsewhere", file=self.folder, found=name)
        return self.folder / name

    def copy(self, of: Path | None, roots: dict[str, bytes] | None = None) -> Path:
        """A new stage that holds the files of `of` and these further roots. Under the lock."""
        stage = self.folder / f"metadata.{secrets.token_hex(6)}{_STAGE}"
        with durable.system_calls("copying the feed's metadata", self.folder):
            (stage / ROOTS).mkdir(parents=True, mode=0o700)
            if of is not None:
                for name, data in self.files(of).items():
                    (stage / name).write_bytes(data)
            for name, data in (roots or {}).items():
                (stage / ROOTS / name).write_bytes(data)
        return stage

    def files(self, folder: Path) -> dict[str, bytes]:
        """Every metadata file of a set by its path in it; links and strangers are left out."""
        found: dict[str, bytes] = {}
        for below in ("", f"{ROOTS}/"):
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(folder / below):
                    if not entry.name.endswith(".json") or not entry.is_file(follow_symlinks=False):
                        continue
                    found[below + entry.name] = self._read(Path(entry.path))
        return found

    def roots(self, folder: Path) -> dict[str, bytes]:
        """The roots of a set, by file name."""
        mark = f"{ROOTS}/"
        return {
            name.removeprefix(mark): data
            for name, data in self.files(folder).items()
            if name.startswith(mark)
        }

    def prune_roots(self, stage: Path, verified: int) -> None:
        """Removes what calls itself a root beyond the newest that was verified."""
        with durable.system_calls("clearing roots", stage):
            for entry in list(os.scandir(stage / ROOTS)):
                number = entry.name.partition(".")[0]
                if not number.isdigit() or int(number) > verified:
                    os.unlink(entry.path)

    def adopt(self, stage: Path) -> Path:
        """Makes a stage the accepted set: synced first, then one rename. Under the lock.

        Raises SystemCallError; then the set before is still the accepted one.
        """
        old = self.current()
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
            durable.replace_link(LINK, name, dir_fd=self.fd)
            if old is not None:
                durable.remove_tree(old.name, dir_fd=self.fd)
        return self.folder / name

    def discard(self, stage: Path) -> None:
        """Removes a stage."""
        durable.remove_tree(stage.name, dir_fd=self.fd)

    def _clear(self) -> None:
        current = self.current()
        for name in os.listdir(self.fd):
            stale = name.endswith(_STAGE) and name.startswith((f"{LINK}.", "."))
            old = _NAME.fullmatch(name) is not None and (current is None or name != current.name)
            if stale or old:
                durable.remove_tree(name, dir_fd=self.fd)

    def _read(self, path: Path) -> bytes:
        limit = max(self._limits.max_root, self._limits.max_targets)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise StoreDamagedError("a metadata file is too large", file=path, expected=limit)
        return data


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        durable.sync_fd(fd)
    finally:
        os.close(fd)
