"""Makes the payload of one file: its patch, or the file itself where that is not larger."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bsipatch import delta, package
from bsipatch.errors import TreeDriftError
from bsipatch.limits import MIB, Limits
from bsipatch.manifest import Payload
from bsipatch.output import MappedFile
from bsipatch.publish.plan import Job
from bsipatch.tree import Entry, verity_digest

__all__ = ["Made", "make"]

#: a patch this many times smaller than the file is taken without compressing the file
_CLEARLY_SMALLER = 64
#: files up to this size are compressed at full effort to compare; larger ones quickly first
_QUICK_ABOVE = 8 * MIB
_QUICK_LEVEL = 3
#: full effort makes a quick result smaller by less than this factor
_EFFORT_GAIN = 2
#: effort for whole files
_LEVELS = {delta.Profile.FAST: 9, delta.Profile.BALANCED: 17, delta.Profile.MAX: 22}


@dataclass(frozen=True, slots=True)
class Made:
    """One job's payload, its offset still 0, and the file that holds its bytes."""

    job: Job
    payload: Payload
    file: Path
    seconds: float

    @property
    def source(self) -> Entry | None:
        """The old file that the payload patches; None for a whole file."""
        return self.job.source if self.payload.kind == "patch" else None


def make(
    job: Job,
    old: Path,
    new: Path,
    scratch: Path,
    *,
    profile: delta.Profile,
    jobs: int,
    progress: delta.Progress | None,
    limits: Limits,
) -> Made:
    """The smallest payload for a job; `old` and `new` are the trees' roots.

    `scratch` is the name, without suffix, of files that it may write.  The patch is applied and
    compared by delta.diff(), and both files are digested again afterwards, so that a tree that
    changes under the build is noticed.
    Raises TreeDriftError and what delta.diff() raises.
    """
    started = time.monotonic()
    new_file = new / job.new.path
    patch: tuple[Payload, Path] | None = None
    if job.source is not None:
        old_file = old / job.source.path
        patch_file = scratch.with_suffix(".patch")
        result = delta.diff(
            old_file,
            new_file,
            patch_file,
            profile=profile,
            jobs=jobs,
            progress=progress,
            limits=limits,
        )
        _check_unchanged(old_file, job.source)
        payload = Payload(
            kind="patch",
            offset=0,
            length=result.patch_size,
            sha256=_sha256(patch_file),
            size=job.new.size,
            decoded=result.plain_bytes,
            memory=_whole_mib(result.peak_memory),
        )
        patch = payload, patch_file
    chosen = _smaller(job, new_file, scratch, patch, profile, limits)
    _check_unchanged(new_file, job.new)
    return Made(job, *chosen, time.monotonic() - started)


def _smaller(
    job: Job,
    new_file: Path,
    scratch: Path,
    patch: tuple[Payload, Path] | None,
    profile: delta.Profile,
    limits: Limits,
) -> tuple[Payload, Path]:
    """The patch if it is smaller than the compressed file, else the file, compressed or not."""
    if patch is not None and patch[0].length * _CLEARLY_SMALLER <= job.new.size:
        return patch
    with MappedFile(new_file, max_size=limits.max_file_size) as mapped:
        if patch is not None and job.new.size > _QUICK_ABOVE:
            quick = len(package.compress(mapped.data, _QUICK_LEVEL))
            if patch[0].length * _EFFORT_GAIN <= quick:
                return patch
        packed = package.compress(mapped.data, _LEVELS[profile])
        whole = len(packed) >= mapped.size
        length = mapped.size if whole else len(packed)
        if patch is not None and patch[0].length < length:
            return patch
        if whole:
            sha256 = hashlib.sha256(mapped.data).hexdigest()
            return _full("plain", length, sha256, job.new.size, 0), new_file
    packed_file = scratch.with_suffix(".zst")
    packed_file.write_bytes(packed)
    memory = package.expand_memory(job.new.size)
    payload = _full("zstd", length, hashlib.sha256(packed).hexdigest(), job.new.size, memory)
    if patch is not None:
        patch[1].unlink(missing_ok=True)
    return payload, packed_file


def _full(
    kind: Literal["zstd", "plain"], length: int, sha256: str, size: int, memory: int
) -> Payload:
    return Payload(
        kind=kind, offset=0, length=length, sha256=sha256, size=size, decoded=size, memory=memory
    )


def _whole_mib(size: int) -> int:
    # Rounded up: the manifest must not depend on how many threads measured it.
    return -(-size // MIB) * MIB


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_unchanged(file: Path, entry: Entry) -> None:
    if os.path.islink(file) or verity_digest(file) != entry.digest:
        raise TreeDriftError("changed while the update was built", file=file)
