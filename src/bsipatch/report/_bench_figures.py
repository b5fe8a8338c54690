"""What the views of bench results show: medians, spreads, ratios; computed once, from raw runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bsipatch.bench.results import Pair, Program, Results, Run, geometric_mean, median, spread


@dataclass(frozen=True, slots=True)
class Figure:
    """One contender's medians in one task on one pair. Seconds and bytes."""

    pair: Pair
    program: Program
    jobs: int
    count: int
    seconds: float
    range: tuple[float, float]
    durable: float
    cpu: float | None
    private: float | None
    written: float | None
    size: int

    @property
    def rate(self) -> float:
        """Bytes of the new file a second, until they are durable."""
        return self.pair.new_size / self.durable


def figure(results: Results, task: str, pair: Pair, program: Program, jobs: int) -> Figure | None:
    """Medians of the runs; None without any."""
    runs = results.select(task, pair.name, program.name, jobs)
    if not runs:
        return None
    return Figure(
        pair=pair,
        program=program,
        jobs=jobs,
        count=len(runs),
        seconds=median(run.seconds for run in runs) or 0.0,
        range=spread(run.seconds for run in runs) or (0.0, 0.0),
        durable=median(run.durable for run in runs) or 0.0,
        cpu=median(run.cpu for run in runs),
        private=median(run.private for run in runs),
        written=median(run.written for run in runs),
        size=int(median(run.size for run in runs) or 0),
    )


def main_jobs(results: Results, pair: Pair) -> int:
    """The number of jobs that a pair was measured with first."""
    return next((run.jobs for run in results.runs if run.pair == pair.name), 1)


def figures(results: Results, task: str, pair: Pair) -> list[Figure]:
    """Every contender's figure in a task, in the contenders' order."""
    jobs = main_jobs(results, pair)
    found = (figure(results, task, pair, one, jobs) for one in results.contenders)
    return [one for one in found if one is not None]


def limit(results: Results, pair: Pair) -> tuple[float, float] | None:
    """The machine's limit for an apply: seconds, and seconds until durable.

    Of each repetition the best way counts, and of these the median.
    """
    best: dict[int, Run] = {}
    safest: dict[int, Run] = {}
    for run in results.select("limit", pair.name):
        if run.repeat not in best or run.seconds < best[run.repeat].seconds:
            best[run.repeat] = run
        if run.repeat not in safest or run.durable < safest[run.repeat].durable:
            safest[run.repeat] = run
    plain = median(run.seconds for run in best.values())
    durable = median(run.durable for run in safest.values())
    return None if plain is None or durable is None else (plain, durable)


def series(results: Results, name: str) -> list[Pair]:
    """The pairs of a series, by size."""
    found = [pair for pair in results.pairs if pair.series == name]
    return sorted(found, key=lambda pair: pair.new_size)


def means(results: Results, pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """Of each contender that made a patch of every one of the pairs: geometric means of
    patch size as a share of the new file, and of seconds for each MB of the new file."""
    found: dict[str, tuple[float, float]] = {}
    for program in results.contenders:
        rows = [
            one
            for pair in pairs
            for one in [figure(results, "diff", pair, program, main_jobs(results, pair))]
            if one is not None and one.size and one.seconds
        ]
        if pairs and len(rows) == len(pairs):
            found[program.name] = (
                geometric_mean(one.size / one.pair.new_size for one in rows),
                geometric_mean(one.seconds / (one.pair.new_size / 1e6) for one in rows),
            )
    return found
