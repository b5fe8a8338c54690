"""Writes the new file past the page cache where that can be done.

What goes through the cache is copied once more, and then all of it waits for the
final sync.  Written directly, windows go to the disk while others are still being
made, and an update leaves in memory what other programs had there.  What direct
output cannot take (the last bytes of the file, ranges made afterwards), and file
systems that do not know it, are served by ordinary writes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence

from bsipatch.output import reserve, write_at

try:
    import fcntl
except ImportError:  # pragma: no cover - not a Unix
    fcntl = None  # type: ignore[assignment]

_DIRECT = getattr(os, "O_DIRECT", 0)
#: positions, lengths and addresses of direct output are multiples of this
_ALIGN = 4096
#: below this many bytes, setting out costs more than it saves
LEAST_DIRECT = 4 << 20
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


class FileWriter:
    """A Sink into a descriptor; write() may be called by several threads at once.

    finish() must be called before the file is read; leaving the `with` block makes the
    descriptor what it was.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._direct = False
        self._later: list[tuple[int, bytes]] = []

    def begin(self, size: int, fills: Sequence[tuple[int, int]]) -> None:
        """Sets room aside. Raises: NoSpaceError, SystemCallError."""
        reserve(self._fd, size)
        if size >= LEAST_DIRECT:
            self._direct = self._switch(True)

    def write(self, offset: int, view: memoryview) -> None:
        """A window, best at a page of memory. Raises: NoSpaceError, SystemCallError."""
        if self._direct and offset % _ALIGN == 0:
            whole = len(view) // _ALIGN * _ALIGN
            if self._write_directly(offset, view[:whole]):
                if whole != len(view):
                    self._keep(offset + whole, view[whole:])
                return
        with self._turn:  # the system makes writers of one file wait, and busily
            write_at(self._fd, view, offset)

    def fill(self, offset: int, view: memoryview) -> None:
        """A range within windows that were written before."""
        if self._direct:
            self._keep(offset, view)
        else:
            write_at(self._fd, view, offset)

    def finish(self) -> None:
        """Writes what direct output had to leave. Raises: NoSpaceError, SystemCallError."""
        self._stop()
        for offset, data in self._later:
            with memoryview(data) as view:
                write_at(self._fd, view, offset)
        self._later.clear()

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def _keep(self, offset: int, view: memoryview) -> None:
        with self._lock:
            self._later.append((offset, bytes(view)))

    def _write_directly(self, offset: int, view: memoryview) -> bool:
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self._fd, view[done:], offset + done)
            except OSError as error:
                if error.errno in _REFUSALS:
                    self._stop()
                    return False
                write_at(self._fd, view[done:], offset + done)  # which says what is wrong
                return True
        return True

    def _stop(self) -> None:
        with self._lock:
            if self._direct:
                self._switch(False)
                self._direct = False  # last: whoever sees it writes in the ordinary way

    def _switch(self, on: bool) -> bool:
        """Whether the file system does as it is told."""
        if fcntl is None or not _DIRECT:
            return False
        try:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | _DIRECT if on else flags & ~_DIRECT)
        except OSError:
            return False
        return True
