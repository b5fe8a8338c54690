"""Making a patch, and proving that it applies before anyone sees it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bsipatch import limits as _limits
from bsipatch.delta._apply import prepare, rebuild
from bsipatch.delta._results import DiffResult, Profile, Progress
from bsipatch.delta._support import Hashing, length_of, ticker
from bsipatch.errors import FormatError, InternalError, MismatchError, UsageError
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile
from bsipatch.parallel import job_count, watch

if TYPE_CHECKING:
    from typing_extensions import Buffer


def diff(
    old: Path,
    new: Path,
    patch: Path,
    *,
    profile: Profile | str = Profile.MAX,
    jobs: int | None = None,
    progress: Progress | None = None,
    memory_budget: int = 0,
    raw: bool = False,
    limits: Limits = _limits.DEFAULT,
) -> DiffResult:
    """Writes the patch that turns `old` into `new`.

    jobs: threads, None for one a processor; never changes the result.
    memory_budget: bytes the core may allocate, 0 for no limit.
    raw: look at both files as bytes without structure.

    Raises: NotFoundError, SystemCallError, NoSpaceError, LimitError, MemoryLimitError,
    OutOfMemoryError, UsageError, InternalError (the patch did not verify).
    """
    with (
        MappedFile(Path(old), max_size=limits.max_file_size) as old_file,
        MappedFile(Path(new), max_size=limits.max_file_size) as new_file,
        OutputFile(Path(patch)) as out,
    ):
        made, result = _diff(
            old_file.data, new_file.data, profile, jobs, progress, memory_budget, raw, limits
        )
        out.write(made)
        out.commit()
    return result


def diff_bytes(
    old: Buffer,
    new: Buffer,
    *,
    profile: Profile | str = Profile.MAX,
    jobs: int | None = None,
    progress: Progress | None = None,
    memory_budget: int = 0,
    raw: bool = False,
    limits: Limits = _limits.DEFAULT,
) -> bytes:
    """The patch that turns `old` into `new`; see diff()."""
    return _diff(old, new, profile, jobs, progress, memory_budget, raw, limits)[0]


def _diff(
    old: Buffer,
    new: Buffer,
    profile: Profile | str,
    jobs: int | None,
    progress: Progress | None,
    memory_budget: int,
    raw: bool,
    limits: Limits,
) -> tuple[bytes, DiffResult]:
    from bsipatch._core import Control, Diff
    from bsipatch.delta._codecs import code_streams

    started = time.monotonic()
    threads = job_count(jobs, limits.max_jobs)
    try:
        level = Profile(profile).value
    except ValueError:
        raise UsageError("profile", expected=" or ".join(Profile), found=str(profile)) from None
    control = Control()
    with Hashing(old) as old_hash, Hashing(new) as new_hash:
        # Handed over through a list, so that an interrupted wait still finds it.
        handles: list[Diff] = []
        try:
            watch(
                lambda: handles.append(
                    Diff(
                        old,
                        new,
                        profile=level,
                        jobs=threads,
                        memory_budget=memory_budget,
                        raw=raw,
                        control=control,
                    )
                ),
                cancel=control.cancel,
                tick=ticker(progress, control),
            )
            old_digest, new_digest = old_hash.result(), new_hash.result()
            made = code_streams(
                handles[0],
                level,
                old_digest[:8],
                new_digest[:8],
                jobs=threads,
                tick=ticker(progress, control),
            )
        finally:
            for handle in handles:
                handle.close()
    plain_bytes, peak = _verify(made, old, new, threads, progress)
    return made, DiffResult(
        old_size=length_of(old),
        new_size=length_of(new),
        patch_size=len(made),
        old_sha256=old_digest.hex(),
        new_sha256=new_digest.hex(),
        plain_bytes=plain_bytes,
        peak_memory=peak,
        seconds=time.monotonic() - started,
    )


def _verify(
    made: bytes, old: Buffer, new: Buffer, jobs: int, progress: Progress | None
) -> tuple[int, int]:
    """Applies the patch just made and compares; gives plain_bytes and peak memory.

    Raises: InternalError when anything is off: the patch must never be seen.
    """
    from bsipatch._core import Patch

    unlimited = replace(_limits.DEFAULT, max_plain=1 << 62, memory_budget=0)
    with memoryview(new) as expected:
        try:
            with Patch(made, max_plain=unlimited.max_plain) as handle:
                info = handle.info
                if info.new_size != len(expected):
                    raise InternalError("the patch names another size")
                decoded = prepare(handle, old, jobs, unlimited, progress)
                gaps = handle.fills()

                def compare(offset: int, view: memoryview) -> None:
                    wanted = bytearray(expected[offset : offset + len(view)])
                    for gap, length in gaps:  # made afterwards; windows leave them zero
                        begin = min(max(gap - offset, 0), len(view))
                        end = min(max(gap + length - offset, 0), len(view))
                        wanted[begin:end] = bytes(end - begin)
                    if bytes(view) != wanted:
                        raise InternalError("the patch made another file", offset=offset)

                def compare_fill(offset: int, view: memoryview) -> None:
                    if bytes(view) != expected[offset : offset + len(view)].tobytes():
                        raise InternalError("the patch made another file", offset=offset)

                rebuild(handle, jobs, unlimited, compare, compare_fill, progress, "verify")
                return info.plain_bytes, handle.peak_memory + decoded
        except (FormatError, MismatchError, UsageError) as error:
            raise InternalError(f"the patch just made does not apply: {error.message}") from error
