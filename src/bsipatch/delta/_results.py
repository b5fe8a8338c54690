"""What the verbs take and give: profiles, progress, what applying came to."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import TypeAlias

#: called with phase, bytes done and bytes in all, on the calling thread, some times a second
Progress: TypeAlias = Callable[[str, int, int], None]


class Profile(StrEnum):
    """What a patch is made for: fast to make, or small."""

    FAST = "fast"
    BALANCED = "balanced"
    MAX = "max"


class PatchResult:
    """A file that was made and verified. Sizes in bytes, digests as hex."""

    __slots__ = (
        "new_sha256",
        "new_size",
        "old_sha256",
        "old_size",
        "patch_size",
        "peak_memory",
        "seconds",
    )  # a dataclass loads slowly

    def __init__(
        self,
        *,
        old_size: int,
        new_size: int,
        patch_size: int,
        old_sha256: str,
        new_sha256: str,
        peak_memory: int,
        seconds: float,
    ) -> None:
        self.old_size = old_size
        self.new_size = new_size
        self.patch_size = patch_size
        self.old_sha256 = old_sha256
        self.new_sha256 = new_sha256
        self.peak_memory = peak_memory
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"PatchResult({', '.join(f'{n}={getattr(self, n)!r}' for n in self.__slots__)})"
