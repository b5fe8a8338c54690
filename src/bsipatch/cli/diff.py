"""`bsipatch diff`: a patch from two files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import _output, _signals
from ._options import Jobs, Json, Memory, Profile, ProfileOption

_NO_BOUND = "bsdiff4 takes about 17 times the old file's size; only our own format can be bounded."


class Format(StrEnum):
    """Which program's patch to write."""

    bsipatch = "bsipatch"
    bsdiff4 = "bsdiff4"


def command(
    old: Annotated[Path, typer.Argument(help="The old file.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The new file.", metavar="NEW")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATCH", help="Where to write the patch.")
    ],
    profile: ProfileOption = Profile.max,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="bsdiff4 writes BSDIFF40 (needs bsdiff4).")
    ] = Format.bsipatch,
    jobs: Jobs = None,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Make the patch that turns OLD into NEW.

    The patch is applied and compared before it appears.

    Examples:

      bsipatch diff old.dylib new.dylib -o patch

      bsipatch diff old.dylib new.dylib -o patch --profile fast --jobs 4

      bsipatch diff old.cache new.cache -o patch --memory 512M
    """
    if format is Format.bsdiff4:
        if memory is not None:
            raise UsageError("--memory with --format bsdiff4", hint=_NO_BOUND)
        from ..interop import make_bsdiff_file

        facts: dict[str, Any] = {
            "format": format.value,
            "old_size": old.stat().st_size,
            "new_size": new.stat().st_size,
            "patch_size": make_bsdiff_file(old, new, out),
        }
    else:
        from .. import delta

        with _output.progress(json) as bar, _signals.working() as stop:
            made = delta.diff(
                old,
                new,
                out,
                profile=profile.value,
                jobs=jobs,
                progress=_signals.stopping(bar, stop),
                memory_budget=memory or 0,
            )
        facts = {
            "format": format.value,
            "profile": made.profile,
            "raw": made.raw,
            "short_of_memory": made.short_of_memory,
            "old_size": made.old_size,
            "new_size": made.new_size,
            "patch_size": made.patch_size,
            "old_sha256": made.old_sha256,
            "new_sha256": made.new_sha256,
            "plain_bytes": made.plain_bytes,
            "peak_memory": made.peak_memory,
            "seconds": round(made.seconds, 3),
        }
    size, whole = facts["patch_size"], facts["new_size"]
    lines = _output.columns(
        [
            ("Patch", f"{out}, {_output.size(size)}"),
            ("Ratio", _output.ratio(size, whole)),
            ("Time", _output.seconds(facts["seconds"]) if "seconds" in facts else ""),
        ]
    )
    if facts.get("short_of_memory"):
        way = "the bytes alone" if facts["raw"] else f"profile {facts['profile']}"
        lines.append(f"note: made with {way}, for want of memory; --memory allows more")
    _output.emit(json, {"patch": str(out), **facts}, lines)
