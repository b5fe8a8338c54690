"""BSDIFF40 patches: read, written and turned into ours, so that a pipeline can move over.

The numbers come from bsdiff4 (an optional dependency); the checks are ours: its
reader inflates whatever it is given, so header, blocks and control data are
validated here before it sees them.
"""

from __future__ import annotations

import bz2
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsipatch import delta
from bsipatch import limits as _limits
from bsipatch.delta._support import naming
from bsipatch.errors import (
    CorruptError,
    LimitError,
    MagicError,
    MissingDependencyError,
    NewMismatchError,
    TruncatedError,
)
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "apply_bsdiff",
    "apply_bsdiff_file",
    "convert",
    "is_bsdiff",
    "make_bsdiff",
    "make_bsdiff_file",
]

MAGIC = b"BSDIFF40"
_HEADER = 32
_TRIPLE = 24


def is_bsdiff(patch: Path | Buffer) -> bool:
    """Whether the file or buffer begins as a BSDIFF40 patch does."""
    if isinstance(patch, str | Path):
        with MappedFile(Path(patch), max_size=_limits.DEFAULT.max_patch_size) as file:
            return is_bsdiff(file.data)
    with memoryview(patch) as view:
        return bytes(view[: len(MAGIC)]) == MAGIC


def _bsdiff4() -> Any:
    try:
        import bsdiff4
    except ImportError as error:
        raise MissingDependencyError(
            "bsdiff4 is needed for BSDIFF40 patches", hint="pip install 'bsipatch[interop]'"
        ) from error
    return bsdiff4


def _signed(raw: bytes, offset: int) -> int:
    """bsdiff's 8-byte integers: magnitude, little endian, the top bit a sign."""
    (value,) = struct.unpack_from("<Q", raw, offset)
    magnitude: int = value & ~(1 << 63)
    return -magnitude if value >> 63 else magnitude


def _inflate(data: memoryview, most: int, place: str) -> bytes:
    """One bzip2 stream, whole, of at most `most` bytes."""
    decoder = bz2.BZ2Decompressor()
    try:
        plain = decoder.decompress(data, most + 1)
    except (OSError, EOFError) as error:
        raise CorruptError(f"{place}: {error}") from error
    if len(plain) > most:
        raise LimitError(f"{place} inflates too far", expected=most)
    if not decoder.eof:
        raise TruncatedError(place)
    if decoder.unused_data:
        raise CorruptError(f"{place}: bytes after its end")
    return plain


def _validate(patch: memoryview, old_len: int, limits: Limits) -> int:
    """Validates everything in a patch for an old file of old_len bytes; gives the new size."""
    if bytes(patch[: len(MAGIC)]) != MAGIC:
        raise MagicError("not a BSDIFF40 patch")
    if len(patch) < _HEADER:
        raise TruncatedError("header", expected=_HEADER, found=len(patch))
    header = bytes(patch[:_HEADER])
    control_len, diff_len, new_size = (_signed(header, at) for at in (8, 16, 24))
    left = len(patch) - _HEADER
    if control_len < 0 or diff_len < 0 or new_size < 0:
        raise CorruptError("a size is negative", offset=8)
    if control_len > left or diff_len > left - control_len:
        raise CorruptError("a block lies outside the patch", expected=left, found=control_len)
    most = limits.max_bsdiff_size
    if new_size > most or old_len > most:
        raise LimitError("file size", expected=most, found=max(new_size, old_len))

    body = patch[_HEADER:]
    # Each triple makes at least one byte or moves; more moves than bytes make no sense.
    control = _inflate(body[:control_len], min(_TRIPLE * (new_size + 1), most), "control block")
    if len(control) % _TRIPLE:
        raise CorruptError("control block", expected=_TRIPLE, found=len(control) % _TRIPLE)
    added = inserted = position = 0
    for at in range(0, len(control), _TRIPLE):
        add, insert, seek = (_signed(control, at + part) for part in (0, 8, 16))
        if add < 0 or insert < 0:
            raise CorruptError("a control length is negative", offset=at)
        added += add
        inserted += insert
        if added + inserted > new_size:
            raise CorruptError("control lengths", expected=new_size, found=added + inserted)
        # The original reads old bytes outside the file as zero; no patch needs that.
        if add and not 0 <= position <= old_len - add:
            raise CorruptError("a control seek leaves the old file", offset=at, found=position)
        position += add + seek
        if abs(position) > 1 << 62:
            raise CorruptError("a control seek", offset=at, found=position)
    if added + inserted != new_size:
        raise CorruptError("control lengths", expected=new_size, found=added + inserted)
    diff = _inflate(body[control_len : control_len + diff_len], added, "diff block")
    extra = _inflate(body[control_len + diff_len :], inserted, "extra block")
    if len(diff) != added or len(extra) != inserted:
        raise CorruptError("block sizes", expected=added + inserted, found=len(diff) + len(extra))
    return new_size


def apply_bsdiff(old: Buffer, patch: Buffer, *, limits: Limits = _limits.DEFAULT) -> bytes:
    """The new file's bytes.

    BSDIFF40 carries no digest: what comes out is of the right size, no more can be said.

    Raises: MagicError, CorruptError, TruncatedError, LimitError, NewMismatchError,
    MissingDependencyError.
    """
    bsdiff4 = _bsdiff4()
    old_bytes, patch_bytes = bytes(old), bytes(patch)
    new_size = _validate(memoryview(patch_bytes), len(old_bytes), limits)
    try:
        new: bytes = bsdiff4.patch(old_bytes, patch_bytes)
    except (ValueError, OverflowError, OSError) as error:
        raise CorruptError(str(error)) from error
    if len(new) != new_size:
        raise NewMismatchError("size", expected=new_size, found=len(new))
    return new


def apply_bsdiff_file(
    old: Path, patch: Path, new: Path, *, limits: Limits = _limits.DEFAULT
) -> delta.PatchResult:
    """Writes `new` from `old` and a BSDIFF40 patch. Raises: as apply_bsdiff and delta.patch."""
    import time

    started = time.monotonic()
    with (
        MappedFile(Path(old), max_size=limits.max_bsdiff_size) as old_file,
        MappedFile(Path(patch), max_size=limits.max_patch_size) as patch_file,
        OutputFile(Path(new), mode=old_file.mode) as out,
    ):
        with naming(old, patch, new):
            made = apply_bsdiff(old_file.data, patch_file.data, limits=limits)
        out.write(made)
        out.commit()
        return delta.PatchResult(
            old_size=old_file.size,
            new_size=len(made),
            patch_size=patch_file.size,
            old_sha256=hashlib.sha256(old_file.data).hexdigest(),
            new_sha256=hashlib.sha256(made).hexdigest(),
            peak_memory=old_file.size + 2 * len(made),
            seconds=time.monotonic() - started,
        )


def make_bsdiff(old: Buffer, new: Buffer, *, limits: Limits = _limits.DEFAULT) -> bytes:
    """A BSDIFF40 patch. Raises: LimitError, MissingDependencyError."""
    bsdiff4 = _bsdiff4()
    old_bytes, new_bytes = bytes(old), bytes(new)
    largest = max(len(old_bytes), len(new_bytes))
    if largest > limits.max_bsdiff_size:
        raise LimitError("file size", expected=limits.max_bsdiff_size, found=largest)
    patch: bytes = bsdiff4.diff(old_bytes, new_bytes)
    return patch


def make_bsdiff_file(old: Path, new: Path, patch: Path, *, limits: Limits = _limits.DEFAULT) -> int:
    """Writes a BSDIFF40 patch and gives its size in bytes. Raises: as make_bsdiff, delta.diff."""
    with (
        MappedFile(Path(old), max_size=limits.max_bsdiff_size) as old_file,
        MappedFile(Path(new), max_size=limits.max_bsdiff_size) as new_file,
        OutputFile(Path(patch)) as out,
    ):
        made = make_bsdiff(old_file.data, new_file.data, limits=limits)
        out.write(made)
        out.commit()
        return len(made)


def convert(
    old: Buffer,
    patch: Buffer,
    *,
    profile: delta.Profile | str = delta.Profile.MAX,
    jobs: int | None = None,
    progress: delta.Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> bytes:
    """Our patch for what a BSDIFF40 patch does to `old`. Raises: as apply_bsdiff, diff_bytes."""
    new = apply_bsdiff(old, patch, limits=limits)
    return delta.diff_bytes(old, new, profile=profile, jobs=jobs, progress=progress, limits=limits)
