"""`bsipatch verify`: is this update signed by whom it must be, and whole?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _signals
from ._options import Json, Threshold, Trust


def command(
    update: Annotated[Path, typer.Argument(help="The update file.", metavar="UPDATE")],
    trust: Trust,
    threshold: Threshold = 1,
    json: Json = False,
) -> None:
    """Check an update's signatures, its manifest and every payload's digest.

    Also refuses one that has expired.

    Examples:

      bsipatch verify update.bsi --trust public.pem

      bsipatch verify update.bsi -t a.pem -t b.pem -t c.pem --threshold 2
    """
    from .. import trust as trusting
    from ..errors import ExpiredError
    from ..package import Package
    from .inspect import describe, moment, update_lines

    policy = trusting.Policy([trusting.load_public(path) for path in trust], threshold)
    signers: list[str] = []

    def open_envelope(envelope: bytes) -> bytes:
        verified = trusting.verify(envelope, policy)
        signers.extend(verified.signers)
        return verified.payload

    with (
        _output.progress(json) as bar,
        _signals.working() as stop,
        Package.open(update, open_envelope) as package,
    ):
        manifest, total = package.manifest, package.manifest.payload_size
        tell = _signals.stopping(bar, stop)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tell("verify", done, total)

        package.verify_payloads(advance)
        size = package.size
    if manifest.expires is not None and manifest.expires <= time.time():
        raise ExpiredError(f"it expired at {moment(manifest.expires)}", file=update)
    facts = {
        "file": str(update),
        "size": size,
        "verified": True,
        "signers": signers,
        **describe(manifest),
    }
    _output.emit(json, facts, [*update_lines(facts, manifest), "Verified."])
