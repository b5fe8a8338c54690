"""A feed in a local directory: durable files, a lock for the conditions, hard links for copies."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from bsipatch.errors import LimitError, NotFoundError, UnsafePathError, from_os_error
from bsipatch.output import OutputFile
from bsipatch.publish.feed.storage import ConflictError, Stored

__all__ = ["LocalStorage"]

_CHUNK = 1 << 20
_LOCK = ".bsipatch-feed.lock"


class LocalStorage:
    """The directory as Storage. Its files are what any static web server hands out."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = os.fspath(root)

    def read(self, path: str, most: int) -> Stored | None:
        """See Storage."""
        try:
            with self._at(path).open("rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, self._at(path)) from error
        if len(data) > most:
            raise LimitError("the file is too large", file=self._at(path), expected=most)
        return Stored(data, hashlib.sha256(data).hexdigest())

    def stream(self, path: str) -> Iterator[bytes]:
        """See Storage."""
        try:
            with self._at(path).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise NotFoundError("not in the feed", file=self._at(path)) from None
        except OSError as error:
            raise from_os_error(error, self._at(path)) from error

    def size(self, path: str) -> int | None:
        """See Storage."""
        try:
            return self._at(path).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, self._at(path)) from error

    def create(self, path: str, data: bytes) -> str:
        """See Storage."""
        return self._write(path, data, None)

    def replace(self, path: str, data: bytes, version: str) -> str:
        """See Storage."""
        return self._write(path, data, version)

    def upload(self, path: str, file: Path) -> None:
        """See Storage."""
        target = self._make_room(path)
        try:
            with file.open("rb") as opened, OutputFile(target) as out:
                while chunk := opened.read(_CHUNK):
                    out.write(chunk)
                out.commit()
        except OSError as error:
            raise from_os_error(error, file) from error

    def copy(self, path: str, new_path: str) -> None:
        """See Storage."""
        target = self._make_room(new_path)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(self._at(path), target)
        except FileNotFoundError:
            raise NotFoundError("not in the feed", file=self._at(path)) from None
        except OSError:
            # A file system without hard links.
            self.upload(new_path, self._at(path))

    def remove(self, path: str) -> None:
        """See Storage."""
        try:
            self._at(path).unlink(missing_ok=True)
        except OSError as error:
            raise from_os_error(error, self._at(path)) from error

    def _write(self, path: str, data: bytes, version: str | None) -> str:
        target = self._make_room(path)
        with self._locked():
            found = self.read(path, len(data) + (64 << 20))
            if (found.version if found else None) != version:
                raise ConflictError(
                    "somebody else has written it" if found else "it is not there any more",
                    file=target,
                    hint="Run the command again: it starts from what is published now.",
                )
            with OutputFile(target) as out:
                out.write(data)
                out.commit()
        return hashlib.sha256(data).hexdigest()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise from_os_error(error, self._root) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_room(self, path: str) -> Path:
        target = self._at(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, target.parent) from error
        return target

    def _at(self, path: str) -> Path:
        # Callers pass checked names only; this is the second line.
        if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
            raise UnsafePathError("not a path within a feed", found=ascii(path[:160]))
        return self._root / path
