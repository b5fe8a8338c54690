"""Looks after connections from another thread: ends those that wait too long, or must stop."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .pace import Pace, SlowTransferError

#: seconds between two looks at the clock and at the stop event
_TICK = 0.1


class Watch:
    """Ends a connection that waits too long, or when `stop` is set.

    A socket's timeout starts anew with each byte, so that a server which drips its
    header would hold a reader for hours; only another thread can end that.
    """

    def __init__(self, stop: threading.Event | None) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._connections: list[HTTPConnection] = []
        self._late: SlowTransferError | None = None
        self._answered = False

    def begin(self) -> None:
        """Forgets the last transfer's verdict."""
        self._late, self._answered = None, False

    def answered(self) -> None:
        """The header came: from here on the body's own rate counts."""
        self._answered = True

    @contextlib.contextmanager
    def over(self, url: str, pace: Pace) -> Iterator[None]:
        """Watches for the time of the with block."""
        done = threading.Event()
        thread = threading.Thread(target=self._run, args=(done, url, pace), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def verdict(self) -> SlowTransferError | None:
        """Why it ended the connection; None when it did not."""
        return self._late

    def entered(self, connection: HTTPConnection) -> None:
        """A connection was made."""
        with self._lock:
            self._connections = [c for c in self._connections if c.sock is not None]
            self._connections.append(connection)

    def pool_classes(self) -> dict[str, type[urllib3.HTTPConnectionPool]]:
        """Connection pools whose connections are watched."""
        watch = self

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.entered(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.entered(self)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}

    def _run(self, done: threading.Event, url: str, pace: Pace) -> None:
        began = time.monotonic()
        patience = pace.connect_timeout + 2 * pace.read_timeout
        while not done.wait(_TICK):
            taken = time.monotonic() - began
            if pace.total is not None and taken > pace.total:
                self._late = SlowTransferError(
                    "it takes longer than it may", file=url, expected=f"{pace.total:g} s"
                )
            elif not self._answered and taken > patience:
                self._late = SlowTransferError(
                    "the server's header takes too long", file=url, expected=f"{patience:g} s"
                )
            elif self._stop is None or not self._stop.is_set():
                continue
            self._end_connections()

    def _end_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
