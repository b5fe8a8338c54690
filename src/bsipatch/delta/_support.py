"""What making and applying share: lengths, hashing beside other work, progress, names in errors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from bsipatch.delta._results import Progress
from bsipatch.errors import (
    BsipatchError,
    FormatError,
    LimitError,
    NewMismatchError,
    OldMismatchError,
)
from bsipatch.parallel import Worker

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch._core import Control

HASH_STEP = 1 << 20


def length_of(data: Buffer) -> int:
    with memoryview(data) as view:
        return view.nbytes


def ticker(progress: Progress | None, control: Control) -> Callable[[], None] | None:
    """Passes a control block's counters on to the caller's progress callback."""
    if progress is None:
        return None

    def tick() -> None:
        progress(*control.progress)

    return tick


class Hashing:
    """SHA-256 of a buffer by hashlib, in a thread beside other work."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._stop = False
        self._digest = b""
        self._worker = Worker(self._work, "sha256")

    def _work(self) -> None:
        digest = hashlib.sha256()
        with memoryview(self._data) as view:
            for offset in range(0, len(view), HASH_STEP):
                if self._stop:
                    return
                with view[offset : offset + HASH_STEP] as piece:
                    digest.update(piece)
        self._digest = digest.digest()

    def result(self) -> bytes:
        """Waits for the digest."""
        self._worker.wait()
        return self._digest

    def __enter__(self) -> Hashing:
        self._worker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._worker.finish()


class naming:  # noqa: N801 - reads as a clause of `with`
    """Adds to an error, when it names none, the file that it is about."""

    def __init__(
        self,
        old: os.PathLike[str] | str,
        patch: os.PathLike[str] | str,
        new: os.PathLike[str] | str,
    ) -> None:
        self._old, self._patch, self._new = old, patch, new

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BsipatchError) and error.file is None:
            if isinstance(error, OldMismatchError):
                error.file = os.fspath(self._old)
            elif isinstance(error, FormatError | LimitError):
                error.file = os.fspath(self._patch)
            elif isinstance(error, NewMismatchError):
                error.file = os.fspath(self._new)
