"""Payloads onto the disk: resumed where they broke off, whole and verified, or not at all.

A payload is wanted by its SHA-256 and size, both from signed metadata.  What has come
so far lies in `SHA256.part` beside a note of where it came from and its ETag, so that a
power cut, another mirror or another day costs only the rest.  Bytes of different
mirrors may be joined: the digest over the whole decides, and a wrong one starts anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..closing import Closing
from ..errors import (
    CancelledError,
    LimitError,
    MismatchError,
    NoSpaceError,
    TransferError,
    UsageError,
    from_os_error,
)
from ..limits import DEFAULT, Limits
from ..store import durable
from .mirrors import Mirror, Mirrors, Problem
from .transport import HttpStatusError, Reply, Transport

#: called with phase, bytes done and bytes in all
Progress = Callable[[str, int, int], None]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
#: tries at one mirror that bring nothing before the next mirror is asked
_TRIES = 3
#: seconds before the second try; doubled each time
_PAUSE = 0.5
#: bytes between two syncs of what has come, so that a power cut costs no more
_SYNC_EVERY = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One payload. path: the target's path in the feed. size in bytes, sha256 as hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A payload on the disk.

    received  bytes that travelled this time; 0 when it was there already
    resumed   bytes that were there from before
    problems  what went wrong on the way
    """

    path: Path
    size: int
    received: int
    resumed: int
    mirror: str
    problems: tuple[Problem, ...] = ()


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the bytes of a .part file come from."""

    url: str
    validator: str | None


class _ChangedError(TransferError):
    """The object is another one than the bytes that are here."""


@dataclass(slots=True)
class _Progressing:
    wanted: Wanted
    progress: Progress | None
    received: int = 0
    resumed: int = 0
    #: bytes that were here when the newest try began
    began_at: int = 0
    problems: list[Problem] = field(default_factory=list)

    def tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress("downloading", done, self.wanted.size)


class Downloads(Closing):
    """The folder of payloads. Use it as a context manager; one thread and process at a time."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        limits: Limits = DEFAULT,
        sleep: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Opens it, and makes it when it is not there. Raises SystemCallError."""
        self.folder = Path(folder)
        self._limits, self._stop = limits, stop
        self._sleep = sleep or self._pause
        with durable.system_calls("opening the downloads", folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            self._fd = os.open(
                self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )

    def close(self) -> None:
        """Lets go of the folder; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def path(self, sha256: str) -> Path:
        """Where a payload lies once it is whole. Raises UsageError for what is no digest."""
        return self.folder / f"{_checked(sha256)}.bsi"

    def open_whole(self, wanted: Wanted) -> int | None:
        """A descriptor of the payload, verified through that very descriptor; None without one.

        Use the descriptor and not the name afterwards: a name can be given to another
        file at any time.  A file that is not what it must be is removed.
        """
        name = f"{_checked(wanted.sha256)}.bsi"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with durable.system_calls("opening a payload", self.folder / name):
            try:
                fd = os.open(name, flags, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            try:
                if os.fstat(fd).st_size == wanted.size and self._digest(fd) == wanted.sha256:
                    return fd
                os.unlink(name, dir_fd=self._fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            return None

    def get(
        self,
        wanted: Wanted,
        mirrors: Mirrors,
        transport: Transport,
        *,
        progress: Progress | None = None,
    ) -> Fetched:
        """The payload, from here or from the first mirror that can give it.

        Raises TransferError with every mirror's reason when none can, NoSpaceError,
        SystemCallError, CancelledError; LimitError when it is larger than any may be.
        """
        _checked(wanted.sha256)
        if not 0 < wanted.size <= self._limits.max_package_size:
            raise LimitError(
                "the payload's size", expected=self._limits.max_package_size, found=wanted.size
            )
        work = _Progressing(wanted, progress)
        whole = self.open_whole(wanted)
        if whole is not None:
            os.close(whole)
            return self._fetched(work, "")
        for mirror in mirrors:
            try:
                self._from_mirror(mirror, transport, work)
            except CancelledError:
                raise
            except (TransferError, MismatchError) as error:
                work.problems.append(Problem.of(mirror, error))
                mirrors.failed(mirror, error)
                continue
            mirrors.worked(mirror)
            return self._fetched(work, mirror.base)
        raise TransferError(
            "no mirror gives it: " + "; ".join(map(str, work.problems)), file=wanted.path
        )

    def keep_only(self, digests: frozenset[str]) -> int:
        """Removes every other payload, whole or not; returns how many bytes that frees."""
        freed = 0
        with durable.system_calls("clearing the downloads", self.folder):
            for name in os.listdir(self._fd):
                if name.partition(".")[0] not in digests:
                    freed += os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
                    os.unlink(name, dir_fd=self._fd)
        return freed

    # --- one mirror ---

    def _from_mirror(self, mirror: Mirror, transport: Transport, work: _Progressing) -> None:
        """Tries until three tries in a row have brought nothing, or it is whole."""
        url = mirror.payload(work.wanted.path, work.wanted.sha256)
        idle, restarted = 0, False
        while True:
            before = work.received
            try:
                self._try(url, transport, work)
                return
            except (HttpStatusError, MismatchError, _ChangedError) as error:
                # What was here before is given up once; then the mirror is.
                useless = not isinstance(error, HttpStatusError) or error.status == 416
                if restarted or not useless or not work.began_at:
                    raise
                restarted = True
                self._drop_part(work.wanted)
            except TransferError as error:
                idle = idle + 1 if work.received == before else 0
                if idle >= _TRIES or work.received > 4 * work.wanted.size:
                    raise
                work.problems.append(Problem.of(mirror, error))
                self._sleep(_PAUSE * 2**idle)

    def _try(self, url: str, transport: Transport, work: _Progressing) -> None:
        wanted = work.wanted
        name = f"{wanted.sha256}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise from_os_error(error, self.folder / name) from error
        try:
            have = os.fstat(fd).st_size
            if have > wanted.size:
                os.ftruncate(fd, 0)
                have = 0
            work.began_at = have
            if have < wanted.size:
                self._check_space(wanted.size - have)
                note = self._note(wanted)
                known = note is not None and note.url == url
                validator = note.validator if note is not None and known else None
                with transport.open(url, offset=have, validator=validator) as reply:
                    self._receive(fd, have, reply, url, validator, work)
            os.fsync(fd)
            found = self._digest(fd)
            if found != wanted.sha256:
                os.ftruncate(fd, 0)
                raise MismatchError(
                    "the payload is not what the feed has signed",
                    file=url,
                    expected=wanted.sha256,
                    found=found,
                )
            os.rename(name, f"{wanted.sha256}.bsi", src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._forget_note(wanted)
            durable.sync_fd(self._fd)
        except OSError as error:
            # After a failed sync the pages count as clean whatever the disk holds: begin anew.
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
            raise from_os_error(error, self.folder / name) from error
        finally:
            os.close(fd)

    def _receive(
        self,
        fd: int,
        have: int,
        reply: Reply,
        url: str,
        validator: str | None,
        work: _Progressing,
    ) -> None:
        wanted = work.wanted
        if reply.size is not None and reply.size != wanted.size:
            raise _ChangedError(
                "the server has another object there",
                file=url,
                expected=f"{wanted.size} bytes",
                found=f"{reply.size} bytes",
            )
        if reply.start and validator and reply.validator and reply.validator != validator:
            raise _ChangedError("the object changed meanwhile", file=url)
        if reply.start != have:  # it sends the whole although only the rest was asked for
            os.ftruncate(fd, 0)
            have = 0
        elif have and not work.received:
            work.resumed = have
        self._write_note(wanted, _Part(url=url, validator=reply.validator))
        os.lseek(fd, have, os.SEEK_SET)
        unsynced = 0
        work.tell(have)
        for chunk in reply.chunks():
            if have + len(chunk) > wanted.size:
                raise _ChangedError(
                    "the server sends more than the feed has signed",
                    file=url,
                    expected=f"{wanted.size} bytes",
                )
            durable.write_all(fd, chunk)
            have += len(chunk)
            work.received += len(chunk)
            unsynced += len(chunk)
            if unsynced >= _SYNC_EVERY:
                os.fsync(fd)
                unsynced = 0
            work.tell(have)
        if have != wanted.size:
            raise TransferError(
                "the connection ended early", file=url, expected=wanted.size, found=have
            )

    # --- small things ---

    def _fetched(self, work: _Progressing, mirror: str) -> Fetched:
        return Fetched(
            path=self.path(work.wanted.sha256),
            size=work.wanted.size,
            received=work.received,
            resumed=work.resumed,
            mirror=mirror,
            problems=tuple(work.problems),
        )

    def _digest(self, fd: int) -> str:
        digest, at = hashlib.sha256(), 0
        while chunk := os.pread(fd, _CHUNK, at):
            if self._stop is not None and self._stop.is_set():
                raise CancelledError
            digest.update(chunk)
            at += len(chunk)
        return digest.hexdigest()

    def _check_space(self, needed: int) -> None:
        status = os.fstatvfs(self._fd)
        free = status.f_bavail * status.f_frsize
        if free < needed + self._limits.reserve_space:
            raise NoSpaceError(
                f"the download needs {needed} bytes and "
                f"{self._limits.reserve_space} must stay free",
                file=self.folder,
                expected=needed + self._limits.reserve_space,
                found=free,
            )

    def _note(self, wanted: Wanted) -> _Part | None:
        try:
            data = durable.read_file(f"{wanted.sha256}.json", dir_fd=self._fd, limit=4096)
            return msgspec.json.decode(data, type=_Part)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _write_note(self, wanted: Wanted, note: _Part) -> None:
        if self._note(wanted) != note:
            name = f"{wanted.sha256}.json"
            durable.replace_file(name, msgspec.json.encode(note), dir_fd=self._fd, mode=0o600)

    def _forget_note(self, wanted: Wanted) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{wanted.sha256}.json", dir_fd=self._fd)

    def _drop_part(self, wanted: Wanted) -> None:
        """Removes what has come so far."""
        self._forget_note(wanted)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{wanted.sha256}.part", dir_fd=self._fd)

    def _pause(self, duration: float) -> None:
        if self._stop is None:
            time.sleep(duration)
        elif self._stop.wait(duration):
            raise CancelledError


def _checked(sha256: str) -> str:
    if not _DIGEST.fullmatch(sha256):
        raise UsageError("not a SHA-256", found=sha256)
    return sha256
