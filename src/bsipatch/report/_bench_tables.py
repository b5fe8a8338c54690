"""The tables of the bench page, and the one that the terminal and the docs show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from bsipatch.bench.results import Pair, Results, median
from bsipatch.report import _bench_figures as figs
from bsipatch.report._bench_words import seconds, size, times

STORE_TASKS = ("build", "init", "stage", "activate", "revert")


def _table(heads: Sequence[str], words: int, rows: Iterable[tuple[Sequence[str], bool]]) -> str:
    """Rows of (cells, ours); the first `words` columns are text. Cells are HTML."""
    head = "".join(
        f'<th class="t">{h}</th>' if n < words else f"<th>{h}</th>" for n, h in enumerate(heads)
    )
    body = []
    for cells, ours in rows:
        inside = "".join(
            f'<td class="t">{c}</td>' if n < words else f"<td>{c}</td>" for n, c in enumerate(cells)
        )
        body.append(f'<tr class="ours">{inside}</tr>' if ours else f"<tr>{inside}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def rows(results: Results, pair: Pair) -> list[tuple[list[str], bool]]:
    """One pair's contenders, the smallest patch first, as (cells, ours).

    Cells: contender, patch size, share, diff time, spread, its memory, apply time, spread,
    until durable, times the limit, its memory, bytes written.
    """
    applies = {one.program.name: one for one in figs.figures(results, "apply", pair)}
    diffs = {one.program.name: one for one in figs.figures(results, "diff", pair)}
    limit = figs.limit(results, pair)
    names = sorted(
        diffs | applies, key=lambda name: (name not in diffs, diffs[name].size if name in diffs
                                           else 0)
    )  # fmt: skip
    found = []
    for name in names:
        program = results.program(name)
        cells = [program.label]
        one = diffs.get(name)
        if one:
            part = f"{100 * one.size / pair.new_size:.3f} %" if pair.new_size else ""
            cells += [f"{one.size:,}", part, seconds(one.seconds), _range(one), _size(one.private)]
        else:
            cells += [""] * 5
        two = applies.get(name)
        if two:
            ratio = times(two.durable / limit[1]) if limit else ""
            cells += [
                seconds(two.seconds), _range(two), seconds(two.durable), ratio,
                _size(two.private), _size(two.written),
            ]  # fmt: skip
        else:
            cells += [""] * 6
        found.append((cells, program.ours))
    return found


HEADS = (
    "contender", "patch", "of new", "make", "range", "memory", "apply", "range", "durable",
    "× limit", "memory", "written",
)  # fmt: skip


def _range(one: figs.Figure) -> str:
    low, high = one.range
    return f"{seconds(low)} – {seconds(high)}" if one.count > 1 else ""


def _size(value: float | None) -> str:
    return "" if value is None else size(value)


def everything(results: Results, files: Sequence[Pair]) -> str:
    """All figures, a table for each pair."""
    parts = []
    for pair in reversed(files):
        found = rows(results, pair)
        if not found:
            continue
        limit = figs.limit(results, pair)
        note = f"{escape(pair.kind)}, {pair.old_size:,} → {pair.new_size:,} bytes"
        if limit:
            note += f"; limit {seconds(limit[0])}, durable {seconds(limit[1])}"
        table = _table(
            HEADS, 1, (([escape(cell) for cell in cells], ours) for cells, ours in found)
        )
        parts.append(f"<h3>{escape(pair.name)}<small>{note}</small></h3>{table}")
    if not parts:
        return ""
    words = (
        "Medians and ranges. Durable: until the new file would survive a power cut, with the sync "
        "that the contender left out. Memory is private memory."
    )
    return _section("All figures", words, "".join(parts))


def phases(results: Results) -> str:
    """Where the time goes."""
    found = []
    for name, spent in results.phases.items():
        pair, contender, task = name.split("/")
        whole = sum(spent.values()) or 1.0
        told = ", ".join(
            f"{phase} {100 * value / whole:.0f} %"
            for phase, value in sorted(spent.items(), key=lambda item: -item[1])
            if value / whole >= 0.005
        )
        found.append(((escape(pair), escape(contender), task, escape(told), seconds(whole)), False))
    if not found:
        return ""
    table = _table(("pair", "contender", "task", "phases", "time"), 4, found)
    return _section("Where the time goes", "Wall time by phase, one run, all cores.", table)


def start(results: Results) -> str:
    """Whole processes that do next to nothing."""
    found = []
    for name in dict.fromkeys(run.pair for run in results.runs if run.task == "start"):
        runs = results.select("start", name)
        value = median(run.seconds for run in runs) or 0.0
        memory = _size(median(run.private for run in runs))
        found.append(((escape(name), seconds(value), memory), False))
    if not found:
        return ""
    table = _table(("command", "time", "memory"), 1, found)
    return _section("Starting", "Whole processes that do next to nothing.", table)


def store(results: Results) -> str:
    """Stage, activate, revert."""
    found = []
    for pair in figs.series(results, "store"):
        cells = [escape(pair.name), size(pair.new_size)]
        for task in STORE_TASKS:
            runs = results.select(task, pair.name)
            value = median(run.seconds for run in runs)
            cells.append("" if value is None else seconds(value))
        stage = results.select("stage", pair.name)
        cells += [
            _size(median(run.private for run in stage)),
            _size(median(run.written for run in stage)),
        ]
        found.append((cells, False))
    if not found:
        return ""
    heads = ("tree", "size", *STORE_TASKS, "memory", "written")
    words = (
        "A whole tree through the command line: build and sign the update, set up a store, stage "
        "the new generation, make it live, go back. Activate and revert move one pointer: their "
        "times are of the moment itself, the others of whole processes."
    )
    return _section("The store", words, _table(heads, 1, found))


def programs(results: Results) -> str:
    """Who took part, who did not, and why."""
    found = []
    for one in results.contenders:
        reasons = {
            skipped.reason: [
                other.pair
                for other in results.skipped
                if other.contender == one.name and other.reason == skipped.reason
            ]
            for skipped in results.skipped
            if skipped.contender == one.name and skipped.reason != one.missing
        }
        told = "; ".join(f"{', '.join(where)}: {why}" for why, where in reasons.items())
        state = f"missing: {one.missing}" if one.missing else told or "all pairs"
        cells = (
            escape(one.label),
            escape(one.version),
            escape(one.verifies),
            "yes" if one.durable else "no",
            escape(state),
        )
        found.append((cells, one.ours))
    machine = results.machine
    words = (
        f"{machine.processor}, {machine.cores} cores, {size(machine.memory)}; {machine.system}; "
        f"{machine.file_system}; Python {machine.python}; load {machine.load} when it began."
    )
    heads = ("contender", "version", "verifies", "syncs", "took part in")
    table = _table(heads, 5, found).replace('<td class="t">', '<td class="t w">')
    return _section("Who and where", words, table)


def _section(title: str, words: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2><p>{escape(words)}</p>\n{content}\n</section>"


def lines(results: Results, pair: Pair) -> list[str]:
    """The pair's table for a terminal."""
    heads = ("", "patch", "of new", "make", "memory", "apply", "durable", "× limit", "memory")
    keep = (0, 1, 2, 3, 5, 6, 8, 9, 10)
    table = [heads, *([cells[n] for n in keep] for cells, _ in rows(results, pair))]
    widths = [max(len(row[n]) for row in table) for n in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def markdown(results: Results, pair: Pair) -> list[str]:
    """The pair's table for the docs."""
    heads = (
        "contender", "patch bytes", "of new", "make", "memory", "apply", "durable", "× limit",
        "memory",
    )  # fmt: skip
    keep = (0, 1, 2, 3, 5, 6, 8, 9, 10)
    found = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for cells, _ in rows(results, pair):
        found.append("| " + " | ".join(cells[n] for n in keep) + " |")
    return found
