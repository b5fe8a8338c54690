"""`bsipatch feed tickets`: the service that signs what one device may install."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _output, _passphrase
from .._options import Json
from . import _common


def command(
    grants: Annotated[
        Path, typer.Argument(metavar="TOML", help="Which device may have which updates.")
    ],
    key: Annotated[list[Path], typer.Option("--key", "-k", metavar="KEY", help="The ticket key.")],
    serve: Annotated[
        bool, typer.Option("--serve", help="Answer requests until it is interrupted.")
    ] = False,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port.")] = 8462,
    valid: Annotated[
        str, typer.Option("--valid", metavar="TIME", help="How long a ticket holds.")
    ] = "7d",
    device: Annotated[
        str | None, typer.Option("--device", metavar="ID", help="Write one ticket for this device.")
    ] = None,
    nonce: Annotated[
        str | None, typer.Option("--nonce", metavar="HEX", help="The nonce that it sent.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the ticket goes.")
    ] = None,
    passphrase_file: _passphrase.File = None,
    json: Json = False,
) -> None:
    """Check a file of grants, serve tickets by it, or write one for a device without a network.

    Examples:

      bsipatch feed tickets grants.toml --key tickets/private.pem --serve

      bsipatch feed tickets grants.toml --key tickets/private.pem --device lab-7
      --nonce 00112233445566778899aabbccddeeff --out lab-7.ticket
    """
    import sys
    import time

    from ...errors import PolicyError, UsageError
    from ...feed.ticket import issue
    from ...output import OutputFile
    from ...publish.feed.tickets import Grants, make_app
    from ...publish.feed.tickets import serve as serve_app

    known = Grants(grants)
    holds = _common.duration(valid)
    if serve:
        keys = [_passphrase.load(path, passphrase_file) for path in key]
        app = make_app(known, keys, valid=holds)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/ticket"
        _output.emit(json, {"address": address}, [f"Tickets at {address}"])
        sys.stdout.flush()
        serve_app(app, host, port)
        return
    if device is not None:
        if nonce is None or out is None:
            raise UsageError("a ticket needs --device, --nonce and --out")
        updates = known.of(device)
        if not updates:
            raise PolicyError("nothing is granted to this device", file=grants, found=device)
        keys = [_passphrase.load(path, passphrase_file) for path in key]
        envelope = issue(device, nonce, updates, keys, now=int(time.time()), valid=holds)
        with OutputFile(out) as file:
            file.write(envelope)
            file.commit()
        facts = {"ticket": str(out), "device": device, "updates": list(updates)}
        _output.emit(json, facts, [f"Wrote {out}: {', '.join(updates)}"])
        return
    count = len(known.devices())
    _output.emit(json, {"devices": count}, [f"{grants}: {count} entries, all well."])
