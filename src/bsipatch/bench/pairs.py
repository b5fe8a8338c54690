"""The tasks on two files: make patches, apply them, and find the machine's limit, interleaved."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bsipatch.bench import measure
from bsipatch.bench.contenders import Contender
from bsipatch.bench.measure import Cost, RunError
from bsipatch.bench.results import Pair, Results, Run, Skipped
from bsipatch.errors import from_os_error

LIMIT = "limit"
TASKS = ("diff", "apply", "limit")
#: one command may take so many seconds at most
TIMEOUT = 7200.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure.

    budget: seconds; once a contender's diffs of one pair have taken longer, it makes no
    more of them there (its applies go on with the patch it has).  keep: called whenever a
    pair is done.
    """

    repeat: int = 3
    jobs: tuple[int, ...] = (1,)
    budget: float = 60.0
    tasks: tuple[str, ...] = TASKS
    uncapped: bool = False
    work: Path = Path()
    say: Callable[[str], None] = field(default=lambda words: None)
    keep: Callable[[], None] = field(default=lambda: None)


def describe(old: Path, new: Path, *, name: str | None = None, kind: str | None = None) -> Pair:
    """Two files as a pair. Raises: NotFoundError, SystemCallError."""
    try:
        sizes = [path.stat().st_size for path in (old, new)]
        found = kind or sniff(old)
    except OSError as error:
        raise from_os_error(error, Path(error.filename or old)) from error
    return Pair(name=name or new.name, kind=found, old_size=sizes[0], new_size=sizes[1])


_MAGICS = {
    b"\x7fELF": "elf",
    b"\xcf\xfa\xed\xfe": "macho",
    b"\xca\xfe\xba\xbe": "macho",
    b"\xca\xfe\xba\xbf": "macho",
}


def sniff(path: Path) -> str:
    """The kind of a file by its first bytes: elf, macho, pe or resource."""
    with path.open("rb") as file:
        head = file.read(4)
    return "pe" if head[:2] == b"MZ" else _MAGICS.get(head, "resource")


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(1 << 20):
            if piece != second.read(1 << 20):
                return False
    return True


def run_pair(
    pair: Pair,
    old: Path,
    new: Path,
    contenders: Sequence[Contender],
    plan: Plan,
    results: Results,
) -> None:
    """Adds the pair and its runs to the results, unless they hold it already.

    In every repetition each contender has its turn, beginning with another one each
    time, so that what else the machine does hits all of them.
    """
    if results.has(pair.name):
        return
    results.pairs.append(pair)
    for jobs in plan.jobs:
        turns = [_Turn(one, pair, old, new, jobs, plan, results) for one in contenders]
        turns = [turn for turn in turns if turn.takes_part()]
        for repeat in range(plan.repeat):
            shift = repeat % len(turns) if turns else 0
            for turn in turns[shift:] + turns[:shift]:
                turn.take(repeat)
            if "limit" in plan.tasks and jobs == plan.jobs[0]:
                _limit(pair, old, repeat, plan, results)
        for turn in turns:
            turn.clean()
    plan.keep()


class _Turn:
    """One contender on one pair."""

    def __init__(
        self,
        contender: Contender,
        pair: Pair,
        old: Path,
        new: Path,
        jobs: int,
        plan: Plan,
        results: Results,
    ) -> None:
        self.contender, self.pair, self.old, self.new = contender, pair, old, new
        self.jobs, self.plan, self.results = jobs, plan, results
        self.patch = plan.work / f"{contender.name}.patch"
        self.out = plan.work / f"{contender.name}.new"
        self.spent = 0.0
        self.failed = False

    def takes_part(self) -> bool:
        """Whether it does; says so in the results when not."""
        reason = self.contender.missing()
        if not reason and not self.plan.uncapped:
            pair = self.pair
            reason = self.contender.declined(pair.old_size, pair.new_size, pair.kind)
        if not reason and self.jobs != self.plan.jobs[0] and not self.contender.parallel:
            return False
        if reason:
            self._skip(reason)
        return not reason

    def take(self, repeat: int) -> None:
        """One diff and one apply, checked."""
        if self.failed:
            return
        made = self.patch.exists()
        if not made or ("diff" in self.plan.tasks and self.spent < self.plan.budget):
            self._diff(repeat)
        if "apply" in self.plan.tasks and not self.failed:
            self._apply(repeat)

    def clean(self) -> None:
        self.patch.unlink(missing_ok=True)

    def _diff(self, repeat: int) -> None:
        self.patch.unlink(missing_ok=True)
        steps = self.contender.make(self.old, self.new, self.patch, self.jobs)
        cost = self._run("diff", steps, watch=True)
        if cost is None:
            return
        self.spent += cost.seconds
        size = self.patch.stat().st_size
        if "diff" in self.plan.tasks:
            self._record("diff", repeat, cost, size=size)

    def _apply(self, repeat: int) -> None:
        self.out.unlink(missing_ok=True)
        steps = self.contender.apply(self.old, self.patch, self.out, self.jobs)
        cost = self._run("apply", steps, watch=False)
        if cost is None:
            return
        began = time.perf_counter()
        fd = os.open(self.out, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        sync = time.perf_counter() - began
        if not same(self.new, self.out):
            self._fail("apply made another file")
            return
        self.out.unlink()
        # Once more for its memory: what watching takes is not to be in the time.
        watched = self._run("apply", steps, watch=True)
        if watched is None:
            return
        cost = replace(cost, private=watched.private)
        self._record("apply", repeat, cost, sync=sync, size=self.out.stat().st_size)
        self.out.unlink()

    def _run(self, task: str, steps: Sequence[Sequence[str]], *, watch: bool) -> Cost | None:
        try:
            costs = [measure.run(step, timeout=TIMEOUT, watch=watch)[0] for step in steps]
        except RunError as error:
            self._fail(f"{task}: {error}")
            return None
        return measure.total(costs)

    def _record(
        self, task: str, repeat: int, cost: Cost, *, size: int, sync: float | None = None
    ) -> None:
        run = Run(
            task=task,
            pair=self.pair.name,
            contender=self.contender.name,
            repeat=repeat,
            jobs=self.jobs,
            seconds=round(cost.seconds, 6),
            sync=None if sync is None else round(sync, 6),
            cpu=round(cost.cpu, 6),
            private=cost.private,
            rss=cost.rss,
            written=cost.written,
            faults=cost.faults,
            switches=cost.switches,
            size=size,
        )
        self.results.runs.append(run)
        self.plan.say(
            f"{self.pair.name}  {self.contender.name}  {task} #{repeat + 1}  "
            f"{cost.seconds:.3f} s  {size:,} bytes"
        )

    def _fail(self, reason: str) -> None:
        self.failed = True
        self._skip(f"failed: {reason}")
        for path in (self.patch, self.out):
            path.unlink(missing_ok=True)

    def _skip(self, reason: str) -> None:
        self.plan.say(f"{self.pair.name}  {self.contender.name}  skipped: {reason}")
        skipped = Skipped(pair=self.pair.name, contender=self.contender.name, reason=reason)
        if skipped not in self.results.skipped:
            self.results.skipped.append(skipped)


def _limit(pair: Pair, old: Path, repeat: int, plan: Plan, results: Results) -> None:
    """The machine's limit for an apply, by the best of the known ways."""
    script = str(Path(__file__).with_name("roofline.py"))
    out = plan.work / "limit.new"
    command = (sys.executable, "-P", script, str(old), str(pair.new_size), str(out))
    try:
        _, printed = measure.run(command, timeout=TIMEOUT, watch=False)
    except RunError as error:
        results.skipped.append(Skipped(pair=pair.name, contender=LIMIT, reason=str(error)))
        return
    finally:
        out.unlink(missing_ok=True)
    ways: dict[str, list[float]] = json.loads(printed)
    for way, (seconds, durable) in sorted(ways.items()):
        results.runs.append(
            Run(
                task=LIMIT,
                pair=pair.name,
                contender=way,
                repeat=repeat,
                jobs=plan.jobs[0],
                seconds=round(seconds, 6),
                sync=round(durable - seconds, 6),
                size=pair.new_size,
            )
        )
    best = min(seconds for seconds, _ in ways.values())
    plan.say(f"{pair.name}  the machine's limit #{repeat + 1}  {best:.3f} s")
