"""Options that several commands share, declared once."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Profile(StrEnum):
    """How hard diff works."""

    fast = "fast"
    balanced = "balanced"
    max = "max"


class Strategy(StrEnum):
    """How untouched files get from one generation into the next."""

    auto = "auto"
    reflink = "reflink"
    hardlink = "hardlink"
    copy = "copy"


def threads(jobs: int | None) -> int:
    """`jobs`, or one for each processor that this process may use."""
    if jobs is not None:
        return jobs
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, for programs; errors too.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, max=256, help="Threads; default: all processors."),
]
Store = Annotated[
    Path,
    typer.Option(
        "--store",
        "-s",
        envvar="BSIPATCH_STORE",
        file_okay=False,
        help="The store's folder.",
        metavar="DIR",
    ),
]
ProfileOption = Annotated[
    Profile,
    typer.Option("--profile", "-p", help="fast, balanced, or max for the smallest result."),
]
StrategyOption = Annotated[
    Strategy | None,
    typer.Option(
        "--strategy",
        help="How untouched files are shared between generations; default: the best that works.",
    ),
]
Trust = Annotated[
    list[Path],
    typer.Option(
        "--trust",
        "-t",
        dir_okay=False,
        metavar="PUB",
        help="A public key to trust; repeat for several.",
    ),
]
Threshold = Annotated[
    int,
    typer.Option("--threshold", min=1, max=64, help="How many trusted keys must have signed."),
]
