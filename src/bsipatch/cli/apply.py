"""`bsipatch apply`: an update goes live, or nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _health, _output, _signals
from ._options import Jobs, Json, Store, StrategyOption, threads


def command(
    update: Annotated[Path, typer.Argument(help="The update file.", metavar="UPDATE")],
    store: Store,
    strategy: StrategyOption = None,
    per_file_sync: Annotated[
        bool,
        typer.Option(
            "--per-file-sync", help="Sync file by file; spares other programs one big sync."
        ),
    ] = False,
    no_health: Annotated[
        bool,
        typer.Option("--no-health", help="Without a trial: it is good as soon as it is live."),
    ] = False,
    even_if_barred: Annotated[
        bool,
        typer.Option("--even-if-barred", help="Although it failed here before."),
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Apply an update: verify, build the new tree beside the live one, flip, check its health.

    Any refusal, failure or Ctrl-C leaves the old tree live and nothing behind. When a health
    check fails the old tree is live again at once, and the exit code is 90. An update that takes
    effect with a restart stays on trial until `bsipatch boot-ok`.

    Examples:

      bsipatch apply update.bsi --store /var/lib/bsipatch/webkit

      BSIPATCH_STORE=/var/lib/bsipatch/webkit bsipatch apply update.bsi
    """
    from .. import store as stores

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        done = stores.apply(
            opened,
            update,
            work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
            strategy=None if strategy is None else strategy.value,
            per_file_sync=per_file_sync,
            terms=stores.Terms(health=not no_health, even_if_barred=even_if_barred),
        )
        live = opened.live_path
    generation = done.generation
    facts = {
        "already": done.already,
        "live": str(live),
        "product": generation.product,
        "version": generation.version,
        "letter": generation.letter,
        "display": generation.display,
        "build": generation.build,
        "generation": generation.number,
        "previous": done.was.number,
        "tree_digest": generation.tree,
        "strategy": generation.strategy,
        "counts": done.counts,
        "size": done.size,
        "update_size": done.update_size,
        "recovered": list(done.recovered),
        "trial": _health.trial(done.trial),
        "health": _health.results(done.health),
        "seconds": round(done.seconds, 3),
        "flip_seconds": round(done.flip, 6),
    }
    if done.already:
        lines = [f"{generation.product} {generation.display} is live already; nothing to do."]
        if done.trial is not None:
            lines.append(f"It is on trial: {_health.trial_text(done.trial)}")
    else:
        lines = _output.columns(
            [
                ("Live", f"{generation.product} {generation.display}, build {generation.build}"),
                ("Was", f"{done.was.display}, build {done.was.build}"),
                ("Path", str(live)),
                ("Changes", ", ".join(f"{count} {do}" for do, count in done.counts.items())),
                ("Update", _output.size(done.update_size)),
                ("Tree", _output.size(done.size)),
                ("Health", _health.results_text(done.health)),
                ("On trial", _health.trial_text(done.trial)),
                ("Time", _output.seconds(done.seconds)),
            ]
        )
    _output.emit(json, facts, [*done.recovered, *lines])
