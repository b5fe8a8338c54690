"""`bsipatch revert` and, as `bsipatch remove`, all the way: the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _output, _signals
from ._options import Json, Store

if TYPE_CHECKING:
    from ..store import Generation

Reason = Annotated[
    str, typer.Option("--reason", help="Why, for the history and for whoever asks later.")
]


def command(
    store: Store,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="All the way back, with no improvement at all.")
    ] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Go back to the generation before the live one, or to the baseline.

    Moves one pointer, however large the tree is. What was reverted is not installed again by
    itself; `bsipatch apply` and `bsipatch allow` bring it back.

    Examples:

      bsipatch revert --store /var/lib/bsipatch/webkit

      bsipatch revert --store /var/lib/bsipatch/webkit --baseline --reason "crashes on start"
    """
    go_back(store, baseline=baseline, remove=False, reason=reason, json=json)


def go_back(store: Path, *, baseline: bool, remove: bool, reason: str, json: bool) -> None:
    """Does it and says so."""
    from ..device import policy as policies
    from ..store import Store as Opened

    with Opened(store) as opened, _signals.working():
        policies.allow_removal(policies.load(opened.root, limits=opened.limits))
        done = opened.revert(baseline=baseline, remove=remove, reason=reason)
        live = opened.live_path
        _write_down(opened.root, done.left)
    facts = {
        "live": str(live),
        "product": done.live.product,
        "version": done.live.version,
        "letter": done.live.letter,
        "display": done.live.display,
        "build": done.live.build,
        "generation": done.live.number,
        "left": done.left.number,
        "notes": list(done.notes),
        "seconds": round(done.seconds, 6),
    }
    rows = [
        ("Live", f"{done.live.product} {done.live.display}, build {done.live.build}"),
        ("Was", f"{done.left.display}, build {done.left.build}"),
        ("Path", str(live)),
        ("Time", f"{done.seconds * 1000:.1f} ms"),
    ]
    _output.emit(json, facts, [*done.notes, *_output.columns(rows)])


def _write_down(root: Path, left: Generation) -> None:
    """Into the device's log, for its reports: which of the feed's updates was taken off."""
    from contextlib import suppress

    from ..device.logs import Log
    from ..device.telemetry import record
    from ..errors import BsipatchError

    # What came from a feed has as its source "ID from MIRROR"; a file has its path.
    name, came, _ = left.source.partition(" from ")
    if came and "/" not in name:
        with suppress(BsipatchError):
            record.taken_off(Log(root), name, "owner", f"{left.display} was taken off by its owner")
