"""`bsipatch adopt`: a tree that came by other means becomes the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _output, _signals
from ._options import Jobs, Json, Store, threads

if TYPE_CHECKING:
    from ..device.adoption import Retired


def command(
    tree: Annotated[Path, typer.Argument(help="The new base.", metavar="TREE")],
    store: Store,
    version: Annotated[str, typer.Option("--version", help="Of the new base, such as 26.4.")],
    build: Annotated[str, typer.Option("--build", help="Of the new base, such as 25E200.")],
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Make TREE the baseline, after a whole update of the system has brought it.

    Improvements of the old baseline are retired; those that TREE contains are
    told from those whose fixes it lacks. Feed, history, bars and settings stay.

    Example:

      bsipatch adopt /System/Library/WebKit.framework --version 26.4 --build 25E200 --store STORE
    """
    from .. import store as stores
    from ..device.adoption import adopt

    with _output.progress(json) as bar, _signals.working() as stop:
        done = adopt(
            store,
            tree,
            version=version,
            build=build,
            work=stores.Work(jobs=threads(jobs), progress=bar, stop=stop),
        )
    facts: dict[str, Any] = {
        "already": done.already,
        "version": done.version,
        "build": done.build,
        "tree_digest": done.digest,
        "was": done.was,
        "retired": [
            {
                "display": item.display,
                "build": item.build,
                "live": item.live,
                "contained": item.contained,
                "changes": item.changes,
                "missing": list(item.missing),
            }
            for item in done.retired
        ],
        "notes": list(done.notes),
    }
    if done.already:
        lines = [f"{done.version}, build {done.build}, is the baseline already; nothing to do."]
    else:
        lines = [f"Baseline and live: {done.version}, build {done.build} (was {done.was})"]
        lines += [_line(item) for item in done.retired]
    _output.emit(json, facts, [*lines, *done.notes])


def _line(item: Retired) -> str:
    if item.contained:
        count = _output.number(item.changes, "change")
        return f"Retired {item.display}: the new base contains it ({count} compared)."
    return (
        f"Retired {item.display}: the new base is otherwise at {', '.join(item.missing)}; "
        "what it fixed may be open again."
    )
