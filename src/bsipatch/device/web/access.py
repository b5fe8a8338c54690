"""Who may ask for what: peers of the Unix socket by their user, browsers by all of their signs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from starlette.requests import HTTPConnection

from ...errors import BsipatchError
from .peers import Peer
from .tokens import Session, Sessions

CSRF = "x-bsipatch-csrf"
#: the one address that is read without a header
EVENTS = "/v1/events"
#: the hosts under which loopback is asked for; any other name is DNS rebinding or a mistake
_HOST = re.compile(r"(?:127\.0\.0\.1|\[::1\]|localhost):([0-9]{1,5})")
#: what a browser says of a request that a page of ours, or a person, made
_SITES = ("same-origin", "none")


class Refused(Exception):  # noqa: N818
    """A request that is not answered: the HTTP status, a code and a sentence."""

    def __init__(self, status: int, code: str, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.hint = status, code, text, hint


class Access(Protocol):
    """Decides on every request before it is looked at any further."""

    def reads(self, request: HTTPConnection) -> None:
        """Raises Refused unless the state may be read."""
        ...

    def changes(self, request: HTTPConnection) -> None:
        """Raises Refused unless things may be changed."""
        ...


def peer_of(request: HTTPConnection) -> Peer | None:
    """Who the server says is at the other end."""
    found = request.scope.get("state", {}).get("peer")
    return found if isinstance(found, Peer) else None


def _user(request: HTTPConnection, trusted: Callable[[], frozenset[int]]) -> None:
    """Raises Refused for a peer that is known and is not one of these users."""
    peer = peer_of(request)
    if peer is not None and peer.uid not in _now(trusted):
        raise Refused(
            403,
            "forbidden",
            f"{peer.name} may not change this device's improvements",
            "Ask the store's owner or an administrator.",
        )


def _now(trusted: Callable[[], frozenset[int]]) -> frozenset[int]:
    try:
        return trusted()
    except (OSError, BsipatchError):
        return frozenset({0})


class SocketAccess:
    """Of the Unix socket: everybody reads, root and the store's owner change.

    A browser cannot connect to a Unix socket, so what belongs to browsers is refused rather
    than understood: a request with an Origin has come through somebody's proxy.
    """

    def __init__(self, trusted: Callable[[], frozenset[int]]) -> None:
        self._trusted = trusted

    def reads(self, request: HTTPConnection) -> None:
        """Anyone on this machine."""
        if "origin" in request.headers:
            raise Refused(403, "origin", "browsers are not answered here")

    def changes(self, request: HTTPConnection) -> None:
        """Those whom the kernel vouches for."""
        self.reads(request)
        if peer_of(request) is None:
            raise Refused(403, "forbidden", "the system does not say who is asking")
        _user(request, self._trusted)


class PageAccess:
    """Of loopback: a browser that has a session, and asks from our own page.

    A browser sends cookies to every port of a host, so to any program of this machine that
    answers on loopback: the cookie alone opens nothing.  The second token is in the page's
    own storage, which belongs to one port.
    """

    def __init__(self, sessions: Sessions, trusted: Callable[[], frozenset[int]]) -> None:
        self.sessions, self._trusted = sessions, trusted

    def reads(self, request: HTTPConnection) -> None:
        """Only from a page with the session's cookie and its second token."""
        session = self.session(request)
        # An event stream cannot carry a header of ours.
        streams = request.url.path == EVENTS
        said = request.query_params.get("csrf", "") if streams else request.headers.get(CSRF, "")
        if not session.says(said):
            raise Refused(403, "csrf", "the request does not carry this session's token")

    def changes(self, request: HTTPConnection) -> None:
        """Only from our page, too."""
        self.from_page(request)
        self.reads(request)

    def session(self, request: HTTPConnection) -> Session:
        """The session that the cookie names, on a request that the addresses allow."""
        self.addressed(request)
        _user(request, self._trusted)
        found = self.sessions.session(request.cookies.get(cookie(request), ""))
        if found is None:
            raise Refused(
                401,
                "no-session",
                "this page has not been opened with its token, or its session has ended",
                "Run `bsipatch settings` again.",
            )
        return found

    def addressed(self, request: HTTPConnection) -> None:
        """Raises Refused for a wrong Host, and for what another site's page asks."""
        port = _port(request)
        hosts = request.headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None or int(match[1]) != port:
            raise Refused(421, "host", "this server has another name and port")
        site = request.headers.get("sec-fetch-site", "none")
        origins = request.headers.getlist("origin")
        if site not in _SITES or any(origin != f"http://{hosts[0]}" for origin in origins):
            raise Refused(403, "origin", "another site's page asked for this")

    def from_page(self, request: HTTPConnection) -> None:
        """Raises Refused unless the browser says that our own page asks, and its user may."""
        self.addressed(request)
        _user(request, self._trusted)
        if "origin" not in request.headers:
            raise Refused(403, "origin", "the request does not say which page it comes from")


def cookie(request: HTTPConnection) -> str:
    """The cookie's name: ports share cookies, so it carries the port."""
    return f"bsipatch-{_port(request)}"


def _port(request: HTTPConnection) -> int:
    server = request.scope.get("server")
    return int(server[1] or 0) if server else 0
