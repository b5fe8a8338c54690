"""A disk that remembers: one file over FUSE, under a loop device; writes and flushes are kept.

The file's bytes and the log lie in anonymous memory that the FUSE process
shares with the recorder, off every file system.  One request is answered at a
time, so the log's order is the order in which the disk saw things.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from . import machine
from .disk import Image, Log, Step, scan
from .machine import Kind

_NAME = "disk.img"
_LOG_SIZE = 1 << 30  # of memory that is only taken when it is used
_HEAD = struct.Struct("<QQQ")  # bytes of log, steps, size of the disk
_RECORD = struct.Struct("<BQQ")


class RecordingDisk:
    """One recorder: load an image, mount it, do something, take the log.

    Needs private_mounts() first.  Not thread-safe.
    """

    def __init__(self, folder: Path, place: Path, size: int) -> None:
        """`folder` is empty and in memory; `place` is mounted on; `size` is in bytes."""
        self._bytes = mmap.mmap(-1, size)
        self._log = mmap.mmap(-1, _LOG_SIZE)
        self._fuse, self.place = folder / "fuse", place
        self._fuse.mkdir()
        self._base: Image | None = None
        self._child = os.fork()
        if self._child == 0:
            with contextlib.suppress(BaseException):
                machine.die_with_parent()
                _serve(self._bytes, self._log, self._fuse)
            os._exit(0)
        self._wait()

    def close(self) -> None:
        """Ends the FUSE process."""
        with contextlib.suppress(OSError):
            machine.umount(self._fuse, lazily=True)
        os.waitpid(self._child, 0)
        self._bytes.close()
        self._log.close()

    @contextlib.contextmanager
    def recorded(self, image: Image, kind: Kind) -> Iterator[Path]:
        """`image` mounted, every request from the mount on kept."""
        for start in range(0, image.size, 1 << 24):
            self._bytes[start : min(start + (1 << 24), image.size)] = bytes(
                min(1 << 24, image.size - start)
            )
        for run in image.runs:
            self._bytes[run.offset : run.offset + len(run.data)] = run.data
        _HEAD.pack_into(self._log, 0, 0, 0, image.size)
        self._base = image
        fd, device = machine.attach(str(self._fuse / _NAME))
        try:
            with machine.mounted(device, self.place, kind):
                yield self.place
        finally:
            os.close(fd)

    def position(self) -> int:
        """How many steps the disk has seen; what a caller waited for is among them."""
        return int(_HEAD.unpack_from(self._log, 0)[1])

    def log(self, upto: int, success: int | None) -> Log:
        """The first `upto` steps."""
        assert self._base is not None
        steps: list[Step] = []
        at = _HEAD.size
        for _ in range(upto):
            kind, offset, length = _RECORD.unpack_from(self._log, at)
            at += _RECORD.size
            if kind:
                steps.append(Step("flush"))
            else:
                steps.append(Step("write", offset, self._log[at : at + length]))
                at += length
        return Log(self._base, steps, success)

    def image(self) -> Image:
        """The disk as it is now."""
        assert self._base is not None
        return scan(self._bytes, self._base.size)

    def _wait(self) -> None:
        for _ in range(500):
            with contextlib.suppress(OSError):
                if (self._fuse / _NAME).exists():
                    return
            if os.waitpid(self._child, os.WNOHANG)[0]:
                raise machine.CannotRunError("the FUSE file system did not start")
            time.sleep(0.01)
        raise machine.CannotRunError("the FUSE file system does not answer")


def _serve(image: mmap.mmap, log: mmap.mmap, place: Path) -> None:
    import mfusepy

    class Disk(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path != f"/{_NAME}":
                raise mfusepy.FuseOSError(errno.ENOENT)
            size = _HEAD.unpack_from(log, 0)[2]
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", _NAME]

        def open(self, path: str, flags: int) -> int:
            return 1

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return image[offset : offset + size]

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            keep(0, offset, data)
            image[offset : offset + len(data)] = data
            return len(data)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            keep(1, 0, b"")
            return 0

        def flush(self, path: str, fh: int) -> int:
            return 0

    def keep(kind: int, offset: int, data: bytes) -> None:
        used, count, size = _HEAD.unpack_from(log, 0)
        at = _HEAD.size + used
        if at + _RECORD.size + len(data) > _LOG_SIZE:
            raise mfusepy.FuseOSError(errno.ENOSPC)
        _RECORD.pack_into(log, at, kind, offset, len(data))
        log[at + _RECORD.size : at + _RECORD.size + len(data)] = data
        _HEAD.pack_into(log, 0, used + _RECORD.size + len(data), count + 1, size)

    mfusepy.FUSE(
        Disk(), str(place), foreground=True, nothreads=True, direct_io=True, attr_timeout=0
    )
