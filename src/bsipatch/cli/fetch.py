"""`bsipatch fetch`: downloads what `install` would install, and installs nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _feed, _output, _signals
from ._options import Json, Store


def command(
    store: Store,
    update: Annotated[
        str | None, typer.Argument(help="An update's id; left out for the best.", metavar="[ID]")
    ] = None,
    json: Json = False,
) -> None:
    """Download the update that the feed offers, so that installing needs no network.

    A download that broke off goes on where it stopped, at any mirror.

    Example:

      bsipatch fetch --store /var/lib/bsipatch/webkit
    """
    with (
        _output.progress(json) as bar,
        _signals.working() as stop,
        _feed.session(store, progress=bar, stop=stop, asked=True) as opened,
    ):
        view = opened.view(stop=stop)
        plan, fetched = opened.installer.fetch(view, update)
        fallbacks = opened.installer.fallbacks
    facts = {
        "fetched": _feed.plan_facts(plan),
        "files": [
            {
                "path": str(file.path),
                "size": file.size,
                "received": file.received,
                "resumed": file.resumed,
                "mirror": file.mirror or None,
                "problems": [str(problem) for problem in file.problems],
            }
            for file in fetched
        ],
        "fallbacks": _feed.fallback_facts(fallbacks),
        "feed": _feed.feed_facts(view),
    }
    lines = []
    for file in fetched:
        how = "there already"
        if file.received:
            how = f"{_output.size(file.received)} received"
            how += f", {_output.short_size(file.resumed)} from before" if file.resumed else ""
        lines.append(f"{file.path}: {how}")
        lines += [f"  {problem}" for problem in file.problems]
    if plan is None:
        lines = ["Nothing to fetch; `bsipatch check` says why."]
    _output.emit(json, facts, [*_feed.fallback_lines(fallbacks), *lines])
