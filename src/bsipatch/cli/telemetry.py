"""`bsipatch telemetry`: a device's metrics, and the report it would send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import _output
from ._options import Json, Store


def command(
    store: Store,
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile", metavar="FILE", dir_okay=False, help="Write metrics for a collector."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Show the report for the publisher instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Show this device's metrics for Prometheus, or exactly what a report would say.

    Nothing is sent by this command. Reports are off until `bsipatch policy --set reports=true`.

    Examples:

      bsipatch telemetry --store STORE --textfile /var/lib/node_exporter/bsipatch.prom

      bsipatch telemetry --store STORE --report
    """
    import time

    import msgspec

    from ..device import policy as policies
    from ..device import schedule as schedules
    from ..device.logs import Log
    from ..device.telemetry import metrics
    from ..device.telemetry import report as reporting
    from ..fleet import model
    from ..store import Store as Opened

    with Opened(store) as opened:
        status = opened.status()
        entries = Log(opened.root).read()
        history = opened.history()
        root = opened.root
    live, platform = status.generation, status.identity.platform
    if report:
        made = reporting.make(
            policy=policies.load(root),
            secret=reporting.read_secret(root),
            live=live,
            platform=platform,
            entries=entries,
            now=time.time(),
        )
        facts: dict[str, Any] = {"report": msgspec.to_builtins(made)}
        _output.emit(json, facts, [model.encode(made).decode().rstrip()])
        return
    checks = schedules.load(root / schedules.NAME)
    figures = metrics.compute(live, platform, history, entries, checks)
    text = metrics.render(figures)
    if textfile is not None:
        metrics.write(textfile, figures)
        _output.emit(json, {"textfile": str(textfile)}, [f"Metrics: {textfile}"])
        return
    _output.emit(json, {"metrics": text}, text.splitlines())
