"""A small HTTP server on sockets of ours, which sleeps while nobody asks.

uvicorn's own loop wakes ten times a second; this one waits for a request, a
signal, or the end of its idle time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import ExistsError, from_os_error
from . import peers

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: seconds that open requests get at the end
_GRACE = 2
_BACKLOG = 64
_MOST_CONNECTIONS = 128


class _Protocol(H11Protocol):
    """Tells the application who is at the other end of each connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.server_state.used = time.monotonic()  # type: ignore[attr-defined]
        found = transport.get_extra_info("socket")
        peer = None
        if found is not None and found.family == socket.AF_UNIX:
            peer = peers.of_unix(found)
        elif found is not None:
            peer = peers.of_loopback(found)
        self.app_state = {**self.app_state, "peer": peer}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.server_state.used = time.monotonic()  # type: ignore[attr-defined]


class Server(uvicorn.Server):
    """Serves until stop() is called, a signal comes, or nobody was connected for `idle` seconds."""

    def __init__(
        self, app: Starlette, *, idle: float = 0.0, ready: Callable[[], object] | None = None
    ) -> None:
        """`ready` is called in the server's loop once it listens."""
        self._app = app
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_level="error",
            log_config=None,
            access_log=False,
            # whoever connects is who the kernel says, not who a header says
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=1 << 16,
        )
        super().__init__(config)
        self._idle, self._ready = idle, ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._early = threading.Event()
        self.server_state.used = time.monotonic()  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Ends it, from any thread."""
        self._early.set()
        loop, stopped = self._loop, self._stopped
        if loop is not None and stopped is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stopped.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Not uvicorn's way: main_loop has its own."""
        yield

    async def main_loop(self) -> None:
        """Waits for the end."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        with self._signals(self._stopped):
            if self._early.is_set():
                self._stopped.set()
            if self._ready is not None:
                self._ready()
            while not self._stopped.is_set() and (left := self._left()) != 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), left)
            self._app.state.end()

    def _left(self) -> float | None:
        """Seconds until it may end for idleness: None for never, 0 for now."""
        if not self._idle:
            return None
        if self.server_state.connections:
            return self._idle
        used: float = self.server_state.used  # type: ignore[attr-defined]
        return max(0.0, used + self._idle - time.monotonic())

    @contextlib.contextmanager
    def _signals(self, stopped: asyncio.Event) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        caught = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
        for number in caught:
            loop.add_signal_handler(number, stopped.set)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)
                handler: Any = before[number]
                if handler is not None:
                    signal.signal(number, handler)


def loopback() -> socket.socket:
    """Listens on 127.0.0.1, at a port that the system chose. Raises SystemCallError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.bind(("127.0.0.1", 0))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise from_os_error(error, "127.0.0.1") from error
    return made


@contextlib.contextmanager
def unix(path: Path) -> Iterator[socket.socket]:
    """Listens at `path`, where anyone may connect; the file is gone afterwards.

    A socket that a killed server left is replaced.  Raises ExistsError when another
    server listens there or something else is in the way, SystemCallError.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _clear(path)
            made.bind(str(path))
            # before listen(): nobody can connect to it earlier
            os.chmod(path, 0o666)  # noqa: S103
            made.listen(_BACKLOG)
            ours = os.lstat(path)
        except OSError as error:
            raise from_os_error(error, path) from error
        try:
            yield made
        finally:
            with contextlib.suppress(OSError):
                now = os.lstat(path)
                if (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino):
                    os.unlink(path)
    finally:
        made.close()


def _clear(path: Path) -> None:
    """Removes a socket on which nobody listens any more."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ExistsError("the socket's name is taken by something else", file=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise ExistsError("another server listens there", file=path, hint="End it, or use --socket.")
