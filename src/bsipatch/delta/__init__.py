"""One file's delta: diff, patch, inspect and explain, on paths and buffers.

A patch is verified before it appears: diff applies what it has made and compares.
A result is verified before it appears: patch checks the SHA-256 of the old file and
of what it has written.  The verdict is always hashlib's, never the core's own.

Ctrl-C, or an exception raised by a progress callback, stops the work, removes what
was half made and goes on to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsipatch.delta._apply import apply_to_fd, patch, patch_bytes
from bsipatch.delta._inspect import inspect
from bsipatch.delta._make import diff, diff_bytes
from bsipatch.delta._results import (
    DiffResult,
    PatchReport,
    PatchResult,
    Profile,
    Progress,
    StreamReport,
)

if TYPE_CHECKING:
    from bsipatch.delta._stream import patch_stream  # noqa: I001 - loaded when asked for
    from bsipatch.delta._explain import (
        ExplainedRow,
        ExplainedSection,
        ExplainedStream,
        Explanation,
        Stretch,
        explain,
    )

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


def __getattr__(name: str) -> object:
    """Loads what explains patches, or takes them from a pipe, when it is asked for."""
    if name == "patch_stream":
        from bsipatch.delta._stream import patch_stream

        return patch_stream
    if name in __all__:
        from bsipatch.delta import _explain

        return getattr(_explain, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
