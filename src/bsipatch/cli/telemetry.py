"""`bsipatch telemetry`: a device's metrics, and the report it would send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _output, _signals
from ._options import Json, Store

if TYPE_CHECKING:
    from ..device.policy import Policy
    from ..fleet.model import Report


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
    send: Annotated[
        bool, typer.Option("--send", help="With --report: send it now, as the agent would.")
    ] = False,
    json: Json = False,
) -> None:
    """Show this device's metrics for Prometheus, or exactly what a report would say.

    Nothing is sent but by --send, and by the agent. Reports are off until `bsipatch policy
    --set reports=true`, and go to the collector that `report_to` of the policy names.

    Examples:

      bsipatch telemetry --store STORE --textfile /var/lib/node_exporter/bsipatch.prom

      bsipatch telemetry --store STORE --report

      bsipatch telemetry --store STORE --report --send
    """
    import time

    import msgspec

    from ..device import policy as policies
    from ..device import schedule as schedules
    from ..device.logs import Log
    from ..device.telemetry import metrics
    from ..device.telemetry import report as reporting
    from ..errors import UsageError
    from ..fleet import model
    from ..store import Store as Opened

    with Opened(store) as opened:
        status = opened.status()
        entries = Log(opened.root).read()
        history = opened.history()
        root = opened.root
    if send and not report:
        raise UsageError("--send goes with --report")
    live, platform = status.generation, status.identity.platform
    if report:
        policy = policies.load(root)
        made = reporting.make(
            policy=policy,
            secret=reporting.read_secret(root),
            live=live,
            platform=platform,
            entries=entries,
            now=time.time(),
        )
        facts: dict[str, Any] = {"report": msgspec.to_builtins(made)}
        lines = [model.encode(made).decode().rstrip()]
        if send:
            _send(root, policy, made)
            facts["sent_to"] = policy.report_to
            lines.append(f"Sent to {policy.report_to}")
        _output.emit(json, facts, lines)
        return
    checks = schedules.load(root / schedules.NAME)
    figures = metrics.compute(live, platform, history, entries, checks)
    text = metrics.render(figures)
    if textfile is not None:
        metrics.write(textfile, figures)
        _output.emit(json, {"textfile": str(textfile)}, [f"Metrics: {textfile}"])
        return
    _output.emit(json, {"metrics": text}, text.splitlines())


def _send(root: Path, policy: Policy, report: Report) -> None:
    """Now, whenever the next one is due; and the agent's next one follows this one."""
    import time

    from ..device.telemetry import sending
    from . import _feed

    with _signals.working() as stop, _feed.session(root, stop=stop, asked=True) as opened:
        now = time.time()
        sending.send(policy, report, opened.transport, now)
        sending.save(root, sending.succeeded(report, now))
