"""Options that several commands share, declared once."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..limits import DEFAULT


class Profile(StrEnum):
    """How hard diff works."""

    fast = "fast"
    balanced = "balanced"
    max = "max"


class ChannelName(StrEnum):
    """The channels of a feed; there are no others."""

    developer = "developer"
    beta = "beta"
    release = "release"


class Strategy(StrEnum):
    """How untouched files get from one generation into the next."""

    auto = "auto"
    snapshot = "snapshot"
    reflink = "reflink"
    hardlink = "hardlink"
    copy = "copy"


def threads(jobs: int | None) -> int:
    """`jobs`, or one for each processor that this process may use."""
    if jobs is not None:
        return jobs
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory_size(text: str) -> int:
    """Bytes from "512M" and the like; the units are powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?([KMGT]?)(?:iB|B)?", text.strip(), re.I)
    if match is None or (match[2] and not match[3]):
        raise typer.BadParameter(f"{text!r} is no size: write it like 512M or 1.5G")
    thousandths = int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))
    size = (thousandths << 10 * " KMGT".index(match[3].upper() or " ")) // 1000
    if size < DEFAULT.least_memory:
        raise typer.BadParameter(f"{text} is too little: at least {DEFAULT.least_memory >> 20}M")
    return size


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, for programs; errors too.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, max=256, help="Threads; default: all processors."),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        "-m",
        parser=memory_size,
        metavar="SIZE",
        help="Most memory to work with, such as 512M; less makes it slower and larger.",
    ),
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
BootId = Annotated[
    str | None,
    typer.Option(
        "--boot-id",
        envvar="BSIPATCH_BOOT_ID",
        help="An id of this start instead of the kernel's, for containers.",
        metavar="ID",
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
