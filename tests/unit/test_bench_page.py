"""The bench page: it is well formed, needs nothing else, says what was measured, hides nothing."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from bsipatch.bench.results import Results
from bsipatch.report import _bench_figures as figs
from bsipatch.report import _plots, bench_page, bench_text
from bsipatch.report._bench_words import count, seconds, share, size, times
from bsipatch.report._svg import Box
from tests.support.bench_results import made_up


@pytest.fixture
def told() -> Results:
    return made_up()


class Checker(HTMLParser):
    """Every tag closes; nothing is loaded; no script."""

    VOID = ("meta", "br", "rect", "line", "circle", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        assert tag not in ("script", "link", "img", "iframe", "object")
        for name, value in attrs:
            assert name not in ("src", "href")
            assert not name.startswith("on")
            for number in re.findall(r"-?[\d.]+|nan|inf", value or ""):
                if name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height", "d"):
                    assert math.isfinite(float(number)), (tag, name, value)
        if tag not in self.VOID or (tag == "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> tuple[str, dict[str, int]]:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert "{{" not in page
    assert "url(" not in page
    return " ".join(checker.text), checker.counts


def test_the_page_is_whole_and_alone(told: Results) -> None:
    text, counts = checked(bench_page.render(told))
    for words in (
        "Size against time", "Each pair by itself", "Applying, against what the machine can do",
        "Memory to apply", "How cost grows with size", "How cost grows with the change",
        "More jobs", "Where the time goes", "Starting", "The store", "All figures",
        "Who and where",
    ):  # fmt: skip
        assert words in text, words
    assert counts["svg"] >= 12
    assert counts["table"] == 6
    assert "A <fast> one" in text
    assert "one<b>" in text


def test_the_page_knows_dark_and_light(told: Results) -> None:
    page = bench_page.render(told)
    assert "prefers-color-scheme: dark" in page
    used = set(re.findall(r'class="(?:line )?(c\d+)', page))
    assert used
    for css in used:
        assert f".{css} {{ --c: var(--{css}); }}" in page
        assert page.count(f"--{css}:") == 2, css


def test_who_is_missing_and_who_was_skipped_is_said(told: Results) -> None:
    text, _ = checked(bench_page.render(told))
    assert "missing: zucchini not on the PATH" in text
    assert "two: more than 64 MiB: slow" in text
    assert "they have not done every pair: bsdiff" in text
    words = "\n".join(bench_text.lines(told))
    assert "zucchini is missing" in words
    assert "bsdiff skipped two: more than 64 MiB: slow" in words


def test_figures_are_medians(told: Results) -> None:
    pair = told.pairs[0]
    one = figs.figure(told, "diff", pair, told.program("hdiffz"), 2)
    assert one is not None
    assert one.seconds == pytest.approx(2.2)
    assert one.range == pytest.approx((2.0, 2.4))
    assert one.count == 3
    assert figs.limit(told, pair) == pytest.approx((0.06, 0.08))
    assert figs.figure(told, "diff", pair, told.program("zucchini"), 2) is None
    assert set(figs.means(told, figs.series(told, "files"))) == {
        "bsipatch-fast",
        "bsipatch-max",
        "hdiffz",
    }


def test_the_headline_compares_with_the_best_peer(told: Results) -> None:
    text, _ = checked(bench_page.render(told))
    # hdiffz: 1/150, bsdiff: 1/500 (pair one alone), ours at best 1/200
    assert "bsdiff or hdiffz" in text
    assert "of the size of the best peer's patch" in text


def test_a_page_of_nothing_is_a_page(told: Results) -> None:
    told.runs.clear()
    told.pairs.clear()
    told.phases.clear()
    text, counts = checked(bench_page.render(told))
    assert "Who and where" in text
    assert "svg" not in counts


def test_one_pair_alone(told: Results) -> None:
    del told.pairs[1:]
    text, _ = checked(bench_page.render(told))
    assert "one<b>: bsipatch and its peers" in text


# --- plots ---


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (0.001, 1000.0), (9.9, 10.1), (1e-9, 1e12), (2.0, 3.0)]
)
def test_ticks_lie_in_the_range(low: float, high: float) -> None:
    for log in (True, False):
        begin, end = _plots.bounds([low, high], log)
        axis = _plots.Axis(begin, end, 0, 100, "", str, log=log)
        ticks = axis.ticks()
        assert len(ticks) < 24
        assert all(begin / 1.001 <= tick <= end * 1.001 for tick in ticks)
        assert all(-1 < axis.at(tick) < 101 for tick in ticks)


def test_labels_do_not_cover_one_another() -> None:
    labels = _plots.Labels(Box(0, 0, 300, 200))
    for _ in range(6):
        labels.block(150, 100)
    placed = [labels.place(150, 100, f"label {n}", "label") for n in range(6)]
    assert placed[0]
    boxes = labels.taken[6:]
    assert len(boxes) == sum(bool(words) for words in placed)
    for index, one in enumerate(boxes):
        assert not any(_plots._overlap(one, other) for other in boxes[:index])


def test_words() -> None:
    assert [seconds(v) for v in (0.0041, 0.0383, 0.0999, 1.25, 12.34, 125.4)] == [
        "4.1 ms", "38.3 ms", "0.1 s", "1.25 s", "12.3 s", "125 s",
    ]  # fmt: skip
    assert [size(v) for v in (0, 812, 12_400, 459_752_336, 3e9)] == [
        "0 B", "812 B", "12.4 kB", "460 MB", "3 GB",
    ]  # fmt: skip
    assert share(0.0087) == "0.87 %"
    assert share(0.5) == "50 %"
    assert times(1.3) == "1.3×"
    assert count(1, "pair") == "1 pair"
    assert count(1200, "pair") == "1,200 pairs"
