"""Turns two builds of a framework into a tiny signed update, and back into the new build.

The public names below are loaded when first used, so that importing the package
costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself would cost more than all the rest

__version__ = "0.1.0"

__all__ = [
    "DiffResult",
    "PatchReport",
    "PatchResult",
    "Profile",
    "__version__",
    "diff",
    "diff_bytes",
    "inspect",
    "patch",
    "patch_bytes",
]

if TYPE_CHECKING:
    from bsipatch.delta import (
        DiffResult,
        PatchReport,
        PatchResult,
        Profile,
        diff,
        diff_bytes,
        inspect,
        patch,
        patch_bytes,
    )


def __getattr__(name: str) -> object:
    if name in __all__:
        from bsipatch import delta

        return getattr(delta, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
