"""Results as data: what was measured, on which machine, by which versions; raw, one run a row."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bsipatch.errors import CorruptError, MagicError, VersionError, from_os_error

FORMAT = "bsipatch-bench"
VERSION = 1


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran. Memory in bytes."""

    system: str
    processor: str
    cores: int  #: that this process may use
    memory: int
    file_system: str
    python: str
    load: float  #: processes waiting to run when it began


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One contender, present or missing."""

    name: str
    label: str
    version: str
    missing: str = ""
    verifies: str = ""
    durable: bool = False
    ours: bool = False


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two files. Sizes in bytes."""

    name: str
    kind: str
    old_size: int
    new_size: int
    series: str = "files"  #: files, size, share, store
    share: float | None = None  #: of a generated pair, how much of it changed
    nominal: int | None = None  #: of a generated pair, the size asked for


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Seconds and bytes; None where unknown."""

    task: str  #: diff, apply, limit; start; build, init, stage, activate, revert
    pair: str
    contender: str
    repeat: int
    jobs: int
    seconds: float
    sync: float | None = None  #: seconds until what was written was on storage too
    cpu: float | None = None
    private: int | None = None
    rss: int | None = None
    written: int | None = None
    faults: int | None = None
    switches: int | None = None
    size: int | None = None  #: of the patch or the file made

    @property
    def durable(self) -> float:
        """Seconds until the result would survive a power cut."""
        return self.seconds + (self.sync or 0.0)


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """What was not measured, and why."""

    pair: str
    contender: str
    reason: str


class Results(msgspec.Struct, kw_only=True):
    """Everything of one call of the bench."""

    format: str = FORMAT
    version: int = VERSION
    date: str
    commit: str
    machine: Machine
    contenders: list[Program]
    pairs: list[Pair] = []
    runs: list[Run] = []
    skipped: list[Skipped] = []
    phases: dict[str, dict[str, float]] = {}  #: "pair/contender/task" -> phase -> seconds

    def save(self, path: Path) -> None:
        """Replaces the file in one step."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        temporary.replace(path)

    def has(self, pair: str) -> bool:
        """Whether a pair was measured, by its name."""
        return any(one.name == pair for one in self.pairs)

    def program(self, name: str) -> Program:
        """A contender by name."""
        return next(one for one in self.contenders if one.name == name)

    def select(
        self, task: str, pair: str, contender: str | None = None, jobs: int | None = None
    ) -> list[Run]:
        """The runs of one task on one pair."""
        return [
            run
            for run in self.runs
            if run.task == task
            and run.pair == pair
            and (contender is None or run.contender == contender)
            and (jobs is None or run.jobs == jobs)
        ]


def load(path: Path) -> Results:
    """Reads results. Raises: NotFoundError, SystemCallError, MagicError, VersionError,
    CorruptError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        told = msgspec.json.decode(raw)
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise MagicError("not results of the bench", file=path)
        if told.get("version") != VERSION:
            raise VersionError("results", file=path, expected=VERSION, found=told.get("version"))
        return msgspec.convert(told, Results)
    except msgspec.MsgspecError as error:
        raise CorruptError(str(error), file=path) from error


def median(values: Iterable[float | int | None]) -> float | None:
    """Of those that are known; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Least and greatest of those that are known."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values, at least one."""
    return statistics.geometric_mean(values)
