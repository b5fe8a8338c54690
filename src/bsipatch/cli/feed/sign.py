"""`bsipatch feed sign`: one signature on a root that travels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _output, _passphrase
from .._options import Json
from . import _common


def command(
    file: Annotated[Path, typer.Argument(metavar="ROOT", help="The root to sign.")],
    key: Annotated[
        list[Path], typer.Option("--key", "-k", metavar="KEY", help="A root's private key.")
    ],
    trusted: Annotated[
        Path | None,
        typer.Option("--trusted", metavar="ROOT", help="The current root, to compare with."),
    ] = None,
    passphrase_file: _passphrase.File = None,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Sign a root that `init` or `rotate` wrote: the file is what travels, no feed is needed.

    What it changes is shown first; --dry-run shows it alone.

    Examples:

      bsipatch feed sign root-2.json --key private.pem --trusted root-1.json

      bsipatch feed sign root-2.json --key private.pem --dry-run
    """
    from ...errors import from_os_error
    from ...output import OutputFile

    with _common.needing_feed():
        from ...publish.feed import roots
        from ...publish.feed.metadata import to_bytes
    try:
        root = roots.read(file.read_bytes(), str(file))
        old = None if trusted is None else roots.read(trusted.read_bytes(), str(trusted))
    except OSError as error:
        raise from_os_error(error) from error
    if old is not None:
        roots.check_next(old, root, str(file))
    changes = roots.describe(old, root)
    if not dry_run:
        for path in key:
            roots.add_signature(root, old, _passphrase.load(path, passphrase_file), str(file))
        with OutputFile(file) as out:
            out.write(to_bytes(root))
            out.commit()
    lacking = roots.missing(old, root)
    facts = {
        "file": str(file),
        "version": root.signed.version,
        "signatures": sorted(root.signatures),
        "missing": lacking,
        "dry_run": dry_run,
        "changes": [
            {"role": c.id, "what": c.what, "before": c.before, "after": c.after} for c in changes
        ],
    }
    lines = [line for change in changes for line in _common.change_lines(change)]
    count = _output.number(len(root.signatures), "signature")
    state = f"{lacking} more needed" if lacking else "all that is needed"
    if old is None and root.signed.version > 1:
        # Enough of the current root's keys must have signed as well, and it is not at hand.
        state += " by its own keys; --trusted says what the current root's need"
    lines.append(f"Root {root.signed.version}: {count}, {state}.")
    _output.emit(json, facts, lines)
