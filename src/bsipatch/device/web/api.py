"""The application: /v1/... as JSON, progress as server-sent events, and for browsers the page.

One application for both doors; `access` decides who may do what (see access.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ... import __version__
from ...errors import BsipatchError, InternalError, StoreBusyError
from ..service import DeviceService
from .access import EVENTS, Access, PageAccess, Refused, cookie
from .feeding import Stream, Watch

VERSION = 1
_MOST_BODY = 1 << 14
_MOST_HISTORY = 1000
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/en.json": ("en.json", "application/json"),
    "/de.json": ("de.json", "application/json"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: error code -> HTTP status; 500 for the rest
_STATUS = {
    "policy": 403,
    "usage": 400,
    "config": 500,
    "not-found": 404,
    "store-busy": 409,
    "store-state": 409,
    "missing-dependency": 501,
    "wrong-product": 409,
    "wrong-platform": 409,
    "wrong-baseline": 409,
    "tree-drift": 409,
    "rollback": 409,
    "expired": 409,
    "transfer": 502,
    "feed": 502,
    "no-space": 507,
    "cancelled": 409,
}

_Body = TypeVar("_Body", bound=msgspec.Struct)
_Answer = Callable[[Request], Awaitable[Response]]


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Check(msgspec.Struct, forbid_unknown_fields=True):
    wait: bool = False


class _Install(msgspec.Struct, forbid_unknown_fields=True):
    update: str | None = None
    wait: bool = False


class _Remove(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""
    wait: bool = False


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    automatic: bool


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    token: str


def application(service: DeviceService, access: Access) -> Starlette:
    """The application over one device. With PageAccess it also serves the page."""
    api = _Api(service, access)
    routes = [
        Route("/v1", api.read(api.about), methods=["GET"]),
        Route("/v1/state", api.read(api.state), methods=["GET"]),
        Route(EVENTS, api.read(api.events), methods=["GET"]),
        Route("/v1/check", api.change(api.check), methods=["POST"]),
        Route("/v1/install", api.change(api.install), methods=["POST"]),
        Route("/v1/remove", api.change(api.remove), methods=["POST"]),
        Route("/v1/cancel", api.change(api.cancel), methods=["POST"]),
        Route("/v1/settings", api.change(api.settings), methods=["PUT"]),
    ]
    if isinstance(access, PageAccess):
        door = _Door(access)
        routes += [
            Route("/v1/session", door.open, methods=["POST"]),
            *(Route(path, door.page, methods=["GET"]) for path in _PAGE),
        ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            Refused: _refused,
            BsipatchError: _failed,
            HTTPException: _no_such,
            Exception: _defect,
        },
    )
    # what a server calls when it ends, for event streams have no end of their own
    app.state.end = api.watch.close
    return app


class _Api:
    def __init__(self, service: DeviceService, access: Access) -> None:
        self.service, self.access = service, access
        self.watch = Watch(service)

    def read(self, answer: _Answer) -> _Answer:
        """Behind the gate for reading."""

        async def gated(request: Request) -> Response:
            self.access.reads(request)
            return await answer(request)

        return gated

    def change(self, answer: _Answer) -> _Answer:
        """Behind the gate for changing."""

        async def gated(request: Request) -> Response:
            self.access.changes(request)
            return await answer(request)

        return gated

    async def about(self, request: Request) -> Response:
        return _json({"name": "bsipatch", "version": __version__, "api": VERSION})

    async def state(self, request: Request) -> Response:
        asked = request.query_params.get("history", "100")
        if not asked.isascii() or not asked.isdigit() or int(asked) > _MOST_HISTORY:
            raise Refused(400, "usage", f"history is a number from 0 to {_MOST_HISTORY}")
        return _json(await run_in_threadpool(self.service.state, history=int(asked)))

    async def check(self, request: Request) -> Response:
        body = await _body(request, _Check)
        return await self._began(lambda: self.service.start("check"), wait=body.wait)

    async def install(self, request: Request) -> Response:
        body = await _body(request, _Install)
        return await self._began(lambda: self.service.start("install", body.update), wait=body.wait)

    async def remove(self, request: Request) -> Response:
        body = await _body(request, _Remove)
        return await self._began(
            lambda: self.service.start("remove", reason=body.reason[:500]), wait=body.wait
        )

    async def cancel(self, request: Request) -> Response:
        await _body(request, _Nothing)
        if not await run_in_threadpool(self.service.cancel):
            other = await run_in_threadpool(self.service.progress)
            where = "" if other is None else f"; process {other.process} has {other.operation}"
            raise Refused(409, "store-state", f"nothing is under way here{where}")
        return _json({"progress": self.service.progress()}, 202)

    async def settings(self, request: Request) -> Response:
        body = await _body(request, _Settings)
        await run_in_threadpool(self.service.set_automatic, body.automatic)
        state = await run_in_threadpool(self.service.state, history=0)
        return _json({"automatic": state.automatic})

    async def _began(self, begin: Callable[[], object], *, wait: bool) -> Response:
        progress = await run_in_threadpool(begin)
        if not wait:
            return _json({"progress": progress}, 202)
        await run_in_threadpool(self.service.wait)
        outcome = self.service.outcome()
        assert outcome is not None
        return _json({"outcome": outcome}, 200 if outcome.ok else _STATUS.get(outcome.error, 500))

    async def events(self, request: Request) -> Response:
        stream = Stream(self.service, self.watch, asyncio.get_running_loop())
        if not stream.open():
            raise Refused(503, "too-many", "too many programs follow this device's events")

        async def lines() -> AsyncIterator[bytes]:
            with contextlib.closing(stream):
                async for line in stream.lines():
                    yield line

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_HEADERS)


class _Door:
    """What only a browser gets: the page, and a session for a token."""

    def __init__(self, access: PageAccess) -> None:
        self.access = access

    async def page(self, request: Request) -> Response:
        self.access.addressed(request)
        name, kind = _PAGE[request.url.path]
        data = resources.files(__package__).joinpath("page", name).read_bytes()
        return Response(data, headers={**_HEADERS, "Content-Type": kind})

    async def open(self, request: Request) -> Response:
        self.access.from_page(request)
        body = await _body(request, _Token)
        session = self.access.sessions.exchange(body.token)
        if session is None:
            raise Refused(
                403,
                "token",
                "the address was used already, or is too old",
                "Run `bsipatch settings` again.",
            )
        answer = _json({"csrf": session.csrf})
        answer.set_cookie(cookie(request), session.key, httponly=True, samesite="strict", path="/")
        return answer


async def _body(request: Request, kind: type[_Body]) -> _Body:
    """A request's JSON, by its struct; nothing counts as {}. Raises Refused."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = b""
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > _MOST_BODY:
                raise Refused(413, "limit", f"a request has at most {_MOST_BODY} bytes")
    except ClientDisconnect:
        raise Refused(400, "usage", "the request broke off") from None
    if data and media != "application/json":
        raise Refused(415, "usage", "a request's body is application/json")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "usage", f"not such a request: {error}") from None


def _json(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type="application/json",
        headers=_HEADERS,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    facts = {"error": error.code, "message": error.text}
    return _json(facts | ({"hint": error.hint} if error.hint else {}), error.status)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, BsipatchError)
    answer = _json(error.as_dict(), _STATUS.get(error.code, 500))
    if isinstance(error, StoreBusyError):
        answer.headers["Retry-After"] = "2"
    return answer


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "not-found" if error.status_code == 404 else "usage"
    return _json({"error": code, "message": error.detail}, error.status_code)


async def _defect(request: Request, error: Exception) -> Response:
    # What went wrong inside is for this device's log, not for whoever asked.
    return _json(InternalError(type(error).__name__).as_dict(), 500)
