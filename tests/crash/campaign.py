"""Records operations, replays their crash states in several processes, and counts.

A *case* is one recorded operation on one file system.  Recovery is recorded as
well: from crash states in which it had something to do, and once more from
crash states of those recordings.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import msgspec

from . import disk, identity, machine, modelled, states
from .disk import Image, Log, State
from .judging import Expect, Verdict, judge, recover, repair
from .kit import Kit, make_kit
from .machine import Kind
from .recording import RecordingDisk
from .scenarios import Act, Scenario

#: what is recorded, given where, and what it calls when it reports a first success of several
Recorded: TypeAlias = Callable[[Path, Callable[[], None]], object]

#: every so many states the store is also worked with afterwards
_USE_EVERY = 8
_PIPE_CHUNK = 1 << 16


@dataclass(frozen=True)
class Case:
    """One recording and what may be found in its crash states."""

    kind: Kind
    name: str
    log: Log
    expect: Expect
    #: where it was mounted, and is again: a live path that is a directory is known by its path
    place: str


class Finding(msgspec.Struct, frozen=True):
    """One crash state and what became of it."""

    state: State
    verdict: Verdict


class Failure(msgspec.Struct, frozen=True):
    """All that is needed to look at one state again."""

    kind: str
    name: str
    log: Log
    expect: Expect
    state: State
    verdict: Verdict
    #: signed with keys that the store on the disk trusts
    updates: dict[str, bytes]
    place: str


@dataclass
class Tally:
    """Counts of one case."""

    case: str
    file_system: str
    steps: int = 0
    flushes: int = 0
    states: int = 0
    torn_writes: int = 0
    after_success: int = 0
    recovered: int = 0
    live: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, finding: Finding, log: Log) -> None:
        """Counts one state."""
        state, verdict = finding.state, finding.verdict
        self.states += 1
        self.torn_writes += state.is_torn
        self.after_success += succeeded(log, state)
        if verdict.damaged:
            self.damaged.append(f"{state}: {verdict.why}")
        elif verdict.ok:
            self.recovered += verdict.did > 0
            name = verdict.live or "baseline"
            self.live[name] = self.live.get(name, 0) + 1
        else:
            self.failed.append(f"{state}: {verdict.why}")

    def summary(self) -> dict[str, object]:
        """As JSON wants it."""
        return {
            "file_system": self.file_system,
            "operation": self.case,
            "steps": self.steps,
            "flushes": self.flushes,
            "states": self.states,
            "torn_writes": self.torn_writes,
            "after_success": self.after_success,
            "recovered": self.recovered,
            "live": dict(sorted(self.live.items())),
            "file_system_damaged": len(self.damaged),
            "failed": len(self.failed),
            "reasons": (self.failed + self.damaged)[:5],
            "seconds": round(self.seconds, 1),
        }


def succeeded(log: Log, state: State) -> bool:
    """Whether success had been reported when the power went."""
    return log.success is not None and state.at >= log.success


def halfway(log: Log, state: State) -> bool:
    """Whether the first success of several had been reported when the power went."""
    return succeeded(log, state) or (log.midway is not None and state.at >= log.midway)


class Bench:
    """One file system's recorder and the folder it works in. Needs private_mounts() first."""

    def __init__(self, kind: Kind, folder: Path, kit: Kit) -> None:
        self.kind, self.kit, self.folder = kind, kit, folder
        self._disk: RecordingDisk | None = None
        self._images: dict[tuple[Act, ...], Image] = {}
        self._place = folder / "place"
        self._place.mkdir(exist_ok=True)

    def close(self) -> None:
        """Ends the recorder."""
        if self._disk is not None:
            self._disk.close()

    def prepared(self, acts: tuple[Act, ...]) -> Image:
        """A file system on which these acts have been done, cleanly unmounted."""
        if acts not in self._images:
            path = self.folder / "template"
            if acts:
                before = self.prepared(acts[:-1])
                with path.open("wb") as file:
                    disk.lay_out(file.fileno(), before, ())
            else:
                machine.make_file_system(self.kind, path)
            fd, device = machine.attach(str(path))
            try:
                with machine.mounted(device, self._place, self.kind):
                    if acts:
                        acts[-1](self.kit, self._place)
            finally:
                os.close(fd)
            self._images[acts] = disk.read_image(path)
            path.unlink()
        return self._images[acts]

    def record(self, scenario: Scenario) -> Case:
        """Does the operation once, in a process of its own."""
        image = self.prepared(scenario.prepare)
        log = self._record(
            image, lambda place, report: scenario.act(replace(self.kit, report=report), place)
        )
        return Case(self.kind, scenario.name, log, Expect.of(scenario), str(self._place))

    def record_recovery(self, case: Case, finding: Finding) -> Case:
        """Recovers one crash state of `case`, and keeps what that did to the disk."""
        image = self._image_of(case.log, finding.state)

        def again(place: Path, _: Callable[[], None]) -> None:
            recover(place)
            if case.expect.mends:
                repair(self.kit, place)

        log = self._record(image, again)
        state = finding.state
        allowed = case.expect.allowed(succeeded(case.log, state))
        midway = case.expect.midway if halfway(case.log, state) else ""
        told = (midway,) if midway else ()
        expect = Expect(allowed, finding.verdict.live, mends=case.expect.mends, told=told)
        return Case(self.kind, f"recovery of {case.name}", log, expect, case.place)

    def _record(self, image: Image, act: Recorded) -> Log:
        if self._disk is None:
            folder = self.folder / "recorder"
            folder.mkdir()
            self._disk = RecordingDisk(folder, self._place, self.kind.size)
        with self._disk.recorded(image, self.kind) as place:
            *midway, success = _in_child(self._disk, place, act)
            fd = os.open(place, os.O_RDONLY)
            try:
                machine.sync_file_system(fd)
            finally:
                os.close(fd)
            upto = self._disk.position()
        log = self._disk.log(upto, success)
        return msgspec.structs.replace(log, midway=midway[0]) if midway else log

    def _image_of(self, log: Log, state: State) -> Image:
        path = self.folder / "template"
        with path.open("w+b") as file:
            disk.lay_out(file.fileno(), log.base, disk.writes_of(log, state))
        try:
            return disk.read_image(path)
        finally:
            path.unlink()


def _in_child(recorder: RecordingDisk, place: Path, act: Recorded) -> list[int]:
    """Runs `act` in a child; how many steps the disk had seen whenever it reported a success.

    The last is that of the whole.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:

        def report() -> None:
            os.write(write, f"{recorder.position()} ".encode())

        try:
            act(place, report)
            report()
            os._exit(0)
        except BaseException as error:
            import traceback

            traceback.print_exc()
            os.write(write, f"!{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    if not told or "!" in told:
        why = told.partition("!")[2] or "no answer"
        raise RuntimeError(f"the operation to be recorded failed: {why}")
    return [int(number) for number in told.split()]


class Replayer:
    """Builds crash states of one case and judges them, in this process."""

    def __init__(self, case: Case, folder: Path, kit: Kit) -> None:
        self._case, self._kit = case, kit
        self._path, self._place = folder / f"image.{os.getpid()}", Path(case.place)
        self._file = self._path.open("w+b")
        self._file.truncate(case.kind.size)
        self._loop, self._device = machine.attach(str(self._path))
        self._uuid = os.urandom(16)

    def close(self) -> None:
        """Lets go of the loop device and the image."""
        os.close(self._loop)
        self._file.close()
        self._path.unlink()

    def look(self, state: State, *, use: bool) -> Finding:
        """One crash state: build, mount, recover, judge."""
        case = self._case
        disk.lay_out(self._file.fileno(), case.log.base, disk.writes_of(case.log, state))
        if case.kind.name == "btrfs":
            identity.rename_btrfs(self._file.fileno(), self._uuid)
        machine.forget(self._loop)
        try:
            machine.mount(self._device, self._place, case.kind)
        except OSError as error:
            return Finding(state, Verdict(False, why=f"does not mount: {error}", damaged=True))
        try:
            verdict = judge(
                self._kit,
                self._place,
                case.expect,
                succeeded=succeeded(case.log, state),
                midway=halfway(case.log, state),
                use=use,
            )
        finally:
            machine.umount(self._place)
        return Finding(state, verdict)


def replay(
    case: Case, chosen: list[State], folder: Path, kit: Kit, *, jobs: int
) -> Generator[Finding, None, None]:
    """Judges the states in `jobs` processes; findings come in no particular order."""
    share = [chosen[index::jobs] for index in range(jobs)]
    workers = []
    for mine in filter(None, share):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                machine.die_with_parent()
                machine.private_mounts()
                _work(case, mine, folder, kit, write)
                code = 0
            os._exit(code)
        os.close(write)
        workers.append((child, read))
    try:
        for child, read in workers:
            count = 0
            with os.fdopen(read, "rb") as pipe:
                for line in pipe:
                    count += 1
                    yield msgspec.json.decode(line, type=Finding)
            if os.waitpid(child, 0)[1] != 0:
                raise RuntimeError(f"a replaying process ended after {count} states")
    except BaseException:  # a caller that has seen enough closes the generator
        for child, read in workers:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            with contextlib.suppress(OSError):
                os.close(read)
        raise


def _work(case: Case, mine: list[State], folder: Path, kit: Kit, out: int) -> None:
    import traceback

    try:
        replayer = Replayer(case, folder, kit)
        for number, state in enumerate(mine):
            finding = replayer.look(state, use=number % _USE_EVERY == 0)
            os.write(out, msgspec.json.encode(finding) + b"\n")
        replayer.close()
    except BaseException:
        traceback.print_exc()
        raise


def run_case(
    case: Case, budget: int, folder: Path, kit: Kit, *, seed: int, jobs: int
) -> tuple[Tally, list[Finding]]:
    """Chooses, replays and counts the states of one case."""
    began = time.monotonic()
    log = case.log
    tally = Tally(case.name, case.kind.name, steps=len(log.steps))
    tally.flushes = sum(step.kind == "flush" for step in log.steps)
    findings = []
    for finding in replay(
        case, states.choose(log, case.kind, budget, seed), folder, kit, jobs=jobs
    ):
        tally.add(finding, log)
        findings.append(finding)
    tally.seconds = time.monotonic() - began
    return tally, sorted(findings, key=lambda found: found.state)


def run(
    kind: Kind,
    scenarios: list[Scenario],
    *,
    budget: int,
    recoveries: int,
    seed: int,
    jobs: int,
    told: Callable[[Tally], None],
    failed: Callable[[Case, Finding, Kit], None],
) -> list[Tally]:
    """Everything on one file system: operations, recovery, and recovery of recovery.

    budget: states of each case. recoveries: of how many crash states of each operation recovery
    is recorded; each of those gets a share of `budget`, and so does the next depth.
    """
    tallies: list[Tally] = []
    with machine.memory_folder() as folder:
        kit = make_kit(folder / "kit")
        bench = Bench(kind, folder, kit)

        def do(case: Case, states_of_it: int, mark: int) -> list[Finding]:
            tally, findings = run_case(case, states_of_it, folder, kit, seed=seed + mark, jobs=jobs)
            tallies.append(tally)
            told(tally)
            for finding in findings:
                if not finding.verdict.ok:
                    failed(case, finding, kit)
            return findings

        try:
            for scenario in scenarios:
                case = bench.record(scenario)
                share = max(1, round(budget * scenario.share))
                layer = [(case, do(case, share, 0))]
                for depth in (1, 2):
                    layer = [
                        (again, do(again, max(1, share // max(1, recoveries)), depth))
                        for again in _recoveries(bench, layer, recoveries, seed + depth)
                    ]
        finally:
            bench.close()
    return tallies


def run_modelled(
    scenarios: list[Scenario], *, budget: int, seed: int, told: Callable[[Tally], None]
) -> list[Tally]:
    """The operations on the file system of model.py; needs no root."""
    tallies = []
    with machine.memory_folder() as folder:
        kit = make_kit(folder / "kit")
        for scenario in scenarios:
            if not scenario.modelled:
                continue
            began = time.monotonic()
            share = max(1, round(budget * scenario.share))
            found = modelled.run(kit, scenario, folder, seed=seed, budget=share)
            tally = Tally(scenario.name, "model", states=found.states, recovered=found.recovered)
            tally.after_success = found.after_success
            tally.failed = [*found.failed, found.broke] if found.broke else found.failed
            tally.seconds = time.monotonic() - began
            tallies.append(tally)
            told(tally)
    return tallies


def _recoveries(
    bench: Bench, layer: list[tuple[Case, list[Finding]]], count: int, seed: int
) -> list[Case]:
    """Recordings of recovery from states in which it had something to do."""
    busy = [
        (case, finding)
        for case, findings in layer
        for finding in findings
        if finding.verdict.ok and finding.verdict.did
    ]
    # the more recovery had to do the better; equal ones by chance
    draw = random.Random(seed)
    draw.shuffle(busy)
    busy.sort(key=lambda item: -item[1].verdict.did)
    return [bench.record_recovery(case, finding) for case, finding in busy[:count]]
