"""The resident agent's processes: `python -m bsipatch.device.agent.children ROLE PARENT FD ROOT`.

work     one look at the store and everything that is to be done, holding the agent's lock
api      the local interface, while somebody asks
metrics  answers for Prometheus, while somebody asks
"""

from __future__ import annotations

import contextlib
import ctypes
import http.server
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from ...errors import BsipatchError, CancelledError

_PR_SET_PDEATHSIG = 1
#: seconds without a request after which a process that answers ends
_IDLE = 60.0
#: seconds that one request for metrics may take
_PATIENCE = 5.0


def main(arguments: list[str]) -> int:
    """Plays one of the roles; 0 when it ended well."""
    role, parent, fd, root, *rest = arguments
    _with_parent(int(parent))
    if role == "work":
        return work(Path(root), float(rest[0]) if rest else None)
    with socket.socket(fileno=int(fd)) as listening:
        if role == "api":
            serve_api(Path(root), listening)
        else:
            serve_metrics(Path(root), listening)
    return 0


def work(root: Path, every: float | None) -> int:
    """One run of the worker. What it cannot do it says on stderr and in the device's log."""
    from .. import priority
    from ..logs import Log
    from .early import spread_first, timing
    from .working import Agent

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    priority.lower()
    spread_first(root, time.time(), timing(every))
    try:
        with Agent(root, timing=timing(every)) as agent:
            agent.work(stop)
    except CancelledError:
        return 0
    except BsipatchError as error:
        print(f"bsipatch agent: {error}", file=sys.stderr, flush=True)
        with contextlib.suppress(BsipatchError):
            Log(root).write("agent-failed", error.message, level="error")
        return error.exit_code
    return 0


def serve_api(root: Path, listening: socket.socket) -> None:
    """The local interface, until nobody has asked for a while."""
    from ..service import DeviceService
    from ..web.access import SocketAccess
    from ..web.api import application
    from ..web.peers import trusted_uids
    from ..web.serving import Server

    with DeviceService(root) as service:
        app = application(service, SocketAccess(lambda: trusted_uids(root)))
        Server(app, idle=_IDLE).run(sockets=[listening])


def serve_metrics(root: Path, listening: socket.socket) -> None:
    """GET /metrics, one after the other, until nobody has asked for a while."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listening.settimeout(_IDLE)
    ends = time.monotonic() + _IDLE
    while time.monotonic() < ends:
        try:
            connection, address = listening.accept()
        except TimeoutError:
            return
        except OSError:
            continue
        ends = time.monotonic() + _IDLE
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_PATIENCE)
            _Answer(connection, address, root)


class _Answer(http.server.BaseHTTPRequestHandler):
    """One request on one connection."""

    timeout = _PATIENCE

    def __init__(self, connection: socket.socket, address: object, root: Path) -> None:
        self._root = root
        super().__init__(connection, address, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        try:
            text = _metrics(self._root).encode()
        except BsipatchError as error:
            self.send_error(500, explain=error.message)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


def _metrics(root: Path) -> str:
    from ...store import Store
    from .. import schedule
    from ..logs import Log
    from ..telemetry import metrics

    with Store(root) as store:
        found = metrics.compute(
            store.live(),
            store.identity.platform,
            store.history(),
            Log(root).read(),
            schedule.load(root / schedule.NAME),
        )
    return metrics.render(found)


def _with_parent(parent: int) -> None:
    """Ends in good order when the agent that started us is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
