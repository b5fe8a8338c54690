"""`bsipatch patch`: a patch applied to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output, _signals
from ._options import Jobs, Json


def command(
    old: Annotated[Path, typer.Argument(help="The old file.", metavar="OLD")],
    patch: Annotated[Path, typer.Argument(help="The patch: ours or BSDIFF40.", metavar="PATCH")],
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
    """
    from .. import delta

    with _output.progress(json) as bar, _signals.working() as stop:
        if _is_bsdiff(patch):
            from ..interop import apply_bsdiff_file

            made = apply_bsdiff_file(old, patch, out)
        else:
            made = delta.patch(old, patch, out, jobs=jobs, progress=_signals.stopping(bar, stop))
    facts = {
        "new": str(out),
        "old_size": made.old_size,
        "new_size": made.new_size,
        "patch_size": made.patch_size,
        "old_sha256": made.old_sha256,
        "new_sha256": made.new_sha256,
        "peak_memory": made.peak_memory,
        "seconds": round(made.seconds, 3),
    }
    lines = _output.columns(
        [
            ("New file", f"{out}, {_output.size(made.new_size)}"),
            ("SHA-256", made.new_sha256),
            ("Time", _output.seconds(made.seconds)),
        ]
    )
    _output.emit(json, facts, lines)


def _is_bsdiff(patch: Path) -> bool:
    """A look at the first bytes, without loading what only BSDIFF40 needs."""
    with _output.opening(patch) as file:
        return file.read(8) == b"BSDIFF40"
