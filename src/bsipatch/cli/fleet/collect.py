"""`bsipatch fleet collect`: takes the reports that devices send, one file a device and day."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import _output, _web
from .._options import Json


def command(
    into: Annotated[
        Path,
        typer.Option(
            "--into", exists=True, file_okay=False, metavar="DIR", help="Keep the reports here."
        ),
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Answer devices here.")
    ] = "127.0.0.1:8477",
    product: Annotated[
        list[str] | None,
        typer.Option("--product", metavar="NAME", help="Take reports of this product alone."),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1, help="Reports kept of one day at most.")
    ] = 1_000_000,
    keep: Annotated[
        int, typer.Option("--keep", min=0, metavar="DAYS", help="Then forget them; 0 for never.")
    ] = 0,
    json: Json = False,
) -> None:
    """Collect devices' reports: what `bsipatch fleet report DIR` then reads.

    Takes POST /report alone, checks each report completely, and writes down nothing of who sent
    it. It speaks plain HTTP: put a server in front that ends TLS and bounds how often one address
    may come. Ends with Ctrl-C or SIGTERM.

    Examples:

      bsipatch fleet collect --into /srv/reports --product WebKit --keep 90

      bsipatch fleet collect --into reports --listen 127.0.0.1:0 --json
    """
    _web.needed()
    from ...device.agent.resident import listening
    from ...device.web import serving
    from ...fleet.collecting import Folder, application

    folder = Folder(into, products=frozenset(product or ()), most=most, keep=keep)
    app = application(folder)
    with listening(listen) as opened:
        host, port = opened.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _output.emit(json, {"url": f"{address}/", "into": str(into)}, [f"{address}/"])
        sys.stdout.flush()
        serving.Server(app).run([opened])
