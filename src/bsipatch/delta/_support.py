"""What making and applying share: lengths, progress, names in errors."""

from __future__ import annotations

import os
from collections.abc import Callable

from bsipatch.delta._results import Progress
from bsipatch.errors import (
    BsipatchError,
    FormatError,
    LimitError,
    NewMismatchError,
    OldMismatchError,
)

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch._core import Control


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
