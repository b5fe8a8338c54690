"""The settings page in a real browser, for the tests of it; skips, loudly, where there is none.

Needs Chromium and the packages playwright and axe-playwright-python (for the axe-core in it).
BSIPATCH_CHROMIUM names another browser; BSIPATCH_SCREENSHOTS=1 writes the documents' pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bsipatch.device.service import DeviceService
from bsipatch.device.web import serving
from bsipatch.device.web.access import PageAccess
from bsipatch.device.web.tokens import Sessions
from bsipatch.manifest import SecurityItem
from bsipatch.store import Store
from tests.support import pictures
from tests.support.chromium import CHROMIUM, launched
from tests.support.served import ME, Running
from tests.support.stores import new_store
from tests.support.tuf_feeds import Repository, update

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="THE PAGE IS NOT TESTED: playwright is not installed"
)
expect = sync_api.expect
# against hanging: on a busy machine everything takes longer, and no test is about how long
expect.set_options(timeout=20_000)

#: of every test module that shows the page
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="THE PAGE IS NOT TESTED: chromium is not installed"
    ),
]
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZE = {"width": 680, "height": 700}

SECURITY = (
    SecurityItem(
        component="WebKit",
        impact="A page of one site could read what belongs to another through the Navigation API.",
        cves=("CVE-2026-20643",),
        credit="an anonymous researcher",
    ),
    SecurityItem(
        component="JavaScriptCore",
        impact="Maliciously crafted web content could end the program unexpectedly.",
        cves=("CVE-2026-20701", "CVE-2026-20702"),
    ),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests; each has a context, and so cookies, of its own."""
    with launched() as started:
        yield started


@pytest.fixture
def store(tmp_path: Path, base: Path) -> Iterator[Store]:
    """A store whose product people know."""
    with new_store(tmp_path / "store", base, product="WebKit") as made:
        yield made


class Shown:
    """The page in one browser context."""

    def __init__(self, running: Running, sessions: Sessions, browser: Any, **options: Any) -> None:
        self.running, self.sessions = running, sessions
        self.context = browser.new_context(
            viewport=SIZE, **{"locale": "en-GB", "timezone_id": "UTC", **options}
        )
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        # what the browser says of answers such as 401 is what the test asked for
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    @property
    def url(self) -> str:
        return f"{self.running.origin}/#token={self.sessions.token()}"

    def open(self) -> Any:
        self.page.goto(self.url)
        expect(self.page.locator("#standing")).to_be_visible()
        return self.page

    def head(self, text: str) -> None:
        expect(self.page.locator("#standing-head")).to_contain_text(text)

    def said(self, text: str) -> None:
        expect(self.page.locator("#said")).to_contain_text(text)

    def press(self, selector: str, key: str) -> None:
        """Goes to a control by Tab alone, and presses a key there."""
        target = self.page.locator(selector)
        expect(target).to_be_visible()
        for _ in range(40):
            if target.evaluate("one => one === document.activeElement"):
                break
            self.page.keyboard.press("Tab")
        else:
            pytest.fail(f"{selector} is not reached by Tab")
        outline = target.evaluate("one => getComputedStyle(one).outlineStyle")
        assert outline != "none", f"the focus on {selector} cannot be seen"
        self.page.keyboard.press(key)

    def accessible(self) -> None:
        """No fault that axe-core calls serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        bad = [
            (one["id"], [node["html"][:120] for node in one["nodes"]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert bad == [], bad

    def picture(self, name: str) -> None:
        """For the documents, when they are asked for; without what is of this machine alone."""
        if not os.environ.get("BSIPATCH_SCREENSHOTS"):
            return
        self.page.evaluate(_NEUTRAL)
        picture = self.page.screenshot(full_page=True)
        pictures.write(self.context, picture, IMAGES / f"{name}.png")


_NEUTRAL = r"""() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    walk.currentNode.data = walk.currentNode.data
      .replace(/\/\S+\/etc\/managed/g, "/etc/bsipatch/managed")
      .replace(/\/\S+\/base\b/g, "/opt/WebKit")
      .replace(/http:\/\/127\S+/g, "https://updates.example.org/");
  }
}"""


@pytest.fixture
def running(service: DeviceService) -> Iterator[tuple[Running, Sessions]]:
    """The server of the page."""
    sessions = Sessions()
    access = PageAccess(sessions, lambda: frozenset({ME}))
    with serving.loopback() as listening, Running(service, listening, access) as made:
        yield made, sessions


@pytest.fixture
def show(running: tuple[Running, Sessions], browser: Any) -> Iterator[Callable[..., Shown]]:
    """Opens contexts, and sees at the end that none of them had an error."""
    shown: list[Shown] = []

    def make(**options: Any) -> Shown:
        shown.append(Shown(*running, browser, **options))
        return shown[-1]

    yield make
    for one in shown:
        one.context.close()
        assert one.errors == [], one.errors


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    """The page in English, light, not opened yet."""
    return show()


def offered(repository: Repository, **changes: Any) -> str:
    """An improvement in the channel; its id."""
    offers = changes.pop("offer", {})
    made, data = update(product="WebKit", security=SECURITY, offer=offers, **changes)
    repository.add(made, data)
    repository.publish()
    return str(made.id)
