"""Typed wrappers of the core's handles, and its status codes as exceptions.

Buffers are passed without copies and pinned for as long as the core may look at
them.  A handle that is closed while another thread is still inside one of its
calls is freed when that call returns, never under it.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bsipatch import __version__, errors

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Any, Self

    from typing_extensions import Buffer

    from bsipatch._core._account import Account

try:
    from bsipatch._core._bsipatch import ffi, lib
except ImportError as error:
    raise ImportError(
        "the native core of bsipatch is not built or cannot be loaded; "
        f"install the package again with a C compiler at hand ({error})"
    ) from error

FORMAT_VERSION: int = lib.BSP_FORMAT_VERSION
WINDOW_ALIGN: int = lib.BSP_WINDOW_ALIGN

#: profile name -> the core's number
DIFF_PROFILES: dict[str, int] = {
    "fast": lib.BSP_PROFILE_FAST,
    "balanced": lib.BSP_PROFILE_BALANCED,
    "max": lib.BSP_PROFILE_MAX,
}

_PHASES: dict[int, str] = {
    lib.BSP_PHASE_IDLE: "idle",
    lib.BSP_PHASE_PARSE: "parse",
    lib.BSP_PHASE_MATCH: "match",
    lib.BSP_PHASE_PREDICT: "predict",
    lib.BSP_PHASE_ENCODE: "encode",
    lib.BSP_PHASE_DECODE: "decode",
    lib.BSP_PHASE_WRITE: "write",
}

#: status code -> exception; a test proves that every code of cdef.h is here
STATUS_ERRORS: dict[int, type[errors.BsipatchError]] = {
    lib.BSP_E_ARG: errors.UsageError,
    lib.BSP_E_CANCELLED: errors.CancelledError,
    lib.BSP_E_NOMEM: errors.OutOfMemoryError,
    lib.BSP_E_MEMLIMIT: errors.MemoryLimitError,
    lib.BSP_E_VERSION: errors.VersionError,
    lib.BSP_E_MAGIC: errors.MagicError,
    lib.BSP_E_CORRUPT: errors.CorruptError,
    lib.BSP_E_TRUNCATED: errors.TruncatedError,
    lib.BSP_E_LIMIT: errors.LimitError,
    lib.BSP_E_OLD_MISMATCH: errors.OldMismatchError,
    lib.BSP_E_NEW_MISMATCH: errors.NewMismatchError,
    lib.BSP_E_INTERNAL: errors.InternalError,
}


def _text(pointer: Any) -> str:
    raw: bytes = ffi.string(pointer)
    return raw.decode("ascii", "replace")


if _text(lib.bsp_version()) != __version__:  # pragma: no cover - a broken installation
    raise ImportError(
        f"bsipatch {__version__} found a native core of version "
        f"{_text(lib.bsp_version())}; install the package again"
    )


def status_text(code: int) -> str:
    """The core's sentence for a status code."""
    return _text(lib.bsp_status_text(code))


def _check(status: int, fault: Any = None) -> None:
    """Raises what the status code stands for, with what the fault says about it."""
    if status == lib.BSP_OK:
        return
    cls = STATUS_ERRORS.get(status, errors.InternalError)
    if fault is None or fault.code != status:
        raise cls(status_text(status) if cls is errors.InternalError else "")
    place = "" if fault.place == ffi.NULL else _text(fault.place)
    known = fault.expected != 0 or fault.found != 0
    show = _letters if cls is errors.MagicError else int
    raise cls(
        place,
        offset=fault.offset or None,
        expected=show(fault.expected) if known else None,
        found=show(fault.found) if known else None,
    )


def _letters(magic: int) -> str:
    """A file's first four bytes as one would write them."""
    return repr(int(magic).to_bytes(4, "little"))[1:]


class Codec(enum.IntEnum):
    """How a stream's bytes are coded inside a patch."""

    PLAIN = 0
    MODEL = 1
    ZSTD = 2
    LZMA = 3
    #: what the core makes of MODEL where sharing one coder does not pay
    MODEL_OWN = 4


class Control:
    """Watches and stops a running call from another thread."""

    def __init__(self) -> None:
        self._block = ffi.new("bsp_control *")

    def cancel(self) -> None:
        """Asks the call that runs with this block to stop; it raises CancelledError."""
        self._block.cancel = 1

    @property
    def cancelled(self) -> bool:
        return bool(self._block.cancel)

    @property
    def progress(self) -> tuple[str, int, int]:
        """Phase, bytes of the new file done, and in all."""
        block = self._block
        return _PHASES.get(block.phase, "work"), block.done, block.total


class Stream:
    """One stream of a diff (plain bytes) or a patch (encoded bytes)."""

    __slots__ = ("codec", "coded_len", "data", "id", "index", "modelled_len", "plain_len")

    def __init__(self, index: int, info: Any) -> None:
        self.index = index
        self.id: int = info.id
        self.codec = Codec(info.codec)
        self.plain_len: int = info.plain_len
        #: bytes it takes up in a patch by itself; 0 when it shares the MODEL coder
        self.coded_len: int = info.bytes_len if self.codec != Codec.MODEL else 0
        self.modelled_len: int = info.modelled_len
        #: a view of the core's memory, valid until the handle is closed; None when the
        #: core alone can decode it
        self.data: memoryview | None = None
        if info.bytes != ffi.NULL:
            self.data = memoryview(ffi.buffer(info.bytes, info.bytes_len)).toreadonly()
        elif info.bytes_len == 0 and self.codec not in (Codec.MODEL, Codec.MODEL_OWN):
            self.data = memoryview(b"")


class PatchInfo:
    """A patch's header. Sizes in bytes; checks are the first 8 bytes of each SHA-256."""

    __slots__ = (
        "format_version",
        "new_check",
        "new_size",
        "old_check",
        "old_size",
        "plain_bytes",
        "stream_count",
    )

    def __init__(self, info: Any) -> None:
        self.old_size: int = info.old_size
        self.new_size: int = info.new_size
        self.old_check: bytes = bytes(ffi.buffer(info.old_check))
        self.new_check: bytes = bytes(ffi.buffer(info.new_check))
        self.format_version: int = info.format_version
        self.stream_count: int = info.stream_count
        self.plain_bytes: int = info.plain_bytes


class _Handle:
    """A native handle that is freed once, and never while a call is inside it."""

    def __init__(self, pointer: Any, free: Callable[[Any], None]) -> None:
        self._pointer = ffi.gc(pointer, free)
        self._pinned: list[Any] = []
        self._lock = threading.Lock()
        self._inside = 0
        self._closing = False

    def _pin(self, data: Buffer) -> Any:
        """The buffer's bytes for the core, kept alive until the handle is freed."""
        view = ffi.from_buffer("uint8_t[]", data)
        self._pinned.append(view)
        return view

    @contextmanager
    def _use(self) -> Iterator[Any]:
        with self._lock:
            if self._closing:
                raise errors.UsageError("the handle is closed")
            self._inside += 1
        try:
            yield self._pointer
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closing and self._inside == 0
        if last:
            self._free()

    def _free(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            ffi.release(pointer)
        while self._pinned:
            ffi.release(self._pinned.pop())

    def close(self) -> None:
        """Frees the handle now, or when the last call inside it returns. May be repeated."""
        with self._lock:
            free_now = not self._closing and self._inside == 0
            self._closing = True
        if free_now:
            self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Diff(_Handle):
    """The streams of a patch from `old` to `new`, before codecs are chosen.

    Computing them happens here, in the constructor, without the GIL: run it in a
    thread and watch `control` from another.  Both buffers must not change until
    the handle is closed.

    Raises: MemoryLimitError, OutOfMemoryError, CancelledError.
    """

    def __init__(
        self,
        old: Buffer,
        new: Buffer,
        *,
        profile: str = "max",
        jobs: int = 1,
        memory_budget: int = 0,
        raw: bool = False,
        control: Control | None = None,
    ) -> None:
        options = ffi.new("bsp_diff_options *")
        options.profile = DIFF_PROFILES[profile]
        options.jobs = jobs
        options.memory_budget = memory_budget
        options.flags = lib.BSP_DIFF_RAW if raw else 0
        fault = ffi.new("bsp_fault *")
        handle = ffi.new("bsp_diff **")
        old_view = ffi.from_buffer("uint8_t[]", old)
        new_view = ffi.from_buffer("uint8_t[]", new)
        block = ffi.NULL if control is None else control._block
        status = lib.bsp_diff_new(
            old_view, len(old_view), new_view, len(new_view), options, block, handle, fault
        )
        if status != lib.BSP_OK:
            ffi.release(old_view)
            ffi.release(new_view)
            _check(status, fault)
        super().__init__(handle[0], lib.bsp_diff_free)
        self._pinned += [old_view, new_view]

    def streams(self) -> list[Stream]:
        """Every stream; their data may be looked at until the handle is closed."""
        with self._use() as diff:
            found = []
            info = ffi.new("bsp_stream_info *")
            for index in range(lib.bsp_diff_stream_count(diff)):
                _check(lib.bsp_diff_stream(diff, index, info))
                found.append(Stream(index, info))
            return found

    def set_codec(self, index: int, codec: Codec, encoded: Buffer | None = None) -> None:
        """Chooses how a stream is coded. `encoded` is copied."""
        with self._use() as diff:
            if encoded is None:
                _check(lib.bsp_diff_set_codec(diff, index, codec, ffi.NULL, 0))
                return
            with ffi.from_buffer("uint8_t[]", encoded) as view:
                _check(lib.bsp_diff_set_codec(diff, index, codec, view, len(view)))

    def finish(self, old_check: bytes, new_check: bytes) -> bytes:
        """The patch's bytes under the codecs chosen so far. May be called again.

        The checks are the first 8 bytes of each file's SHA-256.
        """
        if len(old_check) != 8 or len(new_check) != 8:
            raise errors.UsageError("a check is 8 bytes long")
        with self._use() as diff:
            fault = ffi.new("bsp_fault *")
            patch = ffi.new("uint8_t **")
            patch_len = ffi.new("size_t *")
            _check(
                lib.bsp_diff_finish(
                    diff,
                    ffi.from_buffer("uint8_t[]", old_check),
                    ffi.from_buffer("uint8_t[]", new_check),
                    patch,
                    patch_len,
                    fault,
                ),
                fault,
            )
            return bytes(ffi.buffer(patch[0], patch_len[0]))


class Patch(_Handle):
    """A patch being applied: opened, its streams provided, prepared, then made window by window.

    `window` may be called by several threads at once, and `finish` beside them; everything
    else by one.
    """

    def __init__(self, data: Buffer, *, max_plain: int, memory_budget: int = 0) -> None:
        """Reads and validates header and directory.

        max_plain bounds the sum of the decoded streams, memory_budget (0: none) what
        the core allocates, both in bytes.

        Raises: MagicError, VersionError, CorruptError, TruncatedError, LimitError,
        MemoryLimitError, OutOfMemoryError.
        """
        view = ffi.from_buffer("uint8_t[]", data)
        handle = ffi.new("bsp_patch **")
        fault = ffi.new("bsp_fault *")
        status = lib.bsp_patch_open(view, len(view), max_plain, memory_budget, handle, fault)
        if status != lib.BSP_OK:
            ffi.release(view)
            _check(status, fault)
        super().__init__(handle[0], lib.bsp_patch_close)
        self._pinned.append(view)

    @property
    def info(self) -> PatchInfo:
        with self._use() as patch:
            info = ffi.new("bsp_patch_info *")
            lib.bsp_patch_get_info(patch, info)
            return PatchInfo(info)

    def streams(self) -> list[Stream]:
        """Every stream; their data may be looked at until the handle is closed."""
        with self._use() as patch:
            header = ffi.new("bsp_patch_info *")
            lib.bsp_patch_get_info(patch, header)
            found = []
            info = ffi.new("bsp_stream_info *")
            for index in range(header.stream_count):
                _check(lib.bsp_patch_stream(patch, index, info))
                found.append(Stream(index, info))
            return found

    def provide(self, index: int, plain: Buffer) -> None:
        """Hands in the decoded bytes of a ZSTD or LZMA stream."""
        with self._use() as patch:
            view = self._pin(plain)
            _check(lib.bsp_patch_provide(patch, index, view, len(view)))

    def prepare(self, old: Buffer, control: Control | None = None, *, jobs: int = 1) -> None:
        """Decodes and validates everything against the old file, without the GIL.

        jobs: threads, which change neither result nor errors but the memory it takes.

        Raises: CorruptError, OldMismatchError, LimitError, MemoryLimitError,
        OutOfMemoryError, CancelledError.
        """
        with self._use() as patch:
            view = self._pin(old)
            fault = ffi.new("bsp_fault *")
            block = ffi.NULL if control is None else control._block
            _check(lib.bsp_patch_set_jobs(patch, jobs))
            _check(lib.bsp_patch_prepare(patch, view, len(view), block, fault), fault)

    def begin(self, old: Buffer, control: Control | None = None, *, jobs: int = 1) -> None:
        """The first half of prepare(): windows may be made once it returns.

        They wait for what finish(), in another thread, decodes meanwhile.

        Raises: as prepare().
        """
        with self._use() as patch:
            view = self._pin(old)
            fault = ffi.new("bsp_fault *")
            block = ffi.NULL if control is None else control._block
            _check(lib.bsp_patch_set_jobs(patch, jobs))
            _check(lib.bsp_patch_begin(patch, view, len(view), block, fault), fault)

    def finish(self, control: Control | None = None) -> None:
        """The second half of prepare(), without the GIL; nothing when that is done.

        What it raises is raised by all windows that wait for it or come later, too.
        Raises: CorruptError, MemoryLimitError, OutOfMemoryError, CancelledError.
        """
        with self._use() as patch:
            fault = ffi.new("bsp_fault *")
            block = ffi.NULL if control is None else control._block
            _check(lib.bsp_patch_finish(patch, block, fault), fault)

    def window(self, offset: int, out: Buffer) -> None:
        """Makes new[offset, offset + len(out)) in `out`, without the GIL.

        Offset and length are multiples of WINDOW_ALIGN except at the file's end.
        """
        with self._use() as patch:
            fault = ffi.new("bsp_fault *")
            with ffi.from_buffer("uint8_t[]", out, require_writable=True) as view:
                _check(lib.bsp_patch_window(patch, offset, view, len(view), fault), fault)

    def fills(self) -> list[tuple[int, int]]:
        """Offset and length of every range that is made from the finished bytes."""
        with self._use() as patch:
            offset = ffi.new("uint64_t *")
            length = ffi.new("uint64_t *")
            found = []
            for index in range(lib.bsp_patch_fill_count(patch)):
                _check(lib.bsp_patch_fill_range(patch, index, offset, length))
                found.append((offset[0], length[0]))
            return found

    def fill_needs(self) -> list[int]:
        """For each such range, where in the new file what it is made from ends."""
        with self._use() as patch:
            end = ffi.new("uint64_t *")
            found = []
            for index in range(lib.bsp_patch_fill_count(patch)):
                _check(lib.bsp_patch_fill_needs(patch, index, end))
                found.append(end[0])
            return found

    def fill(self, index: int, out: Buffer) -> None:
        """Makes one such range, once every window is made that begins before its needs end."""
        with self._use() as patch:
            fault = ffi.new("bsp_fault *")
            with ffi.from_buffer("uint8_t[]", out, require_writable=True) as view:
                _check(lib.bsp_patch_fill(patch, index, view, len(view), fault), fault)

    @property
    def peak_memory(self) -> int:
        """The most that the core has had allocated for this patch at once, in bytes."""
        with self._use() as patch:
            peak: int = lib.bsp_patch_peak_memory(patch)
            return peak

    def explain(self, buckets: int, control: Control | None = None) -> Account:
        """Where the bytes of a prepared patch went, without the GIL.

        The new file is cut into `buckets` stretches, 1 to 65536.

        Raises: UsageError, MemoryLimitError, OutOfMemoryError, CancelledError.
        """
        from bsipatch._core._account import read_account

        with self._use() as patch:
            fault = ffi.new("bsp_fault *")
            handle = ffi.new("bsp_explanation **")
            block = ffi.NULL if control is None else control._block
            _check(lib.bsp_explain_new(patch, buckets, block, handle, fault), fault)
            try:
                return read_account(handle[0])
            finally:
                lib.bsp_explain_free(handle[0])
