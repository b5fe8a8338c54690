"""Where Chromium is, and one of it that runs; for tests that can do without as well.

BSIPATCH_CHROMIUM names another browser.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

CHROMIUM = os.environ.get("BSIPATCH_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def missing() -> str:
    """Why no page can be shown; "" when one can."""
    if find_spec("playwright") is None:
        return "playwright is not installed"
    return "" if CHROMIUM else "chromium is not installed"


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A browser for the time of the with block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield started
        started.close()
