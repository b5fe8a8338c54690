"""Applying a patch: into a file, a descriptor or a buffer, window by window."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bsipatch import limits as _limits
from bsipatch.delta._results import PatchResult, Progress
from bsipatch.delta._support import HASH_STEP, Hashing, ReadBack, length_of, naming, ticker
from bsipatch.errors import (
    CorruptError,
    FormatError,
    LimitError,
    MemoryLimitError,
    MismatchError,
    NewMismatchError,
    OldMismatchError,
    from_os_error,
)
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile, reserve, write_at
from bsipatch.parallel import each, job_count, watch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch._core import Patch


def patch(
    old: Path,
    patch: Path,
    new: Path,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> PatchResult:
    """Writes `new` from `old` and a patch; `new` may be the old file's own path.

    The new file gets the old one's permission bits.

    Raises: NotFoundError, SystemCallError, NoSpaceError, MagicError, VersionError,
    CorruptError, TruncatedError, LimitError, MemoryLimitError, OutOfMemoryError,
    OldMismatchError, NewMismatchError.
    """
    with (
        MappedFile(Path(patch), max_size=limits.max_patch_size) as patch_file,
        MappedFile(Path(old), max_size=limits.max_file_size) as old_file,
        naming(old, patch, new),
        OutputFile(Path(new), mode=old_file.mode) as out,
    ):
        result = _apply(old_file.data, patch_file.data, out.fd, jobs, progress, limits)
        out.commit()
    return result


def patch_bytes(
    old: Buffer,
    patch: Buffer,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> bytes:
    """The new file's bytes; see patch()."""
    made = bytearray()

    def allocate(size: int) -> None:
        made.extend(bytes(size))

    def emit(offset: int, view: memoryview) -> None:
        made[offset : offset + len(view)] = view

    _run(old, patch, allocate, emit, lambda off, n: made[off : off + n], jobs, progress, limits)
    return bytes(made)


def apply_to_fd(
    old_fd: int,
    patch: Buffer,
    new_fd: int,
    *,
    old_sha256: bytes | None = None,
    new_sha256: bytes | None = None,
    new_size: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> PatchResult:
    """Applies a patch from one open file into another, empty one open for reading and writing.

    Given digests and size (from a signed manifest) are required of the files, in
    addition to the patch's own checks.  Nothing is synced: that is the caller's.
    After an exception the new file's content is rubbish, to be thrown away.

    Raises: as patch().
    """
    with MappedFile(old_fd, max_size=limits.max_file_size) as old_file:
        return _apply(
            old_file.data,
            patch,
            new_fd,
            jobs,
            progress,
            limits,
            old_sha256=old_sha256,
            new_sha256=new_sha256,
            new_size=new_size,
        )


def _apply(
    old: Buffer,
    patch: Buffer,
    new_fd: int,
    jobs: int | None,
    progress: Progress | None,
    limits: Limits,
    *,
    old_sha256: bytes | None = None,
    new_sha256: bytes | None = None,
    new_size: int | None = None,
) -> PatchResult:
    """Applies into a descriptor that can be read back."""
    scratch = bytearray(HASH_STEP)

    def read_back(offset: int, length: int) -> memoryview:
        with memoryview(scratch) as view:
            try:
                got = os.preadv(new_fd, [view[:length]], offset)
            except OSError as error:
                raise from_os_error(error) from error
        return memoryview(scratch)[:got]

    return _run(
        old,
        patch,
        lambda size: reserve(new_fd, size),
        lambda offset, view: write_at(new_fd, view, offset),
        read_back,
        jobs,
        progress,
        limits,
        old_sha256=old_sha256,
        new_sha256=new_sha256,
        new_size=new_size,
    )


def _run(
    old: Buffer,
    patch: Buffer,
    allocate: Callable[[int], None],
    emit: Callable[[int, memoryview], None],
    read_back: Callable[[int, int], Buffer],
    jobs: int | None,
    progress: Progress | None,
    limits: Limits,
    *,
    old_sha256: bytes | None = None,
    new_sha256: bytes | None = None,
    new_size: int | None = None,
) -> PatchResult:
    """The whole of applying, over any place that can be written and read back."""
    from bsipatch._core import Patch

    started = time.monotonic()
    threads = job_count(jobs, limits.max_jobs)
    with Patch(patch, max_plain=limits.max_plain, memory_budget=limits.memory_budget) as handle:
        info = handle.info
        if new_size is not None and info.new_size != new_size:
            raise NewMismatchError("size", expected=new_size, found=info.new_size)
        if info.new_size > limits.max_file_size:
            raise LimitError("new file size", expected=limits.max_file_size, found=info.new_size)
        if info.old_size != length_of(old):
            raise OldMismatchError("size", expected=info.old_size, found=length_of(old))
        with Hashing(old) as old_hash:
            try:
                decoded = prepare(handle, old, threads, limits, progress)
                allocate(info.new_size)
                made = ReadBack(handle, read_back)
                rebuild(handle, threads, limits, emit, emit, progress, "write", made.follow)
            except (FormatError, MismatchError) as error:
                # A wrong old file shows up as all kinds of nonsense; name the cause.
                _require(OldMismatchError, old_hash.result(), info.old_check, old_sha256, error)
                raise
            _require(OldMismatchError, old_hash.result(), info.old_check, old_sha256)
        new_digest = made.digest()
        _require(NewMismatchError, new_digest, info.new_check, new_sha256)
        return PatchResult(
            old_size=info.old_size,
            new_size=info.new_size,
            patch_size=length_of(patch),
            old_sha256=old_hash.result().hex(),
            new_sha256=new_digest.hex(),
            peak_memory=handle.peak_memory + decoded,
            seconds=time.monotonic() - started,
        )


def _require(
    cls: type[MismatchError],
    digest: bytes,
    check: bytes,
    expected: bytes | None,
    cause: BaseException | None = None,
) -> None:
    """The digest must begin with the patch's check, and be the expected one when given."""
    if expected is not None and digest != expected:
        raise cls("SHA-256", expected=expected, found=digest) from cause
    if digest[: len(check)] != check:
        raise cls("SHA-256 begins otherwise", expected=check, found=digest[: len(check)]) from cause


def prepare(
    handle: Patch, old: Buffer, jobs: int, limits: Limits, progress: Progress | None
) -> int:
    """Decodes the generic streams and prepares the core; gives the bytes decoded here."""
    from bsipatch._core import Codec, Control
    from bsipatch.delta._codecs import decode

    streams = [s for s in handle.streams() if s.codec in (Codec.ZSTD, Codec.LZMA)]
    decoded = sum(stream.plain_len for stream in streams)
    if limits.memory_budget and decoded > limits.memory_budget:
        raise MemoryLimitError("decoded streams", expected=limits.memory_budget, found=decoded)
    control = Control()
    tick = ticker(progress, control)
    plain: dict[int, bytes] = {}

    def run(index: int) -> None:
        plain[index] = decode(streams[index])

    each(len(streams), jobs, run, tick=tick)
    for index, stream in enumerate(streams):
        handle.provide(stream.index, plain.pop(index))
    watch(lambda: handle.prepare(old, control, jobs=jobs), cancel=control.cancel, tick=tick)
    return decoded


def rebuild(
    handle: Patch,
    jobs: int,
    limits: Limits,
    emit: Callable[[int, memoryview], None],
    emit_fill: Callable[[int, memoryview], None],
    progress: Progress | None,
    phase: str,
    follow: Callable[[int], None] | None = None,
) -> None:
    """Makes every window on `jobs` threads, then the ranges that depend on them.

    `follow(end)` is called here whenever all of new[0, end) has been emitted but fills.
    """
    size = handle.info.new_size
    step = limits.window_size
    spare: list[bytearray] = []

    def make(index: int) -> None:
        offset = index * step
        length = min(step, size - offset)
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = bytearray(min(step, size))
        with memoryview(buffer) as whole, whole[:length] as view:
            handle.window(offset, view)
            emit(offset, view)
        spare.append(buffer)

    def done(index: int) -> None:
        end = min((index + 1) * step, size)
        if follow is not None:
            follow(end)
        if progress is not None:
            progress(phase, end, size)

    each(-(-size // step), jobs, make, done=done)
    for index, (offset, length) in enumerate(handle.fills()):
        if offset > size or length > size - offset:
            raise CorruptError("fill range", expected=size, found=offset)
        buffer = bytearray(length)
        handle.fill(index, buffer)
        with memoryview(buffer) as view:
            emit_fill(offset, view)
