"""What the store writes down: its identity, its generations, its unfinished business.

::

    STORE/
      store.json                 Identity; written last by init, so a store is whole or none
      lock                       see lock.py
      current -> generations/1   the one pointer; the live tree is STORE/current/tree
      pending.json               Pending, only while the pointer is being moved; see moving.py
      moved.json                 the Pending of a move that is done, until the next writer has
                                 put what it means where it belongs; see moving.py
      trial.json                 Trial, only while the live generation is on trial
      bars.json                  Bars, the improvements that are not wanted again; see bars.py
      health.toml                written by people: checks of this device; see policy.py
      repairing.json             Repairing, only while trees are being repaired
      history.jsonl              see history.py
      generations/
        0/                       the baseline, never deleted
          generation.json        Generation
          tree.json              the baseline's entries, canonical
          tree/                  the files
        1/
          generation.json
          envelope.dsse          the signed manifest, as it was accepted
          unproven               empty; there until the generation has passed its trial
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
from typing import Literal, TypeAlias, TypeVar

import msgspec

from ..errors import StoreDamagedError
from ..limits import Limits
from . import durable

IDENTITY = "store.json"
CURRENT = "current"
PENDING = "pending.json"
MOVED = "moved.json"
TRIAL = "trial.json"
REPAIRING = "repairing.json"
BARS = "bars.json"
GENERATIONS = "generations"
TRASH = "trash"
TREE = "tree"
GENERATION = "generation.json"
BASELINE_ENTRIES = "tree.json"
ENVELOPE = "envelope.dsse"
UNPROVEN = "unproven"
STAGE_SUFFIX = ".tmp"
#: how a name in a tree begins that only lasts while something is repaired; it ends as a stage's
REPAIR_PREFIX = ".bsipatch-repair."
#: where `current` of a component leads, followed by its name; see grouped.py
IN_GROUP = "../../live/"

FORMAT = 1
BASELINE = 0

#: why an improvement is not wanted again; see Bar
Why: TypeAlias = Literal["health", "starts", "owner", "publisher"]


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


class Start(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the newest start of the machine came with a generation that is on trial.

    boot   the kernel's id of that start; "" where there is none
    phase  applied  no restart since the generation went live
           begun    the start began, the managed programs do not run yet
           running  the managed programs were about to be started
           ended    the machine was shut down in good order
    """

    boot: str
    phase: Literal["applied", "begun", "running", "ended"]


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One component of a group's transaction: it goes from generation `old` to `new`."""

    name: str
    old: int
    new: int


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The live generation has yet to prove itself.

    number  the generation on trial
    old     the good one that is live again when it fails
    scope   relaunch: its checks are due at once; restart: after the next start
    tries   starts that it may still fail
    blips   starts that may still end for other reasons without costing a try
    group   the components that were updated with it, itself included: they go back together
    """

    number: int
    old: int
    scope: Literal["relaunch", "restart"]
    tries: int
    blips: int
    start: Start
    since: str
    group: tuple[Member, ...] = ()


class Bar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An improvement that is not wanted again.

    why: "health" (a check failed) and "starts" (the machine did not come up) hold it back from
    everybody, "owner" (reverted on purpose) only from what installs by itself, "publisher" is a
    withdrawal.
    """

    manifest: str
    product: str
    version: str
    letter: str
    build: str
    why: Why
    reason: str
    #: who did it, for people
    by: str
    time: str

    @property
    def display(self) -> str:
        """For people: "26.3.1 (a)"."""
        return f"{self.version} ({self.letter})" if self.letter else self.version


class Bars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every bar, oldest first, at most one for a manifest."""

    format: int
    bars: tuple[Bar, ...]


class Pending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A move of the pointer under way: recovery finishes it or undoes it; see moving.py.

    verb   apply, revert (one back), remove (to the baseline), back (a trial failed)
    state  intent: `new` is being built; ready: `new` is whole and the pointer may move
    trial  what the move begins, None when `new` is good as it is
    bars   what the move puts on the list
    group  the components whose pointers move in the same step, itself included
    """

    new: int
    old: int
    source: str
    started: str
    verb: Literal["apply", "revert", "remove", "back"] = "apply"
    state: Literal["intent", "ready"] = "ready"
    trial: Trial | None = None
    bars: tuple[Bar, ...] = ()
    reason: str = ""
    by: str = ""
    group: tuple[Member, ...] = ()


class Repairing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The generations whose trees are being repaired; see repairing.py."""

    generations: tuple[int, ...]


Record = TypeVar("Record", Identity, Generation, Pending, Trial, Bars, Repairing)


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
        name = group_name(target)
        if name is not None:
            target = os.readlink(target, dir_fd=root_fd).removeprefix(f"../../components/{name}/")
    except FileNotFoundError as error:
        raise StoreDamagedError(
            "no live generation: `current` is missing",
            file=file,
            hint="`bsipatch recover` makes it again, where the history knows what was live.",
        ) from error
    except OSError as error:
        raise StoreDamagedError("`current` is not a link", file=file) from error
    folder, _, number = target.rpartition("/")
    if folder != GENERATIONS or not _is_number(number):
        raise StoreDamagedError("`current` points out of the store", file=file, found=target)
    return int(number)


def has_pointer(root_fd: int) -> bool:
    """Whether `current` is there, whatever it is."""
    try:
        os.stat(CURRENT, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def group_name(target: str) -> str | None:
    """A component's name, from where its `current` leads; None for a store of its own."""
    name = target.removeprefix(IN_GROUP)
    return name if name != target and name and "/" not in name and name != ".." else None


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
