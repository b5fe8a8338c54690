"""`--disk` of `bsipatch status`: what each generation takes on the disk, and shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _output, _signals

if TYPE_CHECKING:
    from ..store import Store
    from ..store.disk_usage import DiskUsage

Disk = Annotated[
    bool,
    typer.Option("--disk", help="Look at every file, and show what each generation shares."),
]


def measure(store: Store) -> DiskUsage:
    """Measures an open store; stopped by Ctrl-C."""
    from ..store import disk_usage
    from ..store.work import Work

    with _signals.working() as stop:
        return disk_usage.measure(store.fd, store.file, work=Work(stop=stop))


def facts(usage: DiskUsage) -> dict[str, Any]:
    """For --json."""
    return {
        "disk": {
            "apparent": usage.apparent,
            "total": usage.total,
            "generations": [
                {
                    "generation": one.generation,
                    "apparent": one.apparent,
                    "exclusive": one.exclusive,
                    "shared": one.shared,
                }
                for one in usage.generations
            ],
        }
    }


def lines(usage: DiskUsage | None) -> list[str]:
    """For people."""
    if usage is None:
        return []
    rows = [
        (
            f"Generation {one.generation}",
            ", ".join(
                [
                    f"{_output.short_size(one.apparent)} of files",
                    f"{_output.short_size(one.exclusive)} of its own",
                    f"{_output.short_size(one.shared)} shared",
                ]
            ),
        )
        for one in usage.generations
    ]
    rows.append(("On disk", _output.size(usage.total)))
    return _output.columns(rows, _output.STATUS_WIDTH)
