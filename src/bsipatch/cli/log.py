"""`bsipatch log`: what happened and why, the store's history and the device's log in one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _output
from ._options import Json, Store

if TYPE_CHECKING:
    from ..device.telemetry.timeline import Moment


class Least(StrEnum):
    """The least level that is shown."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def command(
    store: Store,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="A day, a moment (ISO 8601), or how long ago: 90m, 12h, 3d, 2w.",
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=1, help="Only the newest N.")
    ] = None,
    level: Annotated[Least, typer.Option("--level", help="The least level shown.")] = Least.info,
    update: Annotated[
        str | None, typer.Option("--update", metavar="ID", help="Only what concerns one update.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what happened and why, oldest first: checks, downloads, refusals, installations.

    The store's history and the device's log in one view.

    Examples:

      bsipatch log --store /var/lib/bsipatch/webkit --since 3d

      bsipatch log --level warning --json
    """
    import time

    import msgspec

    from ..device import logs
    from ..device.telemetry import timeline
    from ..feed.names import means
    from ..store import Store as Opened

    begin = None if since is None else timeline.since(since, time.time())
    with Opened(store) as opened:
        moments = timeline.merged(opened.history(), logs.Log(opened.root).read())
    levels = [one.value for one in Least]
    moments = [
        one
        for one in moments
        if (begin is None or one.at >= begin)
        and levels.index(one.level) >= levels.index(level.value)
        and (update is None or means(update, one.update or ""))
    ]
    if last is not None:
        moments = moments[-last:]
    facts: dict[str, Any] = {"entries": [msgspec.to_builtins(one) for one in moments]}
    _output.emit(json, facts, [line for one in moments for line in _lines(one)])


def _lines(moment: Moment) -> list[str]:
    mark = "" if moment.level == "info" else f"{moment.level}: "
    text = moment.text.splitlines() or [""]
    return [f"{moment.time}  {moment.event:<12}  {mark}{text[0]}".rstrip()] + [
        f"    {line}" for line in text[1:]
    ]
