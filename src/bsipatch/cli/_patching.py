"""What `bsipatch patch` does; its options are declared in patch.py, which costs more to load."""

from __future__ import annotations

from . import _output, _signals

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from ..output import FileName


def run(old: FileName, patch: FileName, out: FileName, *, jobs: int | None, json: bool) -> None:
    """Applies a patch of either kind and says what came of it."""
    from .. import delta

    with _output.progress(json) as bar, _signals.working() as stop:
        if str(patch) == "-":
            import sys

            made = delta.patch_stream(
                old, sys.stdin.buffer, out, jobs=jobs, progress=_signals.stopping(bar, stop)
            )
        elif _is_bsdiff(patch):
            from pathlib import Path

            from ..interop import apply_bsdiff_file

            made = apply_bsdiff_file(Path(old), Path(patch), Path(out))
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


def _is_bsdiff(patch: FileName) -> bool:
    """A look at the first bytes, without loading what only BSDIFF40 needs."""
    with _output.opening(patch) as file:
        return file.read(8) == b"BSDIFF40"
