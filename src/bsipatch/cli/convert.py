"""`bsipatch convert`: a BSDIFF40 patch as one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output, _signals
from ._options import Jobs, Json, Profile, ProfileOption


def command(
    old: Annotated[Path, typer.Argument(help="The old file.", metavar="OLD")],
    patch: Annotated[Path, typer.Argument(help="A BSDIFF40 patch.", metavar="BSDIFF")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATCH", help="Where to write our patch.")
    ],
    profile: ProfileOption = Profile.max,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Turn a BSDIFF40 patch into one of ours that makes the same file.

    Lets a pipeline move over step by step. Needs bsdiff4: pip install 'bsipatch[interop]'.

    Example:

      bsipatch convert old.bin upstream.bsdiff -o patch
    """
    from ..errors import FormatError
    from ..interop import convert
    from ..limits import DEFAULT
    from ..output import MappedFile, OutputFile

    with (
        _output.progress(json) as bar,
        _signals.working() as stop,
        MappedFile(old, max_size=DEFAULT.max_bsdiff_size) as old_file,
        MappedFile(patch, max_size=DEFAULT.max_patch_size) as patch_file,
        OutputFile(out) as made,
    ):
        try:
            data = convert(
                old_file.data,
                patch_file.data,
                profile=profile.value,
                jobs=jobs,
                progress=_signals.stopping(bar, stop),
            )
        except FormatError as error:
            error.file = error.file or str(patch)  # it was given bytes, and knows no name
            raise
        made.write(data)
        made.commit()
        before = patch_file.size
    lines = _output.columns(
        [
            ("Patch", f"{out}, {_output.size(len(data))}"),
            ("Before", _output.size(before)),
        ]
    )
    facts = {"patch": str(out), "patch_size": len(data), "bsdiff_size": before}
    _output.emit(json, facts, lines)
