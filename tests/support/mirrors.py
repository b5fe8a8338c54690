"""A mirror on loopback for tests: plain files with ranges and ETags, or any misbehaviour."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a dictionary, unless its server's behaviour does otherwise."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = unquote(self.path).lstrip("/")
        self.server.asked.append((path, self.headers.get("Range")))
        body = self.server.files.get(path)
        if self.server.behaviour is not None and self.server.behaviour(self, path, body):
            return
        if body is None:
            self.answer(404, b"")
        else:
            self.serve(body)

    def serve(self, body: bytes, *, etag: str | None = None, ranges: bool = True) -> None:
        """As a plain file server does."""
        tag = etag or f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        start = self.wanted_start(tag) if ranges else 0
        if start >= len(body) and start:
            self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        elif start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(206, body[start:], {"ETag": tag, "Content-Range": span})
        else:
            self.answer(200, body, {"ETag": tag})

    def wanted_start(self, tag: str) -> int:
        """Where the asked range begins; 0 for none, or when If-Range names another object."""
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or self.headers.get("If-Range", tag) != tag:
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """One whole answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self, body: bytes, after: int) -> None:
        """Promises everything from the asked offset on, sends `after` bytes, hangs up."""
        start = self.wanted_start(f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + after])
        self.close_connection = True

    def drip(self, body: bytes, pause: float = 0.02) -> None:
        """Sends one byte after the other until the client leaves or the test ends."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for at in range(len(body)):
                if self.server.done.is_set():
                    return
                self.wfile.write(body[at : at + 1])
                time.sleep(pause)

    def pour(self, body: bytes, *, length: int | None = None) -> int:
        """Sends `body` and then never stops, up to a bound; returns the extra chunks it got out."""
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True
        sent = 0
        with contextlib.suppress(OSError):
            self.wfile.write(body)
            while not self.server.done.is_set() and sent < POURED:
                self.wfile.write(b"x" * 65536)
                sent += 1
        self.server.poured.append(sent)
        return sent

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


#: chunks of 64 KiB after which pour() gives up: far more than any client may take
POURED = 4096

#: (handler, path, body): whether it has answered by itself
Behaviour = Callable[[Handler, str, bytes | None], bool]


class Server(http.server.ThreadingHTTPServer):
    """`asked`: every path and range, in order."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, files: dict[str, bytes], behaviour: Behaviour | None, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.files, self.behaviour = files, behaviour
        self.asked: list[tuple[str, str | None]] = []
        self.poured: list[int] = []
        self.done = threading.Event()

    @property
    def url(self) -> str:
        """Where it is, with a "/" at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def payloads_asked(self) -> list[str | None]:
        """The range of every request for a payload."""
        return [span for path, span in self.asked if path.startswith("targets/")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what many tests are about."""


@contextlib.contextmanager
def serving(
    files: dict[str, bytes], behaviour: Behaviour | None = None, *, port: int = 0
) -> Iterator[Server]:
    """A mirror for the time of the with block."""
    server = Server(files, behaviour, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        thread.join()
        server.server_close()
