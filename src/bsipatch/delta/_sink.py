"""Where the bytes of a new file may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """Where apply_to_fd puts the new file's bytes, when not simply into its descriptor.

    Called from several threads at once.  Once everything was handed over, reading
    the descriptor must give exactly those bytes.
    """

    def begin(self, size: int, fills: Sequence[tuple[int, int]]) -> None:
        """The file will have `size` bytes; (offset, length) of what comes by fill()."""

    def write(self, offset: int, view: memoryview) -> None:
        """Bytes of the file; what lies within a fill is not final yet."""

    def fill(self, offset: int, view: memoryview) -> None:
        """One whole range that depends on the others, after all of them."""
