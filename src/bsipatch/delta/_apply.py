"""Applying a patch: into a file, a descriptor or a buffer, window by window."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from bsipatch import limits as _limits
from bsipatch.delta._hashing import BothFiles, Hashing, hashing_for_apply
from bsipatch.delta._results import PatchResult, Progress
from bsipatch.delta._support import length_of, naming, ticker
from bsipatch.delta._windows import rebuild as rebuild
from bsipatch.delta._writer import FileWriter
from bsipatch.errors import (
    BsipatchError,
    CancelledError,
    FormatError,
    LimitError,
    MemoryLimitError,
    MismatchError,
    NewMismatchError,
    OldMismatchError,
    SystemCallError,
    from_os_error,
)
from bsipatch.limits import Limits
from bsipatch.output import MappedFile, OutputFile
from bsipatch.parallel import each, job_count, watch

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch._core import Patch
    from bsipatch.delta._sink import Sink
    from bsipatch.output import FileName


def patch(
    old: FileName,
    patch: FileName,
    new: FileName,
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
        MappedFile(patch, max_size=limits.max_patch_size) as patch_file,
        MappedFile(old, max_size=limits.max_file_size) as old_file,
        naming(old, patch, new),
        WholeFile("patch", patch_file.data, patch) as patch_whole,
        WholeFile("old file", old_file.data, old) as old_whole,
        OutputFile(new, mode=old_file.mode) as out,
    ):
        result = apply_open(old_file.data, patch_file.data, out.fd, jobs, progress, limits)
        for file in (patch_whole, old_whole):
            file.check()
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
    made = _Memory()
    _run(old, patch, made, lambda: None, made.read_back, jobs, progress, limits)
    return bytes(made.data)


class _Memory:
    """A Sink that keeps everything."""

    def __init__(self) -> None:
        self.data = bytearray()

    def begin(self, size: int, fills: Sequence[tuple[int, int]]) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, view: memoryview) -> None:
        self.data[offset : offset + len(view)] = view

    def fill(self, offset: int, view: memoryview) -> None:
        self.write(offset, view)

    def read_back(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])


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
    sink: Sink | None = None,
) -> PatchResult:
    """Applies a patch from one open file into another, empty one open for reading and writing.

    With a `sink`, what is made goes through it into `new_fd`.  Given digests and size
    (from a signed manifest) are required of the files, in addition to the patch's own
    checks.  Nothing is synced: that is the caller's.  After an exception the new file's
    content is rubbish, to be thrown away.

    Raises: as patch().
    """
    with (
        MappedFile(old_fd, max_size=limits.max_file_size) as old_file,
        WholeFile("old file", old_file.data, None) as old_whole,
    ):
        result = apply_open(
            old_file.data,
            patch,
            new_fd,
            jobs,
            progress,
            limits,
            old_sha256=old_sha256,
            new_sha256=new_sha256,
            new_size=new_size,
            sink=sink,
        )
        old_whole.check()
    return result


class WholeFile:
    """A mapped file that must be readable to its end while the block runs.

    What cannot be read looks like zeros meanwhile, and whatever error these led to is
    replaced by the one that says so.
    """

    def __init__(self, what: str, data: Buffer, path: os.PathLike[str] | str | None) -> None:
        from bsipatch._core import Guard

        self._guard = Guard(data)
        self._what = what
        self._path = None if path is None else os.fspath(path)

    def check(self) -> None:
        """Raises SystemCallError."""
        if self._guard.failed:
            raise SystemCallError(
                f"the {self._what} could not be read to its end: "
                "it was cut short meanwhile, or its disk failed",
                file=self._path,
                hint="Leave the file alone while it is read, and look at the disk's health.",
            )

    def __enter__(self) -> WholeFile:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._guard.close()
        if isinstance(error, BsipatchError) and not isinstance(error, CancelledError):
            self.check()


def apply_open(
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
    sink: Sink | None = None,
    hashing: Hashing | None = None,
) -> PatchResult:
    """Applies into a descriptor that can be read back.

    `hashing` of the old file may be under way already.
    """
    with FileWriter(new_fd) as writer:

        def read_back(offset: int, length: int) -> bytes:
            writer.finish()
            try:
                return os.pread(new_fd, length, offset)
            except OSError as error:
                raise from_os_error(error) from error

        return _run(
            old,
            patch,
            sink or writer,
            writer.finish,
            read_back,
            jobs,
            progress,
            limits,
            old_sha256=old_sha256,
            new_sha256=new_sha256,
            new_size=new_size,
            hashing=hashing,
        )


def _run(
    old: Buffer,
    patch: Buffer,
    sink: Sink,
    finish: Callable[[], None],
    read_back: Callable[[int, int], Buffer],
    jobs: int | None,
    progress: Progress | None,
    limits: Limits,
    *,
    old_sha256: bytes | None = None,
    new_sha256: bytes | None = None,
    new_size: int | None = None,
    hashing: Hashing | None = None,
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
        with (
            hashing_for_apply(old, info.new_size, threads)
            if hashing is None
            else nullcontext(hashing)
        ) as old_hash:
            try:
                decoded = begin(handle, old, threads, limits, progress)
                sink.begin(info.new_size, handle.fills())
                new_digest = rebuild(
                    handle,
                    threads,
                    limits,
                    sink.write,
                    sink.fill,
                    progress,
                    "write",
                    read_back,
                    old_hash if isinstance(old_hash, BothFiles) else None,
                )
                finish()
            except (FormatError, MismatchError) as error:
                # A wrong old file shows up as all kinds of nonsense; name the cause.
                _require(OldMismatchError, old_hash.result(), info.old_check, old_sha256, error)
                raise
            old_digest = old_hash.result()
            _require(OldMismatchError, old_digest, info.old_check, old_sha256)
        _require(NewMismatchError, new_digest, info.new_check, new_sha256)
        return PatchResult(
            old_size=info.old_size,
            new_size=info.new_size,
            patch_size=length_of(patch),
            old_sha256=old_digest.hex(),
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
    """As begin(), and decodes what that leaves to rebuild()."""
    from bsipatch._core import Control

    decoded = begin(handle, old, jobs, limits, progress)
    control = Control()
    watch(lambda: handle.finish(control), cancel=control.cancel, tick=ticker(progress, control))
    return decoded


def begin(handle: Patch, old: Buffer, jobs: int, limits: Limits, progress: Progress | None) -> int:
    """Decodes the generic streams and begins the core's; gives the bytes decoded here."""
    from bsipatch._core import Codec, Control

    streams = [s for s in handle.streams() if s.codec in (Codec.ZSTD, Codec.LZMA)]
    decoded = sum(stream.plain_len for stream in streams)
    if limits.memory_budget and decoded > limits.memory_budget:
        raise MemoryLimitError("decoded streams", expected=limits.memory_budget, found=decoded)
    control = Control()
    tick = ticker(progress, control)
    plain: dict[int, bytes] = {}

    def run(index: int) -> None:
        from bsipatch.delta._codecs import decode

        plain[index] = decode(streams[index])

    each(len(streams), jobs, run, tick=tick)
    for index, stream in enumerate(streams):
        handle.provide(stream.index, plain.pop(index))
    watch(lambda: handle.begin(old, control, jobs=jobs), cancel=control.cancel, tick=tick)
    return decoded
