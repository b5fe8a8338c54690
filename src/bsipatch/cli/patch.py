"""`bsipatch patch`: a patch applied to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _patching
from ._options import Jobs, Json


def command(
    old: Annotated[Path, typer.Argument(help="The old file.", metavar="OLD")],
    patch: Annotated[
        Path,
        typer.Argument(
            help="The patch: ours or BSDIFF40; - reads ours from stdin.", metavar="PATCH"
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="NEW", help="Where to write the new file.")
    ],
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Apply PATCH to OLD and write the new file.

    The old file's digest is checked before and the new one's after; the new
    file appears whole or not at all.

    Examples:

      bsipatch patch old.dylib patch -o new.dylib

      bsipatch patch old.bin upstream.bsdiff -o new.bin

      curl -s https://updates.example/patch | bsipatch patch old.dylib - -o new.dylib
    """
    _patching.run(old, patch, out, jobs=jobs, json=json)
