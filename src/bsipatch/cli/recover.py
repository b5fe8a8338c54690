"""`bsipatch recover`: what was interrupted is finished or undone."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _health, _output, _signals
from ._options import Jobs, Json, Store, threads


def command(
    store: Store,
    no_health: Annotated[
        bool, typer.Option("--no-health", help="Leave a trial as it is, its checks unmade.")
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Finish or undo whatever a crash or power cut interrupted, and say what was found and done.

    Every command that changes the store does this first by itself; run it to know, or to end a
    trial whose health checks were interrupted. Safe to repeat.

    Examples:

      bsipatch recover --store /var/lib/bsipatch/webkit

      bsipatch recover --store /var/lib/bsipatch/webkit --json
    """
    from .. import store as stores

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        done = stores.recover(
            opened,
            checks=not no_health,
            work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
        )
    lines = [f"Found {path}" for path in done.found]
    lines += [f"{line[:1].upper()}{line[1:]}" for line in done.done]
    lines += [] if done.done else ["Nothing was left unfinished."]
    more = {"found": list(done.found), "done": list(done.done), "clean": not done.done}
    _health.report(json, done.report, lines, **more)
