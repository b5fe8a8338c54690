"""`bsipatch revert`: the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _output, _signals
from ._options import Json, Store


def command(
    store: Store,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="All the way back, with no improvement at all.")
    ] = False,
    json: Json = False,
) -> None:
    """Go back to the generation before the live one, or to the baseline.

    Moves one pointer, however large the tree is. The update can be applied again.

    Examples:

      bsipatch revert --store /var/lib/bsipatch/webkit

      bsipatch revert --store /var/lib/bsipatch/webkit --baseline
    """
    from ..store import Store as Opened

    with Opened(store) as opened, _signals.working():
        done = opened.revert(baseline=baseline)
        live = opened.live_path
    facts = {
        "live": str(live),
        "product": done.live.product,
        "version": done.live.version,
        "letter": done.live.letter,
        "display": done.live.display,
        "build": done.live.build,
        "generation": done.live.number,
        "left": done.left.number,
        "seconds": round(done.seconds, 6),
    }
    rows = [
        ("Live", f"{done.live.product} {done.live.display}, build {done.live.build}"),
        ("Was", f"{done.left.display}, build {done.left.build}"),
        ("Path", str(live)),
        ("Time", f"{done.seconds * 1000:.1f} ms"),
    ]
    _output.emit(json, facts, _output.columns(rows))
