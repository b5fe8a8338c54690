"""`bsipatch allow`: an improvement that failed or was removed may come back."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _health, _output, _signals
from ._options import Json, Store


def command(
    improvement: Annotated[
        str,
        typer.Argument(
            help='Its letter, build, "26.3.1 (a)", 8 digits of its manifest, or "all".',
            metavar="ID",
        ),
    ],
    store: Store,
    json: Json = False,
) -> None:
    """Lift the bar of an improvement, so that it is offered and applied again.

    An improvement is barred when a health check failed, when the machine did not come up with it
    or when it was reverted. `bsipatch status` lists what is barred, by whom and why.

    Examples:

      bsipatch allow a --store /var/lib/bsipatch/webkit

      bsipatch allow 25D771280a --store /var/lib/bsipatch/webkit --json
    """
    from ..store import Store as Opened

    with Opened(store) as opened, _signals.working():
        lifted = opened.allow(improvement)
    facts = {"allowed": [_health.bar(item) for item in lifted]}
    _output.emit(json, facts, [f"Allowed: {_health.bar_text(item)}" for item in lifted])
