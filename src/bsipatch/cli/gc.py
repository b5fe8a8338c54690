"""`bsipatch gc`: makes room."""

from __future__ import annotations

from . import _output, _signals
from ._options import Json, Store


def command(store: Store, json: Json = False) -> None:
    """Remove generations that nobody needs any more.

    Kept are the baseline, the live generation and the one before it.

    Example:

      bsipatch gc --store /var/lib/bsipatch/webkit
    """
    from ..store import Store as Opened

    with Opened(store) as opened, _signals.working():
        done = opened.collect()
    facts = {"removed": list(done.removed), "kept": list(done.kept), "freed": done.freed}
    removed = ", ".join(map(str, done.removed)) or "none"
    rows = [
        ("Removed", removed),
        ("Kept", ", ".join(map(str, done.kept))),
        ("Freed", _output.size(done.freed) if done.removed else ""),
    ]
    _output.emit(json, facts, _output.columns(rows))
