"""Makes the payload of one file: its smallest patch, or the file itself where that is smaller."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bsipatch import delta, package
from bsipatch.errors import MemoryLimitError, TreeDriftError
from bsipatch.limits import MIB, Limits
from bsipatch.manifest import Payload
from bsipatch.output import MappedFile
from bsipatch.publish.plan import Job
from bsipatch.tree import Entry, verity_digest

__all__ = ["Made", "Share", "expected_memory", "make"]

#: called with the share of a job's work that is done, 0 to 1; an exception it raises ends the work
Share = Callable[[float], None]

#: where each phase of a diff begins and ends, as shares of its time, roughly
_PHASES = {
    "parse": (0.0, 0.1),
    "match": (0.1, 0.4),
    "predict": (0.4, 0.6),
    "encode": (0.6, 0.8),
    "decode": (0.8, 0.8),
    "write": (0.8, 0.8),
    "verify": (0.8, 1.0),
}

#: a patch this many times smaller than the file is taken without compressing the file
_CLEARLY_SMALLER = 64
#: files up to this size are compressed at full effort to compare; larger ones quickly first
_QUICK_ABOVE = 8 * MIB
_QUICK_LEVEL = 3
#: full effort makes a quick result smaller by less than this factor
_EFFORT_GAIN = 2
#: bytes that a diff allocates for each byte of the larger file, measured on executables that
#: changed a lot, and beside that
_PER_BYTE = {delta.Profile.FAST: 4, delta.Profile.BALANCED: 6, delta.Profile.MAX: 9}
_BESIDE = 32 * MIB
#: effort for whole files, and what is tried instead where memory is short
_LOWER_LEVELS = (17, 9, 3)
_LEVELS = {delta.Profile.FAST: 9, delta.Profile.BALANCED: 17, delta.Profile.MAX: 22}


@dataclass(frozen=True, slots=True)
class Made:
    """One job's payload, its offset still 0, and the file that holds its bytes.

    source  the old file that the payload patches; None for a whole file
    way     what a memory budget made of the profile: "fast", "fast, raw"; "" when it did nothing
    """

    job: Job
    payload: Payload
    file: Path
    seconds: float
    source: Entry | None = None
    way: str = ""


@dataclass(frozen=True, slots=True)
class _Patch:
    payload: Payload
    file: Path
    source: Entry
    way: str


def expected_memory(job: Job, profile: delta.Profile) -> int:
    """Bytes that make() should need at most, by the sizes of the files alone."""
    if not job.sources:
        return _BESIDE + 2 * job.new.size
    larger = max(job.new.size, *(source.size for source in job.sources))
    return _BESIDE + _PER_BYTE[profile] * larger


def make(
    job: Job,
    old: Path,
    new: Path,
    scratch: Path,
    *,
    profile: delta.Profile,
    jobs: int,
    progress: Share | None,
    limits: Limits,
    memory: int = 0,
) -> Made:
    """The smallest payload for a job; `old` and `new` are the trees' roots.

    `scratch` is the name, without suffix, of files that it may write.  Each patch is applied and
    compared by delta.diff(), and all files are digested again afterwards, so that a tree that
    changes under the build is noticed.
    memory: bytes that it may allocate, 0 for no limit; too few make the payload larger.
    Raises TreeDriftError and what delta.diff() raises, but MemoryLimitError.
    """
    started = time.monotonic()
    new_file = new / job.new.path
    best: _Patch | None = None
    for number, source in enumerate(job.sources):
        file = scratch.with_suffix(f".{number}.patch")
        steps = None if progress is None else _part(progress, number, len(job.sources))
        try:
            result = delta.diff(
                old / source.path,
                new_file,
                file,
                profile=profile,
                jobs=jobs,
                progress=steps,
                memory_budget=memory,
                limits=limits,
            )
        except MemoryLimitError:
            if not memory:
                raise
            continue
        _check_unchanged(old / source.path, source)
        if _beyond(result, limits) or (best and result.patch_size >= best.payload.length):
            file.unlink()
            continue
        if best is not None:
            best.file.unlink()
        payload = Payload(
            kind="patch",
            offset=0,
            length=result.patch_size,
            sha256=_sha256(file),
            size=job.new.size,
            decoded=result.plain_bytes,
            memory=_whole_mib(result.peak_memory),
        )
        best = _Patch(payload, file, source, _way(result))
    whole = _smaller(job, new_file, scratch, best, profile, limits, memory)
    _check_unchanged(new_file, job.new)
    seconds = time.monotonic() - started
    if whole is not None:
        return Made(job, *whole, seconds)
    assert best is not None
    return Made(job, best.payload, best.file, seconds, best.source, best.way)


def _part(progress: Share, number: int, count: int) -> delta.Progress:
    """What a diff tells, as a share of all the diffs that are tried; it never goes back."""
    furthest = 0.0

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal furthest
        start, end = _PHASES.get(phase, (0.0, 0.0))
        furthest = max(furthest, start + (end - start) * (min(done / total, 1.0) if total else 0))
        progress((number + furthest) / count)

    return tell


def _beyond(result: delta.DiffResult, limits: Limits) -> bool:
    """Whether devices would refuse the patch for what it decodes to."""
    budget = limits.memory_budget
    return result.plain_bytes > limits.max_plain or (
        budget != 0 and _whole_mib(result.peak_memory) > budget
    )


def _way(result: delta.DiffResult) -> str:
    if not result.short_of_memory:
        return ""
    return f"{result.profile}, raw" if result.raw else result.profile


def _smaller(
    job: Job,
    new_file: Path,
    scratch: Path,
    patch: _Patch | None,
    profile: delta.Profile,
    limits: Limits,
    memory: int,
) -> tuple[Payload, Path] | None:
    """The file, compressed or not, when that is smaller than the patch; None when it is not."""
    size = job.new.size
    if patch is not None and patch.payload.length * _CLEARLY_SMALLER <= size:
        return None
    with MappedFile(new_file, max_size=limits.max_file_size) as mapped:
        if patch is not None and size > _QUICK_ABOVE:
            quick = _affordable(_QUICK_LEVEL, size, memory)
            if quick is None:
                return None
            if patch.payload.length * _EFFORT_GAIN <= len(package.compress(mapped.data, quick)):
                return None
        level = _affordable(_LEVELS[profile], size, memory)
        packed = None if level is None else package.compress(mapped.data, level)
        whole = packed is None or len(packed) >= mapped.size
        length = mapped.size if packed is None or whole else len(packed)
        if patch is not None and patch.payload.length < length:
            return None
        if packed is None or whole:
            sha256 = _sha256(new_file)
            payload = _full("plain", length, sha256, size, 0)
            chosen = payload, new_file
        else:
            packed_file = scratch.with_suffix(".zst")
            packed_file.write_bytes(packed)
            sha256 = hashlib.sha256(packed).hexdigest()
            payload = _full("zstd", length, sha256, size, package.expand_memory(size))
            chosen = payload, packed_file
    if patch is not None:
        patch.file.unlink(missing_ok=True)
    return chosen


def _affordable(level: int, size: int, memory: int) -> int | None:
    """The level to compress a file at: at most `level`, and lower where memory is short."""
    if not memory:
        return level
    import zstandard

    for lower in (level, *(other for other in _LOWER_LEVELS if other < level)):
        parameters = zstandard.ZstdCompressionParameters.from_level(lower, source_size=size)
        # What comes out is held as a whole, and may be as long as what goes in.
        if parameters.estimated_compression_context_size() + size <= memory:
            return lower
    return None


def _full(
    kind: Literal["zstd", "plain"], length: int, sha256: str, size: int, memory: int
) -> Payload:
    return Payload(
        kind=kind, offset=0, length=length, sha256=sha256, size=size, decoded=size, memory=memory
    )


def _whole_mib(size: int) -> int:
    # Rounded up: a device's core may hold some kilobytes more than this one, on another processor.
    return -(-size // MIB) * MIB


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_unchanged(file: Path, entry: Entry) -> None:
    if os.path.islink(file) or verity_digest(file) != entry.digest:
        raise TreeDriftError("changed while the update was built", file=file)
