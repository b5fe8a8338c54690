"""What is said of patches that were made or looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream of a patch. Sizes in bytes; encoded is None for streams that share a coder."""

    id: int
    codec: str
    plain: int
    encoded: int | None


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What a patch says about itself. Sizes in bytes."""

    format_version: int
    old_size: int
    new_size: int
    patch_size: int
    old_check: str  #: first 8 bytes of the old file's SHA-256, as hex
    new_check: str
    plain_bytes: int  #: all streams once decoded
    modelled_bytes: int  #: what the core coded itself: header, directory, modelled streams
    streams: tuple[StreamReport, ...]


@dataclass(frozen=True, slots=True)
class DiffResult:
    """A patch that was made and verified. Sizes in bytes, digests as hex."""

    old_size: int
    new_size: int
    patch_size: int
    old_sha256: str
    new_sha256: str
    plain_bytes: int  #: exact sum of the decoded streams, for Limits.max_plain
    peak_memory: int  #: bytes that applying it by one thread takes beside the windows' buffers
    seconds: float
    profile: str = ""  #: what the patch was made with: a memory budget may ask for less than wanted
    raw: bool = False  #: made without looking for structure: asked for, smaller, or cheaper
    short_of_memory: bool = (
        False  #: made with less effort than wanted, as the budget did not allow it
    )

    @property
    def ratio(self) -> float:
        """Patch size as a share of the new file's size; 0 when that is empty."""
        return self.patch_size / self.new_size if self.new_size else 0.0
