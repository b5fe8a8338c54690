"""Bench results for a terminal."""

from __future__ import annotations

from bsipatch.bench.results import Results
from bsipatch.report import _bench_figures as figs
from bsipatch.report import _bench_tables as tables
from bsipatch.report._bench_words import count, seconds, size


def lines(results: Results) -> list[str]:
    """A table for each pair, the limit, and who took no part."""
    found: list[str] = []
    for pair in figs.series(results, "files"):
        if not tables.rows(results, pair):
            continue
        found += [f"{pair.name}: {pair.kind}, {pair.new_size:,} bytes", ""]
        found += tables.lines(results, pair)
        limit = figs.limit(results, pair)
        if limit:
            line = (
                f"The machine's limit for an apply, read and hash old, write and hash new: "
                f"{seconds(limit[0])}, {seconds(limit[1])} with the sync."
            )
            found += ["", line]
        found.append("")
    for one in results.contenders:
        if one.missing:
            found.append(f"{one.label} is missing: {one.missing}")
    for skipped in results.skipped:
        named = [one for one in results.contenders if one.name == skipped.contender]
        if not named or skipped.reason != named[0].missing:
            label = named[0].label if named else skipped.contender
            found.append(f"{label} skipped {skipped.pair}: {skipped.reason}")
    machine = results.machine
    found.append(
        f"{machine.processor}, {count(machine.cores, 'core')}, {size(machine.memory)}, "
        f"{machine.file_system}; commit {results.commit}."
    )
    return found
