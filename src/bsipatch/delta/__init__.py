"""One file's delta: diff, patch and inspect, on paths and buffers.

A patch is verified before it appears: diff applies what it has made and compares.
A result is verified before it appears: patch checks the SHA-256 of the old file and
of what it has written.  The verdict is always hashlib's, never the core's own.

Ctrl-C, or an exception raised by a progress callback, stops the work, removes what
was half made and goes on to the caller.
"""

from __future__ import annotations

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

__all__ = [
    "DiffResult",
    "PatchReport",
    "PatchResult",
    "Profile",
    "Progress",
    "StreamReport",
    "apply_to_fd",
    "diff",
    "diff_bytes",
    "inspect",
    "patch",
    "patch_bytes",
]
