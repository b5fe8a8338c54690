"""One publication: in an order in which devices always see a whole state, and never lost half way.

::

    1  the journal            publication.json, created: nobody else publishes meanwhile
    2  payloads               content-addressed, read back
    3  targets roles, 4 snapshot    under names of their own version, created, never overwritten
    5  timestamp              replaced on the condition that it is still the one we built on
    6  the new root, if any   both roots can verify what came before, where the old keys are here
    7  the journal is removed

Until step 5 nothing that a device reads has changed; after it everything it can name is there.  The
journal holds all that is to be written, signed already, so that any later command can finish a
publication whose process died, without any key; one that cannot be finished is discarded, and what
it left behind has names that nobody reads.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bsipatch.errors import BsipatchError, CorruptError, MismatchError, PublishError, TransferError
from bsipatch.limits import Limits
from bsipatch.publish.feed.metadata import when
from bsipatch.publish.feed.state import METADATA, TIMESTAMP
from bsipatch.publish.feed.storage import ConflictError, Storage, Stored

__all__ = [
    "JOURNAL",
    "Hook",
    "Journal",
    "Payload",
    "Publication",
    "publish",
    "recover",
    "unfinished",
]

JOURNAL = "publication.json"
#: seconds after which a publication by another machine is taken for dead
LEASE = 600
_MOST = 1 << 28
_FORMAT = 1

#: called with a step's name before it is taken; for progress, and for tests that die there
Hook = Callable[[str], None]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Payload(_Struct, frozen=True, kw_only=True):
    """An update file at `path`; `copy` names a path of the feed that has the same bytes, or ""."""

    path: str
    sha256: str
    size: int
    copy: str = ""


class File(_Struct, frozen=True, kw_only=True):
    """A metadata file."""

    path: str
    text: str


class Journal(_Struct, frozen=True, kw_only=True):
    """All of one publication. base: SHA-256 of the timestamp built upon, "" for none."""

    format: int
    id: str
    host: str
    pid: int
    since: int
    base: str
    payloads: tuple[Payload, ...]
    files: tuple[File, ...]
    timestamp: str
    root: File | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published. sources: where new payloads lie, by their path in the feed."""

    base: str
    payloads: tuple[Payload, ...]
    sources: dict[str, Path]
    files: tuple[File, ...]
    timestamp: str
    root: File | None = None


def publish(
    storage: Storage, publication: Publication, now: int, *, limits: Limits, hook: Hook
) -> None:
    """Publishes all of it or nothing.

    Raises ConflictError when somebody else publishes or has published meanwhile, TransferError,
    MismatchError when the storage did not keep what it was given.
    """
    journal = Journal(
        format=_FORMAT,
        id=secrets.token_hex(16),
        host=socket.gethostname(),
        pid=os.getpid(),
        since=now,
        base=publication.base,
        payloads=publication.payloads,
        files=publication.files,
        timestamp=publication.timestamp,
        root=publication.root,
    )
    hook("journal")
    try:
        storage.create(JOURNAL, msgspec.json.encode(journal))
    except ConflictError:
        raise ConflictError(
            "another publication is under way",
            file=f"{storage.name}/{JOURNAL}",
            hint="Wait for it to end and run the command again.",
        ) from None
    run = _Run(storage, journal, publication.sources, limits, hook)
    try:
        run.prepare()
        run.commit()
    except BaseException:
        run.undo()
        raise
    run.finish()


def recover(
    storage: Storage, now: int, *, limits: Limits, hook: Hook, take_over: bool = False
) -> str:
    """Finishes or discards what a publisher who died has left.

    Returns "" (nothing was left), "finished" or "discarded".  Raises PublishError while that
    publisher may still be alive, unless `take_over`.
    """
    journal = unfinished(storage)
    if journal is None:
        return ""
    if not take_over and _may_live(journal, now):
        raise PublishError(
            f"process {journal.pid} on {ascii(journal.host)[1:-1]} has been publishing since "
            f"{when(journal.since).isoformat()}",
            file=f"{storage.name}/{JOURNAL}",
            hint="Wait for it to end; if it is dead, --take-over finishes its work.",
        )
    run = _Run(storage, journal, {}, limits, hook)
    if not run.committed():
        if not run.possible():
            hook("discard")
            run.remove_journal()
            return "discarded"
        run.prepare()
    run.commit()
    run.finish()
    return "finished"


def unfinished(storage: Storage) -> Journal | None:
    """The journal of a publication that is under way or has died. Raises CorruptError."""
    stored = storage.read(JOURNAL, _MOST)
    if stored is None:
        return None
    try:
        journal = msgspec.json.decode(stored.data, type=Journal, strict=True)
    except msgspec.DecodeError as error:
        raise CorruptError(
            ascii(str(error))[1:-1],
            file=f"{storage.name}/{JOURNAL}",
            hint="Remove the file: without it, what it was to publish is discarded.",
        ) from None
    _check_paths(journal, storage)
    return journal


def _may_live(journal: Journal, now: int) -> bool:
    if journal.host == socket.gethostname():
        if journal.pid == os.getpid():
            return False
        try:
            os.kill(journal.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return now < journal.since + LEASE


def _check_paths(journal: Journal, storage: Storage) -> None:
    """A journal is not signed: it must not be able to name anything outside its own places."""
    paths = [file.path for file in journal.files]
    paths += [journal.root.path] if journal.root is not None else []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder + "/" != METADATA or not name.endswith(".json") or name == "timestamp.json":
            raise CorruptError("not a metadata file", file=storage.name, found=ascii(path[:160]))
    for payload in journal.payloads:
        for path in (payload.path, payload.copy or payload.path):
            parts = path.split("/")
            bad = {"", ".", ".."} & set(parts)
            if parts[0] != "targets" or len(parts) != 4 or bad:
                raise CorruptError("not a payload", file=storage.name, found=ascii(path[:160]))


class _Run:
    """The steps of one publication, each of which may already have been taken."""

    def __init__(
        self,
        storage: Storage,
        journal: Journal,
        sources: dict[str, Path],
        limits: Limits,
        hook: Hook,
    ) -> None:
        self._storage, self._journal = storage, journal
        self._sources, self._limits, self._hook = sources, limits, hook
        self._created: list[str] = []
        self._committed = False

    def committed(self) -> bool:
        """Whether devices see it already."""
        now = self._timestamp()
        return now is not None and now.data == self._journal.timestamp.encode()

    def possible(self) -> bool:
        """Whether it can be finished: nobody has published since, and every payload is there."""
        now = self._timestamp()
        if (_sha256(now.data) if now is not None else "") != self._journal.base:
            return False
        return all(
            self._is_there(p) or (p.copy and self._size(p.copy) == p.size)
            for p in self._journal.payloads
        )

    def prepare(self) -> None:
        """Everything that no device reads yet."""
        for payload in self._journal.payloads:
            self._hook(f"payload {payload.path}")
            self._payload(payload)
        for file in self._journal.files:
            self._hook(f"file {file.path}")
            self._file(file)

    def commit(self) -> None:
        """The new state, at one stroke."""
        self._hook("timestamp")
        self._replace_timestamp()
        self._committed = True
        if self._journal.root is not None:
            self._hook(f"root {self._journal.root.path}")
            self._file(self._journal.root)

    def finish(self) -> None:
        """Others may publish."""
        self._hook("end")
        self.remove_journal()

    def undo(self) -> None:
        """After a failure of our own: leaves nothing behind, when that is still possible."""
        if self._committed or not self._surely_not_committed():
            return  # the next command finishes it
        try:
            for path in reversed(self._created):
                self._storage.remove(path)
            self.remove_journal()
        except BsipatchError:
            return  # likewise: what is left has names that nobody reads

    def remove_journal(self) -> None:
        """Only our own: somebody may have taken over."""
        stored = self._storage.read(JOURNAL, _MOST)
        if stored is not None and stored.data == msgspec.json.encode(self._journal):
            self._storage.remove(JOURNAL)

    # --- steps ---

    def _payload(self, payload: Payload) -> None:
        if self._is_there(payload):
            return
        source = self._sources.get(payload.path)
        if source is not None:
            self._storage.upload(payload.path, source)
        elif payload.copy:
            self._storage.copy(payload.copy, payload.path)
        else:
            raise PublishError("a payload is missing", file=payload.path)
        # Read back before anybody is told of it.
        found = hashlib.sha256()
        for chunk in self._storage.stream(payload.path):
            found.update(chunk)
        if found.hexdigest() != payload.sha256:
            raise MismatchError(
                "the storage holds something else than was uploaded",
                file=f"{self._storage.name}/{payload.path}",
                expected=payload.sha256,
                found=found.hexdigest(),
            )

    def _is_there(self, payload: Payload) -> bool:
        if self._size(payload.path) != payload.size:
            return False
        found = hashlib.sha256()
        for chunk in self._storage.stream(payload.path):
            found.update(chunk)
        return found.hexdigest() == payload.sha256

    def _size(self, path: str) -> int | None:
        return self._storage.size(path)

    def _file(self, file: File) -> None:
        data = file.text.encode()
        try:
            self._storage.create(file.path, data)
            self._created.append(file.path)
        except ConflictError:
            stored = self._storage.read(file.path, self._limits.max_targets)
            if stored is None or stored.data != data:
                raise

    def _replace_timestamp(self) -> None:
        data = self._journal.timestamp.encode()
        now = self._timestamp()
        if now is not None and now.data == data:
            return
        if (_sha256(now.data) if now is not None else "") != self._journal.base:
            raise ConflictError(
                "somebody else has published meanwhile",
                file=f"{self._storage.name}/{TIMESTAMP}",
                hint="Run the command again: it starts from what is published now.",
            )
        try:
            if now is None:
                self._storage.create(TIMESTAMP, data)
            else:
                self._storage.replace(TIMESTAMP, data, now.version)
        except TransferError:
            # The answer may have been lost, not the request.
            again = self._timestamp()
            if again is None or again.data != data:
                raise

    def _surely_not_committed(self) -> bool:
        try:
            return not self.committed()
        except BsipatchError:
            return False

    def _timestamp(self) -> Stored | None:
        return self._storage.read(TIMESTAMP, self._limits.max_timestamp)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
