"""One file's delta: diff, patch, inspect and explain, on paths and buffers.

A patch is verified before it appears: diff applies what it has made and compares.
A result is verified before it appears: patch checks the SHA-256 of the old file and
of what it has written.  The digests that files are compared with are hashlib's.

Ctrl-C, or an exception raised by a progress callback, stops the work, removes what
was half made and goes on to the caller.
"""

from __future__ import annotations

from bsipatch.delta._apply import apply_to_fd, patch, patch_bytes
from bsipatch.delta._results import PatchResult, Profile, Progress

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:  # the others are loaded when they are asked for
    from bsipatch.delta._explain import (
        ExplainedRow,
        ExplainedSection,
        ExplainedStream,
        Explanation,
        Stretch,
        explain,
    )
    from bsipatch.delta._inspect import inspect
    from bsipatch.delta._make import diff, diff_bytes
    from bsipatch.delta._reports import DiffResult, PatchReport, StreamReport
    from bsipatch.delta._stream import patch_stream

__all__ = [
    "DiffResult",
    "ExplainedRow",
    "ExplainedSection",
    "ExplainedStream",
    "Explanation",
    "PatchReport",
    "PatchResult",
    "Profile",
    "Progress",
    "StreamReport",
    "Stretch",
    "apply_to_fd",
    "diff",
    "diff_bytes",
    "explain",
    "inspect",
    "patch",
    "patch_bytes",
    "patch_stream",
]


_PLACES = {
    "DiffResult": "_reports",
    "PatchReport": "_reports",
    "StreamReport": "_reports",
    "diff": "_make",
    "diff_bytes": "_make",
    "inspect": "_inspect",
    "patch_stream": "_stream",
}


def __getattr__(name: str) -> object:
    """Loads what a command that only applies a patch does not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_PLACES.get(name, '_explain')}")
    return getattr(module, name)
