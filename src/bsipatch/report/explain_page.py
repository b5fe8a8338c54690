"""An explanation as one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from bsipatch.delta import Explanation, Stretch
from bsipatch.report import _figures
from bsipatch.report._figures import HEADER, STREAMS, Line
from bsipatch.report._page import page
from bsipatch.report._svg import Box, bar, columns, num, rect, text, treemap

#: class of bytes -> how the legend calls it
CLASSES = {
    "carried": "carried over unchanged",
    "predicted": "references, predicted",
    "corrected": "corrected",
    "literal": "new (literal)",
    "filled": "computed from the finished file",
}
_STREAM_WORDS = {
    "cover": "cover: what comes from where",
    "overrides": "overrides: what moved otherwise",
    "references": "reference corrections",
    "bytes": "byte corrections",
    "literals": "literals: new bytes",
    "layout": "layout of the new file",
    HEADER: "header and directory",
}
_LINES = 16
_CELLS = 22
_HOVERS = 250


def render(told: Explanation, name: str) -> str:
    """The page. `name` is the patch's, for its title."""
    heading = f"Where {told.patch_size:,} bytes went"
    ratio = f", {told.new_size / told.patch_size:,.0f} times smaller" if told.new_size else ""
    parts = [_streams(told)]
    if told.complete:
        parts = [_cards(told), _strip(told), *parts, _map(told), _top(told), _kinds(told)]
    footer = (
        "Counts are exact. A stream's bytes are shared out among sections and kinds by what the "
        "models take for each item; for streams coded otherwise that is an estimate. All parts "
        "add up to the patch's size."
    )
    return page(
        "explain",
        title=escape(f"{name}: {heading}"),
        heading=escape(heading),
        subtitle=escape(f"{name}, a patch to a file of {told.new_size:,} bytes{ratio}"),
        footer=escape(footer),
        body="\n".join(parts),
    )


def _section(title: str, explanation: str, *content: str) -> str:
    told = f"<p>{escape(explanation)}</p>" if explanation else ""
    return f"<section>\n<h2>{escape(title)}</h2>{told}\n" + "\n".join(content) + "\n</section>"


def _legend(items: Iterable[tuple[str, str, str]]) -> str:
    """Of (class, words, figure)."""
    return (
        '<ul class="legend">'
        + "".join(
            f'<li><svg viewBox="0 0 1 1" aria-hidden="true"><rect class="{css}" width="1" '
            f'height="1"/></svg>{escape(words)} <b>{escape(figure)}</b></li>'
            for css, words, figure in items
        )
        + "</ul>"
    )


def _picture(width: float, height: float, label: str, *content: str) -> str:
    return (
        f'<svg viewBox="0 0 {num(width)} {num(height)}" role="img" aria-label="{escape(label)}">'
        + "".join(content)
        + "</svg>"
    )


def _percent(part: int, whole: int) -> str:
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if part < whole and share > 99.9:
        return f"{min(share, 99.9999):.4f} %"
    return f"{share:.1f} %" if share >= 0.1 else f"{share:.2g} %"


def _cards(told: Explanation) -> str:
    whole = _figures.total(told)
    right = whole.right + whole.overridden
    moved = f"references carried over, of which {whole.moved:,} say something else than before"
    helped = f"of them predicted, {whole.overridden:,} with the help of overrides"
    cards = (
        (f"{whole.references:,}", moved),
        (_percent(right, whole.references), helped),
        (f"{whole.fixed + whole.corrected:,}", "references corrected one by one"),
        (f"{whole.byte_corrections:,}", f"bytes corrected, in {whole.byte_runs:,} runs"),
        (f"{whole.literal_bytes:,}", "bytes that the old file does not have"),
        (f"{whole.cover_entries:,}", "pieces of the old file put together"),
    )
    told_cards = "".join(f"<div><b>{a}</b>{escape(b)}</div>" for a, b in cards)
    return f'<div class="figures">{told_cards}</div>'


# --- the strip ---


def _strip(told: Explanation) -> str:
    stretches = told.stretches
    count = len(stretches)
    supplied = [s.corrected + s.literal for s in stretches]
    most = max([*supplied, 1])
    height, base = 110.0, 24.0
    scaled = [math.sqrt(amount / most) for amount in supplied]
    sky = columns(
        [
            (name, [
                scale * getattr(s, name) / amount if amount else 0.0
                for s, scale, amount in zip(stretches, scaled, supplied, strict=True)
            ])
            for name in ("corrected", "literal")
        ],
        base, height,
    )  # fmt: skip
    sizes = [sum(getattr(s, name) for name in CLASSES) for s in stretches]
    made = columns(
        [
            (name, [
                getattr(s, name) / size if size else 0.0
                for s, size in zip(stretches, sizes, strict=True)
            ])
            for name in CLASSES
        ],
        base + height + 34, 64,
    )  # fmt: skip
    bottom = base + height + 98
    picture = _picture(
        count, bottom + 34, "The new file from its first byte to its last",
        text(0, 13, "bytes corrected or supplied (square-root scale)"),
        text(count, 13, f"most: {most:,} in one stretch", anchor="end"),
        f'<path class="base" d="M0 {num(base + height)}h{count}" fill="none"/>', sky,
        text(0, base + height + 26, "what each stretch of the file is made of"), made,
        _ticks(told, count, bottom), _hovers(told, stretches, base, bottom),
    )  # fmt: skip
    totals = {name: sum(getattr(s, name) for s in stretches) for name in CLASSES}
    legend = _legend(
        (name, words, f"{totals[name]:,}") for name, words in CLASSES.items() if totals[name]
    )
    explanation = (
        f"From the first byte of the file (left) to the last, in {count:,} stretches of "
        f"{told.new_size // max(count, 1):,} bytes."
    )
    return _section("The new file", explanation, picture, legend)


def _ticks(told: Explanation, width: int, top: float) -> str:
    """The names of sections wide enough to have one."""
    drawn = []
    for name, section in zip(_figures.section_names(told), told.sections, strict=True):
        if section.image is None or not told.new_size:
            continue
        x = section.offset / told.new_size * width
        wide = section.size / told.new_size * width
        if wide < 28:
            continue
        most = int(wide / 6.2)
        short = name.rsplit(",", 1)[-1] if len(name) > most else name
        if len(short) > most:
            short = short[: max(most - 1, 1)] + "…"
        drawn.append(f'<path class="tick" d="M{num(x)} {num(top)}v18" fill="none"/>')
        drawn.append(text(x + 5, top + 17, short))
    return "".join(drawn)


def _hovers(told: Explanation, stretches: Sequence[Stretch], top: float, bottom: float) -> str:
    step = -(-len(stretches) // _HOVERS)
    drawn = []
    for first in range(0, len(stretches), step):
        some = stretches[first : first + step]
        figures = ", ".join(
            f"{amount:,} {name}"
            for name in CLASSES
            if (amount := sum(getattr(s, name) for s in some))
        )
        offset = first * told.new_size // len(stretches)
        box = Box(first, top, len(some), bottom - top)
        drawn.append(rect(box, "hover", f"from {offset:#x}: {figures}"))
    return "".join(drawn)


# --- shares of the patch ---


def _streams(told: Explanation) -> str:
    known = {stream.name: stream.patch_bytes or 0 for stream in told.streams}
    known[HEADER] = told.header_bytes
    words = dict(_STREAM_WORDS)
    if told.shared_bytes:
        known["layout"] = known.get("layout", 0) + told.shared_bytes
        words["layout"] = "streams in the shared coder"
    order = [name for name in (*STREAMS, HEADER) if known.get(name)]
    titles = {
        name: f"{words[name]}: {known[name]:,} bytes, {_percent(known[name], told.patch_size)}"
        for name in order
    }
    picture = _picture(
        1000, 44, "The patch by stream",
        bar([(name, known[name], titles[name]) for name in order], Box(0, 0, 1000, 44)),
    )  # fmt: skip
    legend = _legend(
        (name, words[name], f"{known[name]:,} ({_percent(known[name], told.patch_size)})")
        for name in order
    )
    return _section("The patch by stream", "", picture, legend)


def _map(told: Explanation) -> str:
    lines = [line for line in _figures.by_section(told) if line.patch_bytes]
    shown, hidden = lines[:_CELLS], lines[_CELLS:]
    if hidden:
        shown.append(_figures.rest(hidden, f"{len(hidden)} more sections"))
    shown.append(_figures.frame(told))
    shown.sort(key=lambda line: -line.patch_bytes)
    boxes = treemap([line.patch_bytes for line in shown], Box(0, 0, 1000, 380))
    cells = [_cell(line, box, told) for line, box in zip(shown, boxes, strict=True)]
    explanation = (
        "The patch by section of the new file: area is bytes of the patch, colours as above."
    )
    return _section(
        "The patch by section", explanation,
        _picture(1000, 380, "The patch by section", *cells),
    )  # fmt: skip


def _cell(line: Line, box: Box, told: Explanation) -> str:
    names = [name for name in (*STREAMS, HEADER) if line.streams.get(name)]
    figures = ", ".join(f"{name} {line.streams[name]:,}" for name in names)
    share = _percent(line.patch_bytes, told.patch_size)
    title = f"{line.name}: {line.patch_bytes:,} bytes, {share} ({figures})"
    drawn = [bar([(name, line.streams[name], "") for name in names], box)]
    room = int((box.width - 12) / 7)
    if box.height >= 22 and room >= 4:
        short = line.name.rsplit(",", 1)[-1] if len(line.name) > room else line.name
        short = short if len(short) <= room else short[: room - 1] + "…"
        drawn.append(text(box.x + 8, box.y + 18, short, "name"))
        figure = f"{line.patch_bytes:,} bytes, {share}"
        if len(figure) > room * 1.15:
            figure = f"{line.patch_bytes:,}"
        if box.height >= 40:
            drawn.append(text(box.x + 8, box.y + 34, figure, "note"))
    drawn.append(rect(box, "cell"))
    drawn.append(rect(box, "hover", title))
    return "".join(drawn)


# --- tables ---


def _table(heads: Sequence[str], left: int, rows: Iterable[Sequence[str]], last: bool) -> str:
    def line(cells: Sequence[str], tag: str, attributes: str = "") -> str:
        text_cell, number_cell = f'<{tag} class="t">', f"<{tag}>"
        told = "".join(
            f"{text_cell if index < left else number_cell}{escape(cell)}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr{attributes}>{told}</tr>"

    body = list(rows)
    lines = [line(cells, "td") for cells in body]
    if last and body:
        lines[-1] = line(body[-1], "td", ' class="sum"')
    head = line(heads, "th")
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"


def _n(count: int) -> str:
    return f"{count:,}" if count else ""


def _top(told: Explanation) -> str:
    lines = [line for line in _figures.by_row(told) if line.patch_bytes]
    hidden = lines[_LINES:]
    shown = lines[:_LINES]
    if hidden:
        shown = [*shown, _figures.rest(hidden, f"{len(hidden)} more")]
    shown = [*shown, _figures.frame(told), _figures.total(told)]
    rows = [
        (
            line.name, line.detail, _n(line.patch_bytes),
            _percent(line.patch_bytes, told.patch_size), _n(line.cover_entries),
            _n(line.fixed + line.corrected), _n(line.byte_corrections), _n(line.byte_runs),
            _n(line.literal_bytes),
        )
        for line in shown
    ]  # fmt: skip
    heads = (
        "section", "kind", "patch bytes", "share", "pieces", "refs wrong", "bytes wrong",
        "runs", "literals",
    )  # fmt: skip
    return _section(
        "What cost most", "Where to look first for the next thing to improve.",
        _table(heads, 2, rows, last=True),
    )  # fmt: skip


def _kinds(told: Explanation) -> str:
    lines = [line for line in _figures.by_kind(told) if line.references]
    lines.append(_figures.rest(lines, "all references"))
    rows = [
        (
            line.name, _n(line.references), _n(line.moved), _n(line.right), _n(line.overridden),
            _n(line.fixed), _n(line.corrected),
            _percent(line.right + line.overridden, line.references), _n(line.patch_bytes),
        )
        for line in lines
    ]  # fmt: skip
    heads = (
        "kind of reference", "carried over", "moved", "right", "overridden", "fixed",
        "corrected by bytes", "predicted", "patch bytes",
    )  # fmt: skip
    explanation = (
        "A reference is a field that names an address. Right: predicted without help. Overridden: "
        "answered by an entry that serves every reference to the same target."
    )
    return _section("References", explanation, _table(heads, 1, rows, last=True))
