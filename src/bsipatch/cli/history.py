"""`bsipatch history`: what happened to a store."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _output
from ._options import Json, Store


def command(
    store: Store,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=1, help="Only the newest N.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what happened, oldest first; refusals and failures with their reasons.

    Example:

      bsipatch history --store /var/lib/bsipatch/webkit --last 10
    """
    import msgspec

    from ..store import Store as Opened

    with Opened(store) as opened:
        events = opened.history()
    if last is not None:
        events = events[-last:]
    lines = []
    for event in events:
        text = f"{event.time}  {event.event:<9}  generation {event.live:<3} {event.display}"
        lines.append(text.rstrip())
        if event.reason:
            lines.append(f"    {event.reason}")
        if event.by:
            lines.append(f"    by {event.by}")
        if event.source and event.event in ("apply", "refused", "failed", "init"):
            lines.append(f"    from {event.source}")
    _output.emit(json, {"events": [msgspec.to_builtins(event) for event in events]}, lines)
