"""`bsipatch boot-mark`: how far this start of the machine came."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import _health, _signals
from ._options import BootId, Json, Store


class Mark(StrEnum):
    """What can be marked."""

    running = "running"
    ended = "ended"


def command(
    mark: Annotated[
        Mark,
        typer.Argument(
            help="running: the managed programs start now; ended: an orderly shutdown.",
        ),
    ],
    store: Store,
    boot_id: BootId = None,
    json: Json = False,
) -> None:
    """Say how far this start came, so that a power cut is not taken for the update's fault.

    For init systems. A start that ends before it is marked running, or in good order, costs no
    try; one that dies after it does.

    Examples:

      bsipatch boot-mark running --store /var/lib/bsipatch/webkit

      bsipatch boot-mark ended --store /var/lib/bsipatch/webkit
    """
    from .. import store as stores

    with stores.Store(store) as opened, _signals.working():
        report = stores.boot_mark(
            opened, "running" if mark is Mark.running else "ended", boot_id=boot_id
        )
    _health.report(json, report)
