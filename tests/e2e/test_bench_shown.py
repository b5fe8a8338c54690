"""The bench page in a real browser: drawn, within its borders, legible, and asking for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bsipatch.report import bench_page
from tests.support import chromium
from tests.support.bench_results import made_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(chromium.missing()), reason=f"THE BENCH PAGE IS NOT SHOWN: {chromium.missing()}"
    ),
]

#: words of the plots' headings
WANTED = (
    "size against time",
    "against what the machine can do",
    "grows with size",
    "grows with the change",
    "more jobs",
)

#: of a phone, a tablet, a talk; CSS pixels
WIDTHS = (360, 768, 1440)

#: texts of a drawing that reach beyond it, or lie on one another, as sentences
TROUBLE = """() => {
  const found = [];
  const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1
    && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    const label = svg.getAttribute('aria-label') || svg.querySelector('title')?.textContent || '';
    if (frame.width < 100 || frame.height < 20)
      found.push(`${label}: ${frame.width} by ${frame.height}`);
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent,
      text.getBoundingClientRect()]);
    for (const [words, box] of texts)
      if (!within(box, frame)) found.push(`${label}: "${words}" reaches beyond the drawing`);
    for (let i = 0; i < texts.length; i++)
      for (let j = 0; j < i; j++) {
        const [a, b] = [texts[i][1], texts[j][1]];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 3)
          found.push(`${label}: "${texts[i][0]}" lies on "${texts[j][0]}"`);
      }
    for (const mark of svg.querySelectorAll('circle, path')) {
      const box = mark.getBoundingClientRect();
      if (!within(box, frame)) found.push(`${label}: a ${mark.tagName} beyond the drawing`);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium.launched() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("bench") / "bench.html"
    page.write_text(bench_page.render(made_up()), encoding="utf-8")
    return page.as_uri()


class Opened:
    """The page at one width; `said` is what the browser complained of, `asked` what it fetched."""

    def __init__(self, browser: Any, address: str, width: int, scheme: str = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_drawn_within_its_borders(browser: Any, address: str, width: int) -> None:
    with Opened(browser, address, width) as shown:
        assert shown.page.evaluate(TROUBLE) == []
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert shown.said == []
        assert shown.asked == [address]


def test_the_plots_of_a_talk_are_there(browser: Any, address: str) -> None:
    """Size against time, growth with size, share and jobs, the limit; each has marks."""
    with Opened(browser, address, 1440) as shown:
        heads = shown.page.locator("h2").all_inner_texts()
        drawn = shown.page.evaluate(
            """() => [...document.querySelectorAll('section')].filter(section =>
                 section.querySelector('svg circle, svg path, svg rect'))
               .map(section => section.querySelector('h2').textContent)"""
        )
    for wanted in WANTED:
        assert any(wanted in head.lower() for head in heads), (wanted, heads)
        assert any(wanted in head.lower() for head in drawn), (wanted, drawn)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible(browser: Any, address: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with Opened(browser, address, 1440, scheme) as shown:
        results = axe.Axe().run(shown.page)
    broken = [
        (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in results.response["violations"]
    ]
    assert broken == []
