"""The native core, wrapped: the only place that touches ffi and lib."""

from __future__ import annotations

from bsipatch._core._guard import Guard
from bsipatch._core._native import (
    DIFF_PROFILES,
    FORMAT_VERSION,
    WINDOW_ALIGN,
    Codec,
    Control,
    Diff,
    Patch,
    PatchInfo,
    Stream,
    status_text,
)
from bsipatch._core._sha256 import Sha256, pays_in_pairs, sha256

__all__ = [
    "DIFF_PROFILES",
    "FORMAT_VERSION",
    "WINDOW_ALIGN",
    "Codec",
    "Control",
    "Diff",
    "Guard",
    "Patch",
    "PatchInfo",
    "Sha256",
    "Stream",
    "pays_in_pairs",
    "sha256",
    "status_text",
]
