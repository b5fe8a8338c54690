"""`bsipatch settings`: the device's page in the browser, on loopback only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _web
from ._options import Json, Store

#: seconds without anyone after which the server ends
_IDLE = 900.0

_REDIRECT = """<!doctype html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>bsipatch</title><a href="{url}">bsipatch</a>
"""


def command(
    store: Store,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address; open nothing.")
    ] = False,
    idle: Annotated[
        float,
        typer.Option(
            "--idle",
            min=0,
            metavar="SECONDS",
            help="End when nobody has the page open for so long; 0 for never.",
        ),
    ] = _IDLE,
    json: Json = False,
) -> None:
    """Show the device's improvements in the browser: install, remove, the switch, the history.

    Serves a page on loopback only, under an address that is good once. Ends with Ctrl-C, or
    by itself some time after the page was closed.

    Examples:

      bsipatch settings --store /var/lib/bsipatch/webkit

      bsipatch settings --store STORE --no-browser
    """
    _web.needed()
    from ..device.service import DeviceService
    from ..device.web import peers, serving
    from ..device.web.access import PageAccess
    from ..device.web.api import application
    from ..device.web.tokens import Sessions

    with DeviceService(store) as service, serving.loopback() as listening:
        peers.trusted_uids(service.root)  # raises now what would refuse everybody later
        sessions = Sessions()
        access = PageAccess(sessions, lambda: peers.trusted_uids(service.root))
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}/#token={sessions.token()}"
        facts = {"url": url, "port": port, "store": str(service.root)}
        lines = [url]
        if sys.stdout.isatty():
            lines = [f"The settings of {service.product} are at", f"  {url}", "Ctrl-C ends it."]
        _output.emit(json, facts, lines)
        sys.stdout.flush()
        with _browser(url, enabled=not no_browser) as show:
            serving.Server(application(service, access), idle=idle, ready=show).run([listening])


class _Show:
    """Opens the browser beside the server, once."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def __call__(self) -> None:
        if self._file is not None:
            threading.Thread(target=self._open, args=(self._file,), daemon=True).start()

    @staticmethod
    def _open(file: Path) -> None:
        import webbrowser

        if not webbrowser.open(file.as_uri()):
            print("bsipatch: no browser to open; use the address above", file=sys.stderr)


@contextlib.contextmanager
def _browser(url: str, *, enabled: bool) -> Iterator[_Show]:
    """What opens the page, by way of a file that only we can read.

    The command line of a browser is shown to every user of the machine, and must not
    hold the token.
    """
    if not enabled:
        yield _Show(None)
        return
    with tempfile.TemporaryDirectory(prefix="bsipatch-settings-") as folder:
        file = Path(folder) / "open.html"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as opened:
            opened.write(_REDIRECT.format(url=url))
        yield _Show(file)
