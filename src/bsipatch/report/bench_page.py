"""Bench results as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from bsipatch.bench.results import Pair, Program, Results, geometric_mean
from bsipatch.report import _bench_figures as figs
from bsipatch.report import _bench_tables as tables
from bsipatch.report._bench_figures import Figure
from bsipatch.report._bench_words import count, per_mb, seconds, share, size, times
from bsipatch.report._page import page
from bsipatch.report._plots import Point, Row, Series, dots, plot

#: pairs with a plot of their own, and pairs in a dot plot, the largest first
_PLOTS, _ROWS = 6, 14
#: bytes; below it an apply is the start of a program and little else
_TELLING = 4 << 20


def render(results: Results) -> str:
    """The page."""
    files = figs.series(results, "files")
    parts = [
        _cards(results, files),
        _overview(results, files),
        _pairs(results, files),
        _applies(results, files),
        _memory(results, files),
        _size_scaling(results),
        _share_scaling(results),
        _jobs_scaling(results),
        tables.phases(results),
        tables.start(results),
        tables.store(results),
        tables.everything(results, files),
        tables.programs(results),
    ]
    machine = results.machine
    subtitle = (
        f"{count(len(files), 'pair')} of files, "
        f"{count(sum(not one.missing for one in results.contenders), 'contender')}, one run on one "
        f"machine: {machine.processor}, {count(machine.cores, 'core')}, {size(machine.memory)} of "
        f"memory, {machine.file_system}. Commit {results.commit}, {results.date[:10]}."
    )
    footer = (
        "Every figure is a median of its repetitions, which are interleaved among contenders; "
        "every new file was compared with the right one, byte by byte. Times are of whole "
        "processes. Private memory is what no file backs: anonymous pages, and "
        "those swapped out."
    )
    return page(
        "plots",
        "bench",
        title="bsipatch bench",
        heading=_heading(results, files),
        subtitle=escape(subtitle),
        footer=escape(footer),
        body="\n".join(part for part in parts if part),
    )


def _heading(results: Results, files: Sequence[Pair]) -> str:
    if len(files) == 1 and len(results.pairs) == 1:
        return f"{escape(files[0].name)}: bsipatch and its peers"
    return "bsipatch and its peers, side by side"


def section(title: str, explanation: str, *content: str) -> str:
    """A card; "" when there is nothing to put in it."""
    inside = [part for part in content if part]
    if not inside:
        return ""
    return f"<section>\n<h2>{escape(title)}</h2><p>{escape(explanation)}</p>\n" + (
        "\n".join(inside) + "\n</section>"
    )


def css(results: Results, program: Program) -> str:
    """The class that gives a contender its colour."""
    return f"c{[one.name for one in results.contenders].index(program.name) % 13}"


def _legend(results: Results, names: Iterable[str]) -> str:
    wanted = set(names)
    items = "".join(
        f'<li class="{"ours" if one.ours else ""}"><i class="{css(results, one)}"></i>'
        f"{escape(one.label)}</li>"
        for one in results.contenders
        if one.name in wanted
    )
    return f'<ul class="legend">{items}</ul>'


# --- what is said first ---


def _cards(results: Results, files: Sequence[Pair]) -> str:
    cards = [*_size_card(results, files), *_apply_cards(results, files)]
    told = "".join(f"<div><b>{escape(a)}</b>{escape(b)}</div>" for a, b in cards)
    return f'<div class="figures">{told}</div>' if cards else ""


def _size_card(results: Results, files: Sequence[Pair]) -> list[tuple[str, str]]:
    """Our smallest patches against each pair's smallest of the others."""
    ratios, against = [], set()
    for pair in files:
        made = [one for one in figs.figures(results, "diff", pair) if one.size]
        ours = [one for one in made if one.program.ours]
        others = [one for one in made if not one.program.ours]
        if ours and others:
            best = min(others, key=lambda one: one.size)
            ratios.append(min(one.size for one in ours) / best.size)
            against.add(best.program.label)
    if not ratios:
        return []
    mean = geometric_mean(ratios)
    names = " or ".join(sorted(against)) if len(against) < 3 else "whichever it is"
    words = f"of the size of the best peer's patch ({names})"
    if len(ratios) > 1:
        words += f", geometric mean of {count(len(ratios), 'pair')}"
    return [(share(mean), words)]


def _apply_cards(results: Results, files: Sequence[Pair]) -> list[tuple[str, str]]:
    cards: list[tuple[str, str]] = []
    near: list[tuple[Figure, float]] = []
    for pair in files:
        limit = figs.limit(results, pair)
        ours = [one for one in figs.figures(results, "apply", pair) if one.program.ours]
        if ours and limit and pair.new_size >= _TELLING:
            fastest = min(ours, key=lambda one: one.durable)
            near.append((fastest, fastest.durable / limit[1]))
    if near:
        largest = max((one for one, _ in near), key=lambda one: one.pair.new_size)
        words = (
            "the machine's limit to apply one: read and hash the old file, write and hash the new "
            "one, sync"
        )
        cards.append((times(geometric_mean(ratio for _, ratio in near)), words))
        words = (
            f"applied, verified and durable ({largest.program.label}, {largest.pair.name}, "
            f"{size(largest.pair.new_size)})"
        )
        cards.append((f"{size(largest.rate)}/s", words))
    memory = [
        (one.private, one.pair.new_size)
        for pair in files
        for one in figs.figures(results, "apply", pair)
        if one.program.ours and one.private
    ]
    if memory:
        most, _ = max(memory)
        cards.append(
            (size(most), f"of private memory at most to apply {count(len(files), 'pair')}")
        )
    return cards


# --- size against time ---


def _diff_points(
    results: Results, chosen: Sequence[tuple[Program, float, float, str]]
) -> list[Series]:
    """Of (program, x, y, title); our profiles are joined by a line."""
    made = [
        Series(
            program.label,
            css(results, program),
            [Point(x, y, title, program.label)],
            ours=program.ours,
        )
        for program, x, y, title in chosen
    ]
    ours = [one.points[0] for one in made if one.ours]
    if len(ours) > 1:
        path = [Point(point.x, point.y, point.title) for point in sorted(ours, key=lambda p: p.x)]
        made.insert(0, Series("", made[0].css, path, line=True, ours=True))
    return made


def _overview(results: Results, files: Sequence[Pair]) -> str:
    found = figs.means(results, files)
    if len(files) < 2 or len(found) < 2:
        return ""
    chosen = []
    for name, (part, rate) in found.items():
        program = results.program(name)
        title = f"{program.label}: {share(part)} of the new file, {per_mb(rate)} a MB"
        chosen.append((program, rate, part, title))
    picture = plot(
        _diff_points(results, chosen),
        (1060, 430),
        ("time to make a patch, for each MB of the new file", per_mb),
        ("patch size, of the new file", share),
        label="Patch size against time to make it, means over all pairs",
    )
    absent = [one.label for one in results.contenders if not one.missing and one.name not in found]
    words = (
        f"Geometric means over {count(len(files), 'pair')}. Lower left is better: smaller, sooner."
    )
    if absent:
        words += f" Not here, because they have not done every pair: {', '.join(absent)}."
    return section("Size against time", words, picture)


def _pairs(results: Results, files: Sequence[Pair]) -> str:
    shown = files[-_PLOTS:][::-1]
    pictures = []
    for pair in shown:
        made = [one for one in figs.figures(results, "diff", pair) if one.size]
        chosen = [
            (
                one.program,
                one.seconds,
                one.size,
                f"{one.program.label}: {one.size:,} bytes in {seconds(one.seconds)}",
            )
            for one in made
        ]
        picture = plot(
            _diff_points(results, chosen),
            (1060, 430) if len(shown) == 1 else (520, 330),
            ("time to make the patch", seconds),
            ("patch size", size),
            label=f"{pair.name}: patch size against time to make it",
        )
        if picture:
            note = f"<small>{escape(pair.kind)}, {size(pair.new_size)}</small>"
            pictures.append(f"<div><h3>{escape(pair.name)}{note}</h3>{picture}</div>")
    whole = "".join(pictures)
    if len(pictures) > 1:
        whole = f'<div class="grid">{whole}</div>'
    rest = f" The {len(shown)} largest; all are in the table." if len(files) > _PLOTS else ""
    title = "Each pair by itself" if len(files) > 1 else "Size against time"
    return section(title, f"Both scales are logarithmic; lower left is better.{rest}", whole)


# --- applying ---


def _rows(
    results: Results,
    files: Sequence[Pair],
    value: Callable[[Figure], float | None],
    say: Callable[[Figure, float], str],
) -> tuple[list[Row], set[str]]:
    rows, names = [], set()
    for pair in files[-_ROWS:][::-1]:
        row = []
        for one in figs.figures(results, "apply", pair):
            found = value(one)
            if found:
                title = f"{one.program.label}: {say(one, found)}"
                row.append((found, css(results, one.program), title, one.program.ours))
                names.add(one.program.name)
        if row:
            rows.append(Row(pair.name, size(pair.new_size), row))
    return rows, names


def _applies(results: Results, files: Sequence[Pair]) -> str:
    limits = {pair.name: figs.limit(results, pair) for pair in files}

    def ratio(one: Figure) -> float | None:
        found = limits[one.pair.name]
        return one.durable / found[1] if found else None

    def say(one: Figure, found: float) -> str:
        return f"{seconds(one.durable)}, {times(found)} the limit, {size(one.rate)}/s"

    rows, names = _rows(results, files, ratio, say)
    picture = dots(
        rows,
        1060,
        ("time to apply until durable, as a multiple of the machine's limit", times),
        label="Time to apply as a multiple of the machine's limit",
        limits=[(1.0, "the machine's limit")],
    )
    return section(
        "Applying, against what the machine can do",
        "The limit is measured beside each pair: read the old file, compute SHA-256 of old and "
        "new, write the new one and sync it, on all cores in the best known way, without the "
        "start of a program. Contenders that do not sync are charged for it; those that check "
        "less than SHA-256 of both files are not charged for that. Small files are mostly the "
        "start of a program.",
        _legend(results, names) if picture else "",
        picture,
    )


def _memory(results: Results, files: Sequence[Pair]) -> str:
    rows, names = _rows(
        results, files, lambda one: one.private, lambda one, found: f"{size(found)} private"
    )
    picture = dots(
        rows,
        1060,
        ("private memory while applying, at most", size),
        label="Private memory while applying",
    )
    return section(
        "Memory to apply",
        "A device pays for private memory; pages of the files themselves go when someone else "
        "needs the room.",
        _legend(results, names) if picture else "",
        picture,
    )


# --- how cost grows ---


def _curves(
    results: Results,
    task: str,
    points: Callable[[Program], list[tuple[float, float, str]]],
) -> list[Series]:
    found = []
    for program in results.contenders:
        placed = [Point(x, y, f"{program.label}: {words}") for x, y, words in points(program)]
        if len(placed) > 1:
            found.append(
                Series(program.label, css(results, program), placed, line=True, ours=program.ours)
            )
    return found


def _growth(
    results: Results,
    pairs: Sequence[Pair],
    where: Callable[[Pair], float],
    axis: tuple[str, Callable[[float], str]],
    log: bool = True,
) -> list[str]:
    """Curves of time and memory over some series of pairs."""
    wanted: list[tuple[str, str, str, Callable[[Figure], float | None], Callable[[float], str]]]
    wanted = [
        ("diff", "Making a patch", "time", lambda one: one.seconds, seconds),
        ("apply", "Applying it", "time until durable", lambda one: one.durable, seconds),
        ("diff", "Memory to make one", "private memory", lambda one: one.private, size),
        ("diff", "Patch size", "bytes", lambda one: one.size, size),
    ]
    pictures = []
    for task, title, words, value, say in wanted:

        def points(
            program: Program,
            task: str = task,
            value: Callable[[Figure], float | None] = value,
            say: Callable[[float], str] = say,
        ) -> list[tuple[float, float, str]]:
            found = []
            for pair in pairs:
                one = figs.figure(results, task, pair, program, figs.main_jobs(results, pair))
                amount = value(one) if one else None
                if amount:
                    found.append((where(pair), amount, f"{pair.name}, {say(amount)}"))
            return found

        picture = plot(
            _curves(results, task, points),
            (520, 340),
            axis,
            (words, say),
            log=(log, True),
            marks=tuple(sorted({where(pair) for pair in pairs})),
            label=f"{title}: {words}",
            ends=True,
        )
        if picture:
            pictures.append(f"<div><h3>{title}</h3>{picture}</div>")
    return pictures


def _size_scaling(results: Results) -> str:
    pairs = figs.series(results, "size")
    pictures = _growth(
        results, pairs, lambda pair: pair.nominal or pair.new_size, ("size of the file", size)
    )
    return section(
        "How cost grows with size",
        "Generated executables that differ by the same share each; a straight line of slope one "
        "is linear growth.",
        f'<div class="grid">{"".join(pictures)}</div>' if pictures else "",
    )


def _share_scaling(results: Results) -> str:
    pairs = sorted(figs.series(results, "share"), key=lambda pair: pair.share or 0.0)
    pairs = [pair for pair in pairs if pair.share]
    pictures = _growth(
        results, pairs, lambda pair: pair.share or 0.0, ("share of the file that changed", share)
    )
    return section(
        "How cost grows with the change",
        "One generated executable and newer builds of it, in which more and more is new.",
        f'<div class="grid">{"".join(pictures)}</div>' if pictures else "",
    )


def _jobs_scaling(results: Results) -> str:
    pictures = []
    for pair in results.pairs:
        counts = sorted({run.jobs for run in results.runs if run.pair == pair.name})
        if len(counts) < 2:
            continue
        for task, title in (("diff", "Making a patch"), ("apply", "Applying it")):

            def points(
                program: Program, task: str = task, pair: Pair = pair,
                counts: Sequence[int] = tuple(counts),
            ) -> list[tuple[float, float, str]]:  # fmt: skip
                found = []
                for jobs in counts:
                    one = figs.figure(results, task, pair, program, jobs)
                    if one:
                        words = f"{count(jobs, 'job')}, {seconds(one.durable)}"
                        found.append((float(jobs), one.durable, words))
                return found

            picture = plot(
                _curves(results, task, points),
                (520, 320),
                ("jobs", lambda value: f"{value:.0f}"),
                ("time", seconds),
                marks=tuple(float(jobs) for jobs in counts),
                label=f"{pair.name}: {title} with more jobs",
                ends=True,
            )
            if picture:
                note = f"<small>{escape(pair.name)}</small>"
                pictures.append(f"<div><h3>{title}{note}</h3>{picture}</div>")
    return section(
        "More jobs",
        f"The machine has {count(results.machine.cores, 'core')}.",
        f'<div class="grid">{"".join(pictures)}</div>' if pictures else "",
    )
