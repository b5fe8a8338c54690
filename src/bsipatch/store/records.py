"""What the store writes down: its identity, its generations, its unfinished business.

::

    STORE/
      store.json                 Identity; written last by init, so a store is whole or none
      lock                       see lock.py
      current -> generations/1   the one pointer; the live tree is STORE/current/tree
      pending.json               Pending, only while a generation is being activated
      history.jsonl              see history.py
      generations/
        0/                       the baseline, never deleted
          generation.json        Generation
          tree.json              the baseline's entries, canonical
          tree/                  the files
        1/
          generation.json
          envelope.dsse          the signed manifest, as it was accepted
          tree/
        2.tmp/                   a generation being built; whoever opens the store
                                 for writing next removes it
      trash/                     generations being removed

Records are canonical JSON and replaced whole, never edited.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from ..errors import StoreDamagedError
from ..limits import Limits
from . import durable

IDENTITY = "store.json"
CURRENT = "current"
PENDING = "pending.json"
GENERATIONS = "generations"
TRASH = "trash"
TREE = "tree"
GENERATION = "generation.json"
BASELINE_ENTRIES = "tree.json"
ENVELOPE = "envelope.dsse"
STAGE_SUFFIX = ".tmp"

FORMAT = 1
BASELINE = 0


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this store is of, and whom it trusts. Fixed at init."""

    format: int
    product: str
    platform: str
    architectures: tuple[str, ...]
    version: str
    build: str
    #: the baseline's tree digest, hex
    baseline: str
    #: public keys (PEM) and how many of them must have signed
    trust: tuple[str, ...]
    threshold: int
    #: "auto", or what the user insists on
    strategy: str
    created: str


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One complete tree that was, is or may become live."""

    number: int
    product: str
    version: str
    letter: str
    build: str
    #: tree digest, hex
    tree: str
    #: how its untouched files were brought in
    strategy: str
    #: the generation it was built from
    base: int | None
    #: the generation that was live when it was activated
    previous: int | None
    #: SHA-256 of the manifest, hex; None for the baseline
    manifest: str | None
    #: where the update file, or the baseline tree, came from
    source: str
    created: str

    @property
    def display(self) -> str:
        """For people: "26.3.1 (a)"; the letter never enters the version field."""
        return f"{self.version} ({self.letter})" if self.letter else self.version


class Pending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An activation under way: recovery finishes it or throws `new` away."""

    new: int
    old: int
    source: str
    started: str


Record = TypeVar("Record", Identity, Generation, Pending)


def now() -> str:
    """This moment in UTC, to the millisecond, as the records hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(record: msgspec.Struct) -> bytes:
    """Canonical bytes: sorted keys, one line for each."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1) + b"\n"


def read(kind: type[Record], name: str, *, dir_fd: int, limits: Limits, file: str) -> Record:
    """Reads one record; `file` is its path, for messages.

    Raises NotFoundError, StoreDamagedError, SystemCallError.
    """
    with durable.system_calls(f"no readable {name.rpartition('/')[2]}", file):
        data = durable.read_file(name, dir_fd=dir_fd, limit=limits.max_record)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"unreadable record: {error}", file=file) from error


def generation_name(number: int) -> str:
    """Path of a generation below the store."""
    return f"{GENERATIONS}/{number}"


def live_number(root_fd: int, file: str) -> int:
    """Which generation `current` points to. Raises StoreDamagedError, NotFoundError."""
    try:
        target = os.readlink(CURRENT, dir_fd=root_fd)
    except FileNotFoundError as error:
        raise StoreDamagedError("no live generation: `current` is missing", file=file) from error
    except OSError as error:
        raise StoreDamagedError("`current` is not a link", file=file) from error
    folder, _, number = target.rpartition("/")
    if folder != GENERATIONS or not _is_number(number):
        raise StoreDamagedError("`current` points out of the store", file=file, found=target)
    return int(number)


def generation_numbers(root_fd: int) -> list[int]:
    """The finished generations, ascending; stages and strangers are left out."""
    fd = os.open(GENERATIONS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        return sorted(int(name) for name in os.listdir(fd) if _is_number(name))
    finally:
        os.close(fd)


def leftovers(root_fd: int) -> list[str]:
    """Paths below the store that an interrupted run has left, and nobody needs."""
    found: list[str] = []
    for folder in (".", GENERATIONS):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
            try:
                prefix = "" if folder == "." else f"{folder}/"
                found += [prefix + name for name in os.listdir(fd) if name.endswith(STAGE_SUFFIX)]
            finally:
                os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.stat(TRASH, dir_fd=root_fd, follow_symlinks=False)
        found.append(TRASH)
    return sorted(found)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10 and str(int(name)) == name
