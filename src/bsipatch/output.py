"""Files in and out: read-only mappings, and output that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat

from bsipatch.closing import Closing
from bsipatch.errors import ExistsError, LimitError, UsageError, from_os_error

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    FileName = str | os.PathLike[str]

#: what a file system answers that cannot set room aside
_NOT_SUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV)


class MappedFile(Closing):
    """A file's bytes as a read-only buffer; an empty file is b"".

    The file must not shrink meanwhile: the operating system kills whoever reads a
    mapping past the end of its file.
    """

    def __init__(self, source: FileName | int, *, max_size: int) -> None:
        """Maps a path, or an open descriptor (which stays the caller's).

        Raises: NotFoundError, SystemCallError, UsageError (not a regular file), LimitError.
        """
        name = None if isinstance(source, int) else source
        try:
            if isinstance(source, int):
                self._map(source, max_size, None)
            else:
                fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    self._map(fd, max_size, name)
                finally:
                    os.close(fd)
        except OSError as error:
            raise from_os_error(error, name) from error

    def _map(self, fd: int, max_size: int, name: FileName | None) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise UsageError("not a regular file", file=name)
        if info.st_size > max_size:
            raise LimitError("file size", file=name, expected=max_size, found=info.st_size)
        self.size = info.st_size
        self.mode = stat.S_IMODE(info.st_mode)
        self.data: Buffer = (
            mmap.mmap(fd, info.st_size, access=mmap.ACCESS_READ) if info.st_size else b""
        )

    def close(self) -> None:
        """Unmaps. A mapping that someone still looks at goes when they let go of it."""
        data, self.data = self.data, b""
        if isinstance(data, mmap.mmap):
            with contextlib.suppress(BufferError):
                data.close()


class OutputFile:
    """A new file under a temporary name beside its target, renamed over it by commit().

    Leaving the `with` block without a commit removes it.  Raises what the system
    calls raise, as errors of ours.
    """

    def __init__(self, target: FileName, *, size: int = 0, mode: int = 0o644) -> None:
        """Creates it, with room for `size` bytes set aside."""
        self.target = os.path.realpath(target)
        self._mode = mode & 0o777
        self._committed = False
        try:
            existing = os.lstat(self.target).st_mode
        except FileNotFoundError:
            existing = stat.S_IFREG
        except OSError as error:
            raise from_os_error(error, target) from error
        if not stat.S_ISREG(existing):
            raise ExistsError("the output is a directory or device", file=target)
        self._folder = os.path.dirname(self.target)
        self._temporary = os.path.join(self._folder, f".bsipatch-{os.urandom(8).hex()}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.fd = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            lost = "" if os.path.isdir(self._folder) else "there is no such folder to write to"
            raise from_os_error(error, target, lost) from error
        try:
            reserve(self.fd, size)
        except BaseException:
            self._discard()
            raise

    def write(self, data: Buffer) -> None:
        """Appends at the file position."""
        try:
            with memoryview(data) as view:
                written = 0
                while written < len(view):
                    written += os.write(self.fd, view[written:])
        except OSError as error:
            raise from_os_error(error, self.target) from error

    def commit(self) -> None:
        """Makes it durable and gives it its name."""
        try:
            os.fchmod(self.fd, self._mode)
            os.fsync(self.fd)
            os.replace(self._temporary, self.target)
            self._committed = True
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise from_os_error(error, self.target) from error

    def _discard(self) -> None:
        os.close(self.fd)
        if not self._committed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()


def reserve(fd: int, size: int) -> None:
    """Makes the file `size` bytes long, its room set aside where the file system can.

    Raises: NoSpaceError, SystemCallError.
    """
    try:
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
        os.ftruncate(fd, size)
    except OSError as error:
        raise from_os_error(error) from error


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """pwrite, all of it. Raises: NoSpaceError, SystemCallError."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], offset + written)
    except OSError as error:
        raise from_os_error(error) from error
