"""`bsipatch rehearse`: what an update would do here, and how long it would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output, _signals
from ._options import Jobs, Json, Store, StrategyOption, threads


def command(
    update: Annotated[Path, typer.Argument(help="The update file.", metavar="UPDATE")],
    store: Store,
    strategy: StrategyOption = None,
    per_file_sync: Annotated[
        bool,
        typer.Option("--per-file-sync", help="As apply does it with this option."),
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Apply and revert an update on a throw-away copy of the store.

    Everything is done that apply and revert do: signatures, the new tree,
    reading it back, the flip, the health checks. Nothing is activated and
    nothing is left. An update that apply would refuse is refused here with the
    same exit code.

    Example:

      bsipatch rehearse update.bsi --store /var/lib/bsipatch/webkit
    """
    from .. import store as stores
    from ..errors import HealthError

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        try:
            done = stores.rehearse(
                opened,
                update,
                work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
                strategy=None if strategy is None else strategy.value,
                per_file_sync=per_file_sync,
            )
        except HealthError as error:
            # Its usual advice tells of a way back, which only the copy has gone.
            hint = "Nothing was activated: what is live was not touched."
            raise HealthError(error.detail, file=opened.root, hint=hint) from error
    generation = done.applied.generation
    facts = {
        "already": done.applied.already,
        "product": generation.product,
        "version": generation.version,
        "letter": generation.letter,
        "display": generation.display,
        "build": generation.build,
        "strategy": generation.strategy,
        "counts": done.applied.counts,
        "size": done.applied.size,
        "update_size": done.applied.update_size,
        "flip_seconds": round(done.applied.flip, 6),
        "revert_seconds": None if done.reverted is None else round(done.reverted.seconds, 6),
        "phases": {name: round(seconds, 6) for name, seconds in done.phases.items()},
        "seconds": round(done.seconds, 3),
        "activated": False,
    }
    if done.applied.already:
        lines = [f"{generation.product} {generation.display} is live already; nothing to rehearse."]
    else:
        lines = _output.columns(
            [
                ("Rehearsed", f"{generation.product} {generation.display}"),
                ("Strategy", generation.strategy),
                ("Changes", ", ".join(f"{n} {do}" for do, n in done.applied.counts.items())),
                ("Update", _output.size(done.applied.update_size)),
                *(
                    (name.capitalize(), _output.seconds(seconds))
                    for name, seconds in done.phases.items()
                ),
                ("Pointer moved in", _output.seconds(done.applied.flip)),
                ("Total", _output.seconds(done.seconds)),
                ("Activated", "nothing"),
            ]
        )
    _output.emit(json, facts, lines)
