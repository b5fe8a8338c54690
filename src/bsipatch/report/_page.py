"""The frame of every report's page and its styles, in one file that needs nothing but itself."""

from __future__ import annotations

import re
from importlib import resources


def page(*styles: str, title: str, heading: str, subtitle: str, body: str, footer: str) -> str:
    """A whole page, of pieces that are HTML already.

    styles: names of the style sheets beside this file that it has after `page.css`.
    """
    values = {
        "style": "".join(_text(f"{name}.css") for name in ("page", *styles)),
        "title": title,
        "heading": heading,
        "subtitle": subtitle,
        "body": body,
        "footer": footer,
    }
    # In one go: what was put in is not looked through again.
    return re.sub(r"{{(\w+)}}", lambda found: values[found[1]], _text("page.html"))


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8")
