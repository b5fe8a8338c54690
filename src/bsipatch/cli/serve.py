"""`bsipatch serve`: the device's interface for other programs, on a Unix socket."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from . import _output, _web
from ._options import Json, Store

_NAME = "api.sock"


def command(
    store: Store,
    path: Annotated[
        Path | None,
        typer.Option(
            "--socket",
            metavar="PATH",
            help="Where to listen; default: api.sock in the store, or what systemd opened.",
        ),
    ] = None,
    idle: Annotated[
        float,
        typer.Option(
            "--idle",
            min=0,
            metavar="SECONDS",
            help="End when nobody was connected for so long; 0 for never.",
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Answer other programs of this device: state, progress, install, remove, the switch.

    HTTP and JSON on a Unix socket. Anyone on the device may read the state; changes need the
    store's owner or root, by the kernel's word. Started by a service manager that opened the
    socket, it uses that one.

    Examples:

      bsipatch serve --store /var/lib/bsipatch/webkit

      curl --unix-socket STORE/api.sock http://device/v1/state
    """
    _web.needed()
    from ..device.notify import Notifier, activated_sockets
    from ..device.service import DeviceService
    from ..device.web import peers, serving
    from ..device.web.access import SocketAccess
    from ..device.web.api import application

    with DeviceService(store) as service, _listening(service.root, path, activated_sockets()) as s:
        access = SocketAccess(lambda: peers.trusted_uids(service.root))
        shown = s.getsockname()
        _output.emit(json, {"socket": shown, "store": str(service.root)}, [shown])
        sys.stdout.flush()
        with Notifier.from_environment() as notifier:
            app = application(service, access)
            serving.Server(app, idle=idle, ready=lambda: notifier.ready("answering")).run([s])


@contextlib.contextmanager
def _listening(
    root: Path, path: Path | None, given: dict[str, list[int]]
) -> Iterator[socket.socket]:
    """The service manager's socket, else one of our own."""
    from ..device.web import serving

    fds = [fd for named in given.values() for fd in named]
    if path is None and fds:
        with socket.socket(fileno=fds[0]) as listening:
            yield listening
        return
    with serving.unix(path or root / _NAME) as listening:
        yield listening
