"""One object from one address: HTTP(S) or a folder, from any offset, within rates and times.

urllib3 does the HTTP: python-tuf uses it already, it verifies TLS by the system's
certificates, and it hands out bytes as they arrive (`read1`), which a minimum rate
needs: a reader that waits for a full buffer never notices a server that drips.

Nothing here trusts what it reads.  Whoever calls knows the size and the digest.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import urllib.request
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from .. import __version__
from ..closing import Closing
from ..errors import CancelledError, TransferError, UsageError
from ..limits import DEFAULT, Limits
from .pace import Meter, Pace, SlowTransferError
from .watch import Watch

__all__ = [
    "HttpStatusError",
    "Meter",
    "Pace",
    "Reply",
    "SlowTransferError",
    "Transport",
]

CHUNK = 1 << 16
#: redirects followed for one object
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "User-Agent": f"bsipatch/{__version__}",
    # Ranges count the bytes that travel, and a server's compression is not bounded by us.
    "Accept-Encoding": "identity",
}
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class HttpStatusError(TransferError):
    """The server answered, and it was no."""

    def __init__(self, detail: str, *, status: int, file: str) -> None:
        super().__init__(detail, file=file, found=status)
        self.status = status


class Reply(Protocol):
    """The body of an object, or the rest of it.

    start      offset of the first byte that chunks() gives
    size       bytes of the whole object, None when the server does not say
    validator  a strong ETag to resume by, None without one
    """

    @property
    def start(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def validator(self) -> str | None: ...
    def chunks(self) -> Iterator[bytes]: ...


class Transport(Closing):
    """Opens addresses. Use it as a context manager; one thread at a time.

    proxy: an address for everything, "" for none, None for what the environment says.
    stop: set it and whatever waits ends with CancelledError.
    """

    def __init__(
        self,
        pace: Pace | None = None,
        *,
        proxy: str | None = None,
        stop: threading.Event | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        self.pace = Pace.of(limits) if pace is None else pace
        self._proxy, self._stop = proxy, stop
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._watch = Watch(stop)
        #: bytes of bodies received so far, for the record
        self.received = 0

    def close(self) -> None:
        """Closes every connection. Safe to call twice."""
        for manager in self._managers.values():
            manager.clear()
        self._managers.clear()

    @contextlib.contextmanager
    def open(self, url: str, *, offset: int = 0, validator: str | None = None) -> Iterator[Reply]:
        """The object at `url` from `offset` on, or from 0 when the server does as it likes:
        look at Reply.start.  With `validator` only if it is still the same object.

        Raises HttpStatusError (any status but 200 and 206), SlowTransferError,
        TransferError, CancelledError, UsageError (an address that is none).
        """
        self._watch.begin()
        self.check()
        scheme = urlsplit(url).scheme
        if scheme == "file":
            with _open_local(url, offset) as local:
                yield _Counted(local, self)
            return
        if scheme not in ("http", "https"):
            raise UsageError("an address begins with https://, http:// or file://", file=url)
        with self._watch.over(url, self.pace):
            try:
                response, final = self._request(url, offset, validator)
                self._watch.answered()
                try:
                    yield _Counted(_HttpReply(response, final, offset), self)
                finally:
                    response.close()
                    response.release_conn()
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                self.check()
                raise _transfer_error(error, url) from error

    def post(self, url: str, body: bytes, most: int) -> bytes:
        """Sends JSON and returns the answer, of at most `most` bytes. Follows no redirect.

        Raises HttpStatusError, SlowTransferError, TransferError, CancelledError.
        """
        self._watch.begin()
        self.check()
        with self._watch.over(url, self.pace):
            try:
                response = self._manager(url).request(
                    "POST",
                    url,
                    body=body,
                    headers={**_HEADERS, "Content-Type": "application/json"},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=self._timeout(),
                )
                with contextlib.closing(response):
                    if response.status != 200:
                        raise HttpStatusError(
                            _words(response.status), status=response.status, file=url
                        )
                    reply = _Counted(_HttpReply(response, url, 0), self)
                    answer = bytearray()
                    for chunk in reply.chunks():
                        answer += chunk
                        if len(answer) > most:
                            raise TransferError("the answer is too long", file=url, expected=most)
                    return bytes(answer)
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                self.check()
                raise _transfer_error(error, url) from error

    def check(self) -> None:
        """Raises CancelledError once `stop` is set, SlowTransferError when the watch gave up."""
        if self._stop is not None and self._stop.is_set():
            raise CancelledError
        if (late := self._watch.verdict()) is not None:
            raise late

    def _request(
        self, url: str, offset: int, validator: str | None
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        headers = dict(_HEADERS)
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator is not None:
                headers["If-Range"] = validator
        at = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._manager(at).request(
                "GET",
                at,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=self._timeout(),
            )
            if response.status in (200, 206):
                return response, at
            response.close()
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                raise HttpStatusError(_words(response.status), status=response.status, file=at)
            there = urljoin(at, location)
            allowed = {"https"} if urlsplit(at).scheme == "https" else {"http", "https"}
            if urlsplit(there).scheme not in allowed:
                raise TransferError("it redirects to a weaker address", file=url, found=there)
            at = there
        raise TransferError("it redirects again and again", file=url, found=at)

    def _timeout(self) -> urllib3.Timeout:
        return urllib3.Timeout(connect=self.pace.connect_timeout, read=self.pace.read_timeout)

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxy_for(url)
        manager = self._managers.get(proxy)
        if manager is None:
            manager = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
            manager.pool_classes_by_scheme = self._watch.pool_classes()
            self._managers[proxy] = manager
        return manager

    def _proxy_for(self, url: str) -> str | None:
        if self._proxy is not None:
            return self._proxy or None
        parts = urlsplit(url)
        if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
            return None
        proxies = urllib.request.getproxies()
        return proxies.get(parts.scheme) or proxies.get("all")


class _Counted:
    """A reply whose bytes are held to the pace and counted."""

    def __init__(self, reply: Reply, transport: Transport) -> None:
        self._reply, self._transport = reply, transport
        self.start, self.size, self.validator = reply.start, reply.size, reply.validator

    def chunks(self) -> Iterator[bytes]:
        transport = self._transport
        meter = Meter(transport.pace, "the transfer")
        for chunk in self._reply.chunks():
            transport.check()
            transport.received += len(chunk)
            meter.took(len(chunk))
            yield chunk
        # A connection that the watch ended looks like the end of the object.
        transport.check()


class _HttpReply:
    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, asked: int) -> None:
        self._response, self._url = response, url
        self.start = 0
        self.size = _whole_number(response.headers.get("Content-Length"))
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TransferError("the server compresses what it was asked not to", file=url)
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != asked or int(match[2]) < int(match[1]):
                raise TransferError(
                    "the server sends another range than asked for",
                    file=url,
                    expected=f"bytes {asked}-",
                    found=response.headers.get("Content-Range", "no Content-Range"),
                )
            self.start = asked
            self.size = None if match[3] == "*" else int(match[3])
        etag = response.headers.get("ETag")
        # A weak one says "equal enough", which no range may rest on (RFC 9110, 13.1.5).
        self.validator = etag if etag and not etag.startswith("W/") and len(etag) <= 256 else None

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._response.read1(CHUNK, decode_content=False):
            yield chunk


class _LocalReply:
    def __init__(self, fd: int, start: int) -> None:
        self._fd, self.start = fd, start
        status = os.fstat(fd)
        self.size: int | None = status.st_size
        self.validator: str | None = f'"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"'

    def chunks(self) -> Iterator[bytes]:
        at = self.start
        while chunk := os.pread(self._fd, CHUNK, at):
            at += len(chunk)
            yield chunk


@contextlib.contextmanager
def _open_local(url: str, offset: int) -> Iterator[_LocalReply]:
    """A file of a feed in a folder, such as a USB stick. A name that climbs out is refused."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or "\0" in path or ".." in path.split("/"):
        raise TransferError("not a plain path on this machine", file=url)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise HttpStatusError("no such file", status=404, file=url) from None
    except OSError as error:
        raise TransferError(error.strerror or str(error), file=url) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TransferError("not a regular file", file=url)
        reply = _LocalReply(fd, offset)
        if offset > (reply.size or 0):
            raise HttpStatusError("no such range", status=416, file=url)
        yield reply
    except OSError as error:
        raise TransferError(error.strerror or str(error), file=url) from error
    finally:
        os.close(fd)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _transfer_error(error: Exception, url: str) -> TransferError:
    # The library counts a refused connection and an unknown name among the timeouts.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        cause = error.__cause__
        why = cause.strerror if isinstance(cause, OSError) else None
        return TransferError(f"no connection: {why or 'the network gives no reason'}", file=url)
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return SlowTransferError("nothing came for too long", file=url)
    inner = error.args[-1] if error.args and isinstance(error.args[-1], Exception) else error
    told = getattr(inner, "strerror", None) or str(inner)
    return TransferError(" ".join(told.split())[:300] or type(inner).__name__, file=url)


def _words(status: int) -> str:
    import http

    with contextlib.suppress(ValueError):
        return f"the server answers {status} {http.HTTPStatus(status).phrase}"
    return f"the server answers {status}"
