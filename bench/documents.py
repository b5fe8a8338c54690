"""Puts what was measured into the documentation, between markers.

A document has ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->`` on lines of their own; what
lies between is replaced by what NAME stands for below, or kept where nothing is published yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench import sizes
from bsipatch.bench.results import Results, load, median
from bsipatch.report import _bench_figures as figs
from bsipatch.report import _bench_tables as tables
from bsipatch.report._bench_words import count, seconds, size, times

DOCS = Path(__file__).parents[1] / "docs"
PUBLISHED = sizes.RESULTS / "published-run.json"
_MARKED = re.compile(
    r"^(<!-- bench:([a-z-]+) -->\n)(.*?)^(<!-- /bench:\2 -->)$", re.MULTILINE | re.DOTALL
)


class MarkerError(Exception):
    """A document names something that there is not."""


View = Callable[[], list[str] | None]


def size_table() -> list[str] | None:
    """The public pairs, profile max and what else was made."""
    made = sizes.Sizes.load(sizes.PUBLISHED)
    if made is None:
        return None
    return [*sizes.markdown(made), "", f"Made at commit {made.commit} by `python -m bench sizes`."]


def _published(view: Callable[[Results], list[str]]) -> View:
    def lines() -> list[str] | None:
        return view(load(PUBLISHED)) if PUBLISHED.exists() else None

    return lines


def machine_line(results: Results) -> list[str]:
    """Where and when."""
    machine = results.machine
    line = (
        f"{machine.processor}, {count(machine.cores, 'core')}, {size(machine.memory)} of memory, "
        f"{machine.file_system}, {machine.system}, Python {machine.python}; "
        f"commit {results.commit}, {results.date[:10]}; load {machine.load} when it began."
    )
    return [line]


def pair_tables(results: Results) -> list[str]:
    """The largest pairs, every contender."""
    found: list[str] = []
    for pair in figs.series(results, "files")[-3:][::-1]:
        found += [f"**{pair.name}**, {pair.kind}, {pair.new_size:,} bytes:", ""]
        found += [*tables.markdown(results, pair), ""]
    return found[:-1]


def limit_table(results: Results) -> list[str]:
    """Every pair's apply against the limit."""
    found = [
        "| pair | new | limit | durable | bsipatch | × limit | rate | memory | HDiffPatch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in figs.series(results, "files"):
        limit = figs.limit(results, pair)
        applies = figs.figures(results, "apply", pair)
        ours = [one for one in applies if one.program.ours]
        if not limit or not ours:
            continue
        best = min(ours, key=lambda one: one.durable)
        peer = [seconds(one.durable) for one in applies if one.program.name == "hdiffz"]
        found.append(
            f"| {pair.name} | {size(pair.new_size)} | {seconds(limit[0])} | {seconds(limit[1])} | "
            f"{seconds(best.durable)} | {times(best.durable / limit[1])} | {size(best.rate)}/s | "
            f"{size(best.private or 0)} | {peer[0] if peer else ''} |"
        )
    return found


def growth_table(results: Results) -> list[str]:
    """Time and memory by size, for us."""
    names = [one for one in results.contenders if not one.missing]
    found = [
        "| size | contender | make | memory | apply, durable | memory | patch |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for pair in figs.series(results, "size"):
        jobs = figs.main_jobs(results, pair)
        for program in names:
            diff = figs.figure(results, "diff", pair, program, jobs)
            apply = figs.figure(results, "apply", pair, program, jobs)
            if diff and apply:
                found.append(
                    f"| {size(pair.new_size)} | {program.label} | {seconds(diff.seconds)} | "
                    f"{size(diff.private or 0)} | {seconds(apply.durable)} | "
                    f"{size(apply.private or 0)} | {diff.size:,} |"
                )
    return found


def phase_table(results: Results) -> list[str]:
    """Where the time goes."""
    found = ["| pair | contender | task | seconds | phases |", "|---|---|---|---:|---|"]
    for name, spent in results.phases.items():
        pair, contender, task = name.split("/")
        whole = sum(spent.values())
        told = ", ".join(
            f"{phase} {100 * value / whole:.0f} %"
            for phase, value in sorted(spent.items(), key=lambda item: -item[1])
            if whole and value / whole >= 0.005
        )
        found.append(f"| {pair} | {contender} | {task} | {whole:.2f} | {told} |")
    return found


def counter_table(results: Results) -> list[str]:
    """What the system counted, for our contenders on the largest pair."""
    pairs = figs.series(results, "files")
    if not pairs:
        return []
    pair = pairs[-1]
    found = [
        f"On {pair.name}, {size(pair.new_size)}:",
        "",
        "| contender | task | wall | CPU | page faults | context switches | written |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for program in results.contenders:
        for task in ("diff", "apply"):
            runs = results.select(task, pair.name, program.name, figs.main_jobs(results, pair))
            if runs:
                cells = (
                    seconds(median(run.seconds for run in runs) or 0),
                    seconds(median(run.cpu for run in runs) or 0),
                    f"{median(run.faults for run in runs) or 0:,.0f}",
                    f"{median(run.switches for run in runs) or 0:,.0f}",
                    size(median(run.written for run in runs) or 0),
                )
                found.append(f"| {program.label} | {task} | " + " | ".join(cells) + " |")
    return found


def start_table(results: Results) -> list[str]:
    """Whole processes that do next to nothing."""
    found = ["| command | time | private memory |", "|---|---:|---:|"]
    for name in dict.fromkeys(run.pair for run in results.runs if run.task == "start"):
        runs = results.select("start", name)
        found.append(
            f"| `{name}` | {seconds(median(run.seconds for run in runs) or 0)} | "
            f"{size(median(run.private for run in runs) or 0)} |"
        )
    return found


def store_table(results: Results) -> list[str]:
    """Trees through the store."""
    heads = " | ".join(tables.STORE_TASKS)
    found = [f"| tree | size | {heads} |", "|---|---:|" + "---:|" * len(tables.STORE_TASKS)]
    for pair in figs.series(results, "store"):
        cells = []
        for task in tables.STORE_TASKS:
            value = median(run.seconds for run in results.select(task, pair.name))
            cells.append("" if value is None else seconds(value))
        found.append(f"| {pair.name} | {size(pair.new_size)} | " + " | ".join(cells) + " |")
    return found


VIEWS: dict[str, View] = {
    "sizes": size_table,
    "machine": _published(machine_line),
    "pairs": _published(pair_tables),
    "limit": _published(limit_table),
    "growth": _published(growth_table),
    "phases": _published(phase_table),
    "counters": _published(counter_table),
    "start": _published(start_table),
    "store": _published(store_table),
}


def fill(text: str, views: dict[str, View]) -> str:
    """The text with every marked part made anew. Raises MarkerError."""

    def one(match: re.Match[str]) -> str:
        if match[2] not in views:
            raise MarkerError(f"nothing is called bench:{match[2]}")
        lines = views[match[2]]()
        if lines is None:
            return match[0]
        inside = "\n".join(["", *lines, ""]) + "\n"
        return match[1] + inside + match[4]

    opened = re.findall(r"^<!-- bench:([a-z-]+) -->$", text, re.MULTILINE)
    if len(opened) != len(_MARKED.findall(text)):
        raise MarkerError("a marker is not closed")
    return _MARKED.sub(one, text)


def update(folder: Path = DOCS) -> list[Path]:
    """Fills every document of a folder; those that changed."""
    changed = []
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        try:
            made = fill(text, VIEWS)
        except MarkerError as error:
            raise MarkerError(f"{path}: {error}") from error
        if made != text:
            path.write_text(made, encoding="utf-8")
            changed.append(path)
    return changed
