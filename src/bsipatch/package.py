"""The update file (.bsi): the signed manifest first, then the payloads, and nothing else.

::

    offset 0    magic, 8 bytes: 0x89 "BSI" CR LF 0x1a LF
           8    format version, u32 little endian: 1
          12    length of the envelope, u32 little endian
          16    the envelope (DSSE, JSON) around the manifest (JSON in one zstd frame)
           …    the payloads, in the manifest's order, without gaps, to the end of the file

A package is opened once and read through that one descriptor, at random or, where the source cannot
seek, from front to back.  The envelope's signatures are verified before the manifest inside it is
decompressed or parsed, and a payload's SHA-256 before a byte of it is handed out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import zstandard

from bsipatch import manifest as manifests
from bsipatch.closing import Closing
from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    LimitError,
    MagicError,
    MismatchError,
    NotFoundError,
    TruncatedError,
    UsageError,
    VersionError,
    from_os_error,
)
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest import Manifest, Payload

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "FORMAT",
    "MAGIC",
    "Package",
    "Sink",
    "Verify",
    "compress",
    "expand_memory",
    "seal",
    "write",
]

MAGIC = b"\x89BSI\r\n\x1a\n"
FORMAT = 1

_HEADER = struct.Struct("<8sII")
_CHUNK = 1 << 20
#: compressed bytes decoded at a time
_STEP = 4096
#: what a zstd decoder allocates beside its window, rounded up
_ZSTD_STATE = 1 << 20

#: Turns the envelope's bytes into those that are signed, or raises: trust.verify with a policy.
Verify = Callable[[bytes], bytes]


class _Source(Protocol):
    """Where the bytes of a package come from."""

    #: total bytes, or None where only reading to the end can tell
    size: int | None

    def read(self, offset: int, length: int) -> bytes: ...  # at most length, b"" at the end
    def close(self) -> None: ...


class _Random:
    """A descriptor read by offset; nobody's file position is used or moved."""

    def __init__(self, fd: int, *, owned: bool) -> None:
        self._fd, self._owned = fd, owned
        try:
            self.size: int | None = os.fstat(fd).st_size
        except OSError as error:
            self.close()
            raise from_os_error(error, detail="cannot look at the package") from error

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self._fd)


class _Stream:
    """A file object that is read once, from front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at = file, 0
        self.size: int | None = None

    def read(self, offset: int, length: int) -> bytes:
        if offset < self._at:
            raise UsageError("this package comes as a stream: payloads only in their order")
        while self._at < offset:
            skipped = len(self._file.read(min(_CHUNK, offset - self._at)) or b"")
            if not skipped:
                return b""
            self._at += skipped
        data = self._file.read(length) or b""
        self._at += len(data)
        return data

    def close(self) -> None:
        """The file object belongs to the caller."""


class Package(Closing):
    """An update file whose manifest is verified.

    manifest        what it says
    manifest_bytes  the manifest's canonical bytes
    envelope        the bytes of the signed envelope
    size            bytes of the whole file

    Use it as a context manager, or call close().
    """

    def __init__(self, source: _Source, verify: Verify, name: str | None, limits: Limits) -> None:
        self._source, self._limits, self.name = source, limits, name
        header = self._exactly(0, _HEADER.size, "the header")
        magic, version, length = _HEADER.unpack(header)
        if magic != MAGIC:
            raise MagicError("not an update file", file=name)
        if version != FORMAT:
            raise VersionError("the update file's", file=name, expected=FORMAT, found=version)
        if length > (limits.max_manifest + 2) // 3 * 4 + limits.max_envelope:
            raise LimitError("the envelope is too large", file=name, found=length)
        self.envelope = self._exactly(_HEADER.size, length, "the envelope")
        # The trust boundary: nothing of the manifest is looked at before verify() returns.
        try:
            signed = verify(self.envelope)
        except BsipatchError as error:
            error.file = error.file or name
            raise
        self.manifest_bytes = _unseal(signed, limits)
        self.manifest: Manifest = manifests.decode(self.manifest_bytes, limits=limits)
        self._payloads_at = _HEADER.size + length
        self.size = self._payloads_at + self.manifest.payload_size
        if source.size is not None and source.size != self.size:
            kind = TruncatedError if source.size < self.size else CorruptError
            raise kind(
                "the file is not as long as its payloads",
                file=name,
                expected=self.size,
                found=source.size,
            )

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str] | int | IO[bytes],
        verify: Verify,
        *,
        limits: Limits = DEFAULT,
    ) -> Package:
        """Opens a path (never a link or special file), a descriptor, or a binary file object.

        A descriptor stays the caller's and must stay open; it is read by offset.  A file object is
        read as a stream.  `verify` gets the envelope's bytes and returns what is signed, or raises:
        ``lambda envelope: trust.verify(envelope, policy).payload``.
        Raises NotFoundError, SystemCallError, MagicError, VersionError, CorruptError, LimitError,
        ManifestError, UnsafePathError, and whatever `verify` raises.
        """
        opened: _Source
        name: str | None = None
        if isinstance(source, str | os.PathLike):
            name = os.fspath(source)
            opened = _Random(_open_file(name), owned=True)
        elif isinstance(source, int):
            opened = _Random(source, owned=False)
        else:
            opened = _Stream(source)
        try:
            return cls(opened, verify, name, limits)
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Closes what open() opened. Safe to call twice."""
        self._source.close()

    # --- payloads ---

    def payload(self, index: int) -> bytes:
        """The payload's bytes as they lie in the package, once their SHA-256 is verified.

        Held in memory as a whole: for a large one use spool().  Raises MismatchError,
        TruncatedError, SystemCallError; UsageError for one that a stream has already passed.
        """
        payload = self._payload(index)
        parts = bytearray()
        for chunk in self._raw(index):
            parts += chunk
        self._check(payload, hashlib.sha256(parts).hexdigest(), index)
        return bytes(parts)

    def spool(self, index: int, fd: int) -> None:
        """Copies the payload to `fd`, a file of the caller's own that nobody else can write.

        The bytes may be used once this returns; it raises (as payload() does) when the copy is not
        what was signed, and the caller then throws the copy away.
        """
        payload = self._payload(index)
        digest = hashlib.sha256()
        for chunk in self._raw(index):
            digest.update(chunk)
            _write_all(fd, chunk)
        self._check(payload, digest.hexdigest(), index)

    def expand(self, index: int, out: int, *, scratch: int | None = None) -> None:
        """Writes the file that a payload of kind "zstd" or "plain" holds to descriptor `out`.

        Exactly `size` bytes, or an error.  A zstd payload is verified as a whole before any of it
        is decompressed: in memory, or through `scratch`, the descriptor of an empty private file.
        Raises as payload() does, and CorruptError when it decodes to anything else.
        """
        payload = self._payload(index)
        if payload.kind == "patch":
            raise UsageError("a patch is applied, not expanded")
        if payload.kind == "plain":
            self.spool(index, out)
            return
        if scratch is None:
            verified: Iterable[bytes] = [self.payload(index)]
        else:
            self.spool(index, scratch)
            verified = _chunks(scratch, payload.length)
        for chunk in _expand_file(verified, payload, self._limits):
            _write_all(out, chunk)

    def verify_payloads(self, progress: Callable[[int], None] | None = None) -> None:
        """Checks every payload's SHA-256, and that the file ends with the last.

        `progress` gets the number of bytes just checked.  Raises as payload() does.
        """
        for index, payload in enumerate(self.manifest.payloads):
            digest = hashlib.sha256()
            for chunk in self._raw(index):
                digest.update(chunk)
                if progress is not None:
                    progress(len(chunk))
            self._check(payload, digest.hexdigest(), index)
        self.finish()

    def finish(self) -> None:
        """Checks that nothing follows the last payload. A stream is read to its end for it."""
        if self._read(self.size, 1):
            raise CorruptError("bytes follow the last payload", file=self.name, offset=self.size)

    # --- reading ---

    def _payload(self, index: int) -> Payload:
        if not 0 <= index < len(self.manifest.payloads):
            raise UsageError("there is no such payload", found=index)
        return self.manifest.payloads[index]

    def _raw(self, index: int) -> Iterator[bytes]:
        payload = self._payload(index)
        at, end = payload.offset, payload.offset + payload.length
        while at < end:
            chunk = self._read(self._payloads_at + at, min(_CHUNK, end - at))
            if not chunk:
                raise TruncatedError(
                    f"payload {index} is cut short", file=self.name, offset=self._payloads_at + at
                )
            at += len(chunk)
            yield chunk

    def _exactly(self, offset: int, length: int, what: str) -> bytes:
        data = bytearray()
        while len(data) < length:
            # In pieces: a declared length allocates nothing that the file does not hold.
            chunk = self._read(offset + len(data), min(_CHUNK, length - len(data)))
            if not chunk:
                raise TruncatedError(f"{what} is cut short", file=self.name, offset=len(data))
            data += chunk
        return bytes(data)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._source.read(offset, length)
        except OSError as error:
            raise from_os_error(error, self.name, "reading failed") from error

    def _check(self, payload: Payload, found: str, index: int) -> None:
        if found != payload.sha256:
            raise MismatchError(
                f"payload {index} is not what was signed",
                file=self.name,
                expected=payload.sha256,
                found=found,
            )


def _open_file(name: str) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError("no such update file", file=name) from None
    except OSError as error:
        raise from_os_error(error, name, "cannot open") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MagicError("not a regular file", file=name)
    return fd


def _chunks(fd: int, length: int) -> Iterator[bytes]:
    at = 0
    while at < length:
        chunk = os.pread(fd, min(_CHUNK, length - at), at)
        if not chunk:
            raise TruncatedError("the scratch file is cut short", offset=at)
        at += len(chunk)
        yield chunk


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            raise from_os_error(error, detail="writing failed") from error


def _expand_file(chunks: Iterable[bytes], payload: Payload, limits: Limits) -> Iterator[bytes]:
    """A payload's frame, which must hold exactly payload.size bytes."""
    made = 0
    window = min(_window_log(payload.size), limits.max_zstd_window_log)
    for piece in _decompress(chunks, most=payload.size, window_log=window):
        made += len(piece)
        yield piece
    if made != payload.size:
        raise CorruptError(
            "a file does not decompress to its size", expected=payload.size, found=made
        )


def _decompress(chunks: Iterable[bytes], *, most: int, window_log: int) -> Iterator[bytes]:
    """Exactly one zstd frame of at most `most` bytes, in bounded pieces and a bounded window."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << window_log).decompressobj()
    made = 0
    try:
        for chunk in chunks:
            # Small steps: a few compressed bytes can stand for a great many.
            for at in range(0, len(chunk), _STEP):
                if decompressor.eof:
                    raise CorruptError("bytes follow the compressed data")
                piece = decompressor.decompress(chunk[at : at + _STEP])
                made += len(piece)
                if made > most:
                    raise CorruptError("compressed data is longer than it may be", expected=most)
                if piece:
                    yield piece
    except zstandard.ZstdError as error:
        raise CorruptError(f"compressed data is damaged: {error}") from None
    if not decompressor.eof or decompressor.unused_data:
        raise CorruptError("compressed data does not end where it should")


# --- writing ---


def compress(data: Buffer, level: int) -> bytes:
    """A whole file as the zstd frame that expand() reads back; level 1 to 22."""
    with memoryview(data) as view:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=view.nbytes,
            window_log=_window_log(view.nbytes),
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        packed: bytes = zstandard.ZstdCompressor(compression_params=parameters).compress(view)
        return packed


def seal(manifest_bytes: bytes) -> bytes:
    """A manifest's canonical bytes as they are signed: compressed, for its digests are many."""
    return compress(manifest_bytes, 19)


def _unseal(sealed: bytes, limits: Limits) -> bytes:
    pieces = _decompress([sealed], most=limits.max_manifest, window_log=limits.max_zstd_window_log)
    return b"".join(pieces)


def expand_memory(size: int) -> int:
    """Most bytes that expanding a compressed file of `size` bytes allocates at once."""
    return (1 << _window_log(size)) + _ZSTD_STATE


def _window_log(size: int) -> int:
    return min(max(max(size - 1, 0).bit_length(), 10), 27)


class Sink(Protocol):
    """Anything that takes bytes in order."""

    def write(self, data: bytes, /) -> object: ...


def write(out: Sink, envelope: bytes, payloads: Iterable[bytes | Path]) -> int:
    """Writes a package front to back: header, envelope, then each payload from bytes or a file.

    The payloads must be those of the manifest inside, in its order; reading them back tells.
    Returns the bytes written.  Raises SystemCallError.
    """
    size = _HEADER.size + len(envelope)
    try:
        out.write(_HEADER.pack(MAGIC, FORMAT, len(envelope)))
        out.write(envelope)
        for payload in payloads:
            if isinstance(payload, bytes):
                out.write(payload)
                size += len(payload)
                continue
            with payload.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    out.write(chunk)
                    size += len(chunk)
    except OSError as error:
        raise from_os_error(error, detail="writing failed") from error
    return size
