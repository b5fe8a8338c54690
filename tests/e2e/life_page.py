"""The settings page over a device's life, and the interface beside it, each in its own process."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support import chromium

from .device_life import PATIENCE, Life
from .journey import COMMAND, environment

#: the parts of the page by what they are about
PARTS = {
    "head": "#standing-head",
    "text": "#standing-text",
    "offers": "#offers-list",
    "refused": "#refused-list",
    "installed": "#installed-body",
    "history": "#history-list",
    "product": "#product",
    "said": "#said",
}


class Interface:
    """`bsipatch serve`: what another program of the device is told."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def state(self) -> Any:
        """The device's state."""
        transport = httpx.HTTPTransport(uds=str(self._path))
        with httpx.Client(transport=transport, base_url="http://device", timeout=60) as client:
            return client.get("/v1/state").raise_for_status().json()


class Page:
    """The page in a browser; without a browser everything is taken to be seen."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def __bool__(self) -> bool:
        return self._page is not None

    def says(self, **parts: str | tuple[str, ...]) -> None:
        """Waits until each part of the page says what is given; `absent` is said nowhere."""
        if self._page is None:
            return
        from playwright.sync_api import expect

        absent = parts.pop("absent", ())
        for name, texts in parts.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                place = self._page.locator(PARTS[name])
                expect(place).to_contain_text(text, timeout=PATIENCE * 1000)
        for text in (absent,) if isinstance(absent, str) else absent:
            assert text not in self._page.inner_text("main")

    def switch(self) -> str:
        """What the one switch shows: "true" or "false"; "" without a browser."""
        if self._page is None:
            return ""
        return str(self._page.get_attribute("#switch", "aria-checked"))

    def press(self, selector: str) -> None:
        """Clicks there, as soon as the device lets it."""
        if self._page is not None:
            self._page.click(selector, timeout=PATIENCE * 1000)


@contextlib.contextmanager
def interface(life: Life) -> Iterator[Interface]:
    """The local interface while the life goes on."""
    path = life.folder / "beside.sock"
    with _answering(life, "serve", "--socket", str(path)):
        yield Interface(path)


@contextlib.contextmanager
def page(life: Life) -> Iterator[Page]:
    """The page, opened by its address; one that sees nothing where no browser is."""
    if chromium.missing():
        yield Page(None)
        return
    with (
        _answering(life, "settings", "--no-browser", "--idle", "0") as told,
        chromium.launched() as browser,
    ):
        context = browser.new_context(
            viewport={"width": 680, "height": 700}, locale="en-GB", timezone_id="UTC"
        )
        shown = context.new_page()
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto(told["url"])
        yield Page(shown)
        context.close()
        assert errors == []


@contextlib.contextmanager
def _answering(life: Life, *line: str) -> Iterator[Any]:
    """A command that stays, and what it said when it was ready; ended by SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, *line, "--store", str(life.store), "--json"],
        env=environment(no_proxy="127.0.0.1"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            code = process.wait(PATIENCE)
    assert code == 0
