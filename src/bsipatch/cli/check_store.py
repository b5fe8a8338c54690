"""`bsipatch check-store`: reads everything again."""

from __future__ import annotations

import typer

from . import _output, _signals
from ._options import Jobs, Json, Store, threads

_SHOWN = 50


def command(store: Store, jobs: Jobs = None, json: Json = False) -> None:
    """Digest every file of every generation and report what drifted, and how.

    Ends with exit code 33 when anything did.

    Example:

      bsipatch check-store --store /var/lib/bsipatch/webkit
    """
    from .. import store as stores
    from ..errors import TreeDriftError

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        report = stores.check(opened, work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop))
    facts = {
        "ok": report.sound,
        "sound": report.sound,
        "generations": list(report.checked),
        "size": report.size,
        "recovered": list(report.recovered),
        "drift": [
            {"generation": item.generation, "path": item.path, "reason": item.reason}
            for item in report.drift
        ],
    }
    lines = list(report.recovered)
    for item in report.drift[:_SHOWN]:
        where = f"{item.path}: " if item.path else ""
        lines.append(f"generation {item.generation}: {where}{item.reason}")
    if len(report.drift) > _SHOWN:
        lines.append(f"and {len(report.drift) - _SHOWN} more; --json lists all")
    if report.sound:
        count = len(report.checked)
        lines.append(
            f"{count} generation{'' if count == 1 else 's'} sound, {_output.size(report.size)} read"
        )
    _output.emit(json, facts, lines)
    if not report.sound:
        raise typer.Exit(TreeDriftError.exit_code)
