"""Making a patch within a memory budget, and proving that it applies before anyone sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from bsipatch import limits as _limits
from bsipatch.delta._apply import prepare, rebuild
from bsipatch.delta._hashing import Hashing
from bsipatch.delta._reports import DiffResult
from bsipatch.delta._results import Profile, Progress
from bsipatch.delta._support import length_of, ticker
from bsipatch.errors import (
    FormatError,
    InternalError,
    LimitError,
    MemoryLimitError,
    MismatchError,
    OutOfMemoryError,
    UsageError,
)
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile
from bsipatch.parallel import job_count, watch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch.delta._budget import Way
    from bsipatch.output import FileName

#: bytes of both files together, up to which every way is tried
_SMALL = 2 << 20


def diff(
    old: FileName,
    new: FileName,
    patch: FileName,
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
    memory_budget: bytes that making the patch may allocate, 0 for no limit; mapped files do not
    count.  A small one makes patches later and larger (see _budget), and is refused only when
    what the patch must say does not fit.  Verifying takes what applying the patch takes.
    raw: look at both files as bytes without structure.

    Raises: NotFoundError, SystemCallError, NoSpaceError, LimitError, MemoryLimitError,
    OutOfMemoryError, UsageError, InternalError (the patch did not verify).
    """
    with (
        MappedFile(old, max_size=limits.max_file_size) as old_file,
        MappedFile(new, max_size=limits.max_file_size) as new_file,
        OutputFile(patch) as out,
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
    from bsipatch.delta._budget import ways

    started = time.monotonic()
    threads = job_count(jobs, limits.max_jobs)
    try:
        wanted = Profile(profile)
    except ValueError:
        raise UsageError("profile", expected=" or ".join(Profile), found=str(profile)) from None
    with Hashing(old) as old_hash, Hashing(new) as new_hash:

        def checks() -> tuple[bytes, bytes]:
            return old_hash.result()[:8], new_hash.result()[:8]

        made, way = _cheapest_needed(
            ways(wanted, raw, threads, memory_budget), old, new, memory_budget, progress, checks
        )
        short_of_memory = (way.profile, way.raw) != (wanted, raw)
        plain = replace(way, raw=True)
        if wanted is Profile.MAX and not way.raw and _plain_may_win(made, old, new):
            other = _make(old, new, plain, memory_budget, progress, checks)
            if len(other) < len(made):
                made, way = other, plain
        old_digest, new_digest = old_hash.result(), new_hash.result()
    plain_bytes, peak = _verify(made, old, new, way.jobs, progress)
    return made, DiffResult(
        old_size=length_of(old),
        new_size=length_of(new),
        patch_size=len(made),
        old_sha256=old_digest.hex(),
        new_sha256=new_digest.hex(),
        plain_bytes=plain_bytes,
        peak_memory=peak,
        seconds=time.monotonic() - started,
        profile=way.profile.value,
        raw=way.raw,
        short_of_memory=short_of_memory,
    )


def _plain_may_win(made: bytes, old: Buffer, new: Buffer) -> bool:
    """Whether to try both files as bytes without structure too.

    On no public pair of executables does that give less; where it costs next to nothing, or where
    little was found in common, it is tried all the same.
    """
    size = length_of(new)
    return size + length_of(old) <= _SMALL or len(made) > size // 2


def _cheapest_needed(
    possible: Iterable[Way],
    old: Buffer,
    new: Buffer,
    budget: int,
    progress: Progress | None,
    checks: Callable[[], tuple[bytes, bytes]],
) -> tuple[bytes, Way]:
    """The patch, made in the first way that the budget allows, and that way."""
    refusal: LimitError | None = None
    for way in possible:
        try:
            return _make(old, new, way, budget, progress, checks), way
        except (MemoryLimitError, OutOfMemoryError) as error:
            # What the system refuses, without a budget, is the caller's to hear at once.
            if not budget:
                raise
            refusal = error
    raise MemoryLimitError(
        "what the patch must say does not fit",
        expected=budget,
        hint="Allow more memory for making this patch, or send the file whole.",
    ) from refusal


def _make(
    old: Buffer,
    new: Buffer,
    way: Way,
    budget: int,
    progress: Progress | None,
    checks: Callable[[], tuple[bytes, bytes]],
) -> bytes:
    """The patch's bytes, made in one way. Raises MemoryLimitError, OutOfMemoryError."""
    from bsipatch._core import Control, Diff
    from bsipatch.delta._budget import coding
    from bsipatch.delta._codecs import code_streams

    control = Control()
    # Handed over through a list, so that an interrupted wait still finds it.
    handles: list[Diff] = []
    try:
        watch(
            lambda: handles.append(
                Diff(
                    old,
                    new,
                    profile=way.profile.value,
                    jobs=way.jobs,
                    memory_budget=budget,
                    raw=way.raw,
                    control=control,
                )
            ),
            cancel=control.cancel,
            tick=ticker(progress, control),
        )
        effort, jobs = coding(handles[0].streams(), way.profile, way.jobs, budget)
        return code_streams(
            handles[0], effort, *checks(), jobs=jobs, tick=ticker(progress, control)
        )
    finally:
        for handle in handles:
            handle.close()


def _verify(
    made: bytes, old: Buffer, new: Buffer, jobs: int, progress: Progress | None
) -> tuple[int, int]:
    """Applies the patch just made and compares; gives plain_bytes and peak memory.

    The streams are read by one thread: only then is what they take at most a fact about the
    patch, and not about how threads took turns.  Windows take buffers alone, and are made by all.

    Raises: InternalError when anything is off: the patch must never be seen.
    """
    from bsipatch._core import Patch

    unlimited = _limits.DEFAULT.but(max_plain=1 << 62, memory_budget=0)
    with memoryview(new) as expected:
        try:
            with Patch(made, max_plain=unlimited.max_plain) as handle:
                info = handle.info
                if info.new_size != len(expected):
                    raise InternalError("the patch names another size")
                decoded = prepare(handle, old, 1, unlimited, progress)
                peak = handle.peak_memory + decoded
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
                return info.plain_bytes, peak
        except (FormatError, MismatchError, UsageError) as error:
            raise InternalError(f"the patch just made does not apply: {error.message}") from error
