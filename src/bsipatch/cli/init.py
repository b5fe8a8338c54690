"""`bsipatch init`: a new store around a baseline tree."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _signals
from ._options import Jobs, Json, Store, Strategy, StrategyOption, Threshold, Trust, threads


class LiveMode(StrEnum):
    """What --live-path is."""

    symlink = "symlink"
    exchange = "exchange"


def command(
    store: Store,
    baseline: Annotated[
        Path, typer.Option("--baseline", metavar="TREE", help="The tree to begin with; copied.")
    ],
    product: Annotated[str, typer.Option("--product", help="As the updates name it.")],
    version: Annotated[str, typer.Option("--version", help="Of the baseline, such as 26.3.1.")],
    build: Annotated[str, typer.Option("--build", help="Of the baseline, such as 25D2128.")],
    trust: Trust,
    threshold: Threshold = 1,
    platform: Annotated[
        str, typer.Option("--platform", help="Accept updates of this platform alone.")
    ] = "any",
    arch: Annotated[
        list[str] | None,
        typer.Option("--arch", help="An architecture of this device; repeat for several."),
    ] = None,
    strategy: StrategyOption = None,
    live_path: Annotated[
        Path | None,
        typer.Option("--live-path", metavar="PATH", help="Show the live tree here, too."),
    ] = None,
    live_mode: Annotated[
        LiveMode,
        typer.Option(
            "--live-mode",
            help="What --live-path is: a symlink, or by exchange a directory of its own.",
        ),
    ] = LiveMode.symlink,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Make a store: a copy of TREE becomes the baseline, and is live at once.

    Only updates signed by the --trust keys will ever be applied.

    Example:

      bsipatch init --store /var/lib/bsipatch/webkit --baseline WebKit.framework
      --product WebKit --version 26.3.1 --build 25D2128 --trust public.pem

      bsipatch init ... --live-path /opt/WebKit.framework --live-mode exchange
    """
    from .. import store as stores
    from .. import trust as trusting
    from ..errors import UsageError

    if live_path is None and live_mode is LiveMode.exchange:
        raise UsageError("--live-mode exchange needs --live-path")
    keys = [trusting.load_public(path) for path in trust]
    with (
        _output.progress(json) as bar,
        _signals.working() as stop,
        stores.init(
            store,
            baseline,
            product=product,
            version=version,
            build=build,
            keys=keys,
            threshold=threshold,
            platform=platform,
            architectures=arch or (),
            strategy=(strategy or Strategy.auto).value,
            live_path=live_path,
            live_mode=live_mode.value,
            work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
        ) as made,
    ):
        status = made.status()
    # The store itself knows of no link: to it the live tree is at its own current/tree.
    shown = str(status.live) if live_path is None else os.path.abspath(live_path)
    facts = {
        "store": str(made.root),
        "live": str(status.live),
        "live_path": shown,
        "product": product,
        "version": version,
        "build": build,
        "tree_digest": status.identity.baseline,
        "strategy": status.generation.strategy,
    }
    rows = [
        ("Store", str(made.root)),
        ("Live", shown),
        ("Links to", str(status.live) if shown != str(status.live) else ""),
        ("Baseline", f"{product} {version}, build {build}"),
        ("Digest", status.identity.baseline),
        ("Strategy", status.generation.strategy),
    ]
    _output.emit(json, facts, _output.columns(rows))
