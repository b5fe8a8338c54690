"""A guard over a mapped file: what it fails to give ends in an error, not in a crash."""

from __future__ import annotations

import mmap

from bsipatch._core._native import _check
from bsipatch.closing import Closing

from bsipatch._core._bsipatch import ffi, lib  # isort: skip - _native says what is wrong with it


class Guard(Closing):
    """While it is held, reading a mapping past the end of its file gives zeros.

    So does a part that the disk fails to give.  `failed` says whether that happened.
    Buffers that are no mapping are left alone.  Used by the thread that made it.
    """

    def __init__(self, data: object) -> None:
        """Raises OutOfMemoryError when too many are held at once."""
        self._number: int | None = None
        self._failed = False
        if isinstance(data, mmap.mmap):
            with ffi.from_buffer("uint8_t[]", data) as view:
                number = ffi.new("uint32_t *")
                _check(lib.bsp_guard_begin(view, len(view), number))
                self._number = number[0]

    @property
    def failed(self) -> bool:
        """Whether something could not be read so far."""
        if self._number is not None and lib.bsp_guard_failed(self._number):
            self._failed = True
        return self._failed

    def close(self) -> None:
        """Must come before the file is unmapped. May be repeated."""
        if self._number is not None:
            _ = self.failed
            lib.bsp_guard_end(self._number)
            self._number = None
