"""`bsipatch boot-ok`: this start went well."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _health, _output, _signals
from ._options import BootId, Jobs, Json, Store, threads


def command(
    store: Store,
    no_health: Annotated[
        bool, typer.Option("--no-health", help="Believe it without the health checks.")
    ] = False,
    boot_id: BootId = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Run the health checks of an improvement on trial; when they pass, it is good.

    For init systems, once the machine is up. When a check fails the generation before is live
    again, the improvement is barred, and the exit code is 90. Without a trial, or when the
    restart that it waits for has not come, nothing happens.

    Example:

      bsipatch boot-ok --store /var/lib/bsipatch/webkit
    """
    from .. import store as stores

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        report = stores.boot_ok(
            opened,
            boot_id=boot_id,
            checks=not no_health,
            work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
        )
    _health.report(json, report)
