"""Applying a patch that is still arriving.

What a patch says first (layout and cover) names places all over both files, and no
window is known before the last of its streams is: the format is made to be small, not
to be read in passing.  What needs the old file alone does not wait, and takes most of
the time on a slow disk: reading it and its SHA-256.  A stream that is no patch is
refused at its first bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
from typing import TYPE_CHECKING, BinaryIO

from bsipatch import limits as _limits
from bsipatch.delta._apply import WholeFile, apply_open
from bsipatch.delta._hashing import Hashing
from bsipatch.delta._results import PatchResult, Progress
from bsipatch.delta._support import naming
from bsipatch.errors import LimitError, TruncatedError, from_os_error
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile
from bsipatch.parallel import TICK

if TYPE_CHECKING:
    from bsipatch.output import FileName

_STEP = 1 << 16
#: bytes that tell a patch from anything else
_LEAST = 16


def patch_stream(
    old: FileName,
    patch: BinaryIO,
    new: FileName,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> PatchResult:
    """As patch(), with a patch that is read from an open file, pipe or socket to its end.

    The stream's descriptor is read, if it has one: nothing must have been read ahead of
    it.  The patch is kept in memory, at most limits.memory_budget bytes.  `progress` is told of
    phase "receive" with a total of 0, and called some times a second while nothing comes.

    Raises: as patch().
    """
    with (
        MappedFile(old, max_size=limits.max_file_size) as old_file,
        naming(old, "-", new),
        WholeFile("old file", old_file.data, old) as whole,
        Hashing(old_file.data) as hashing,
        OutputFile(new, mode=old_file.mode) as out,
    ):
        received = _receive(patch, progress, limits)
        result = apply_open(
            old_file.data, received, out.fd, jobs, progress, limits, hashing=hashing
        )
        whole.check()
        out.commit()
    return result


def _receive(patch: BinaryIO, progress: Progress | None, limits: Limits) -> bytearray:
    most = limits.max_patch_size
    if limits.memory_budget:
        most = min(most, limits.memory_budget)
    received = bytearray()
    looked = False
    while True:
        try:
            piece = _piece(patch, progress, len(received))
        except OSError as error:
            raise from_os_error(error) from error
        if not piece:
            return received
        received += piece
        if len(received) > most:
            raise LimitError("patch size", expected=most, found=f"more than {most}")
        if not looked and len(received) >= _LEAST:
            _look(received[:_STEP], limits)
            looked = True
        if progress is not None:
            progress("receive", len(received), 0)


def _piece(patch: BinaryIO, progress: Progress | None, done: int) -> bytes:
    """What has come, b"" at the end; waits in small steps, so that it can be stopped."""
    try:
        fd = patch.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return patch.read(_STEP)
    while not select.select([fd], [], [], TICK)[0]:
        if progress is not None:
            progress("receive", done, 0)
    return os.read(fd, _STEP)


def _look(start: bytearray, limits: Limits) -> None:
    """Refuses what cannot become a patch, however it goes on."""
    from bsipatch._core import Patch

    with contextlib.suppress(TruncatedError):
        Patch(start, max_plain=limits.max_plain, memory_budget=limits.memory_budget).close()
