"""The ticket service: a small program that signs what one device may install.

::

    POST /ticket   {"device": "...", "nonce": "32 hex digits"}   ->  200, the signed envelope
    GET  /health   ->  200, {"ok": true}

Who may have what stands in a file that is read anew whenever it has changed:

    [devices."lab-7"]
    updates = ["Demo-26.3.1-a-0123456789ab"]

    [devices."*"]                         # everybody who is not named
    updates = []

The service holds one online key that signs tickets and nothing else: whoever steals it can let
devices have updates that the feed offers under ticket, and cannot offer any.
"""

from __future__ import annotations

import json
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsipatch.errors import (
    BsipatchError,
    ConfigError,
    MissingDependencyError,
    UsageError,
    from_os_error,
)
from bsipatch.feed.names import check_device_id, check_id
from bsipatch.feed.ticket import check_nonce, issue
from bsipatch.limits import DEFAULT, Limits
from bsipatch.trust import PrivateKey

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ANYBODY", "Grants", "make_app", "read_grants", "serve"]

#: stands for every device that has no entry of its own
ANYBODY = "*"
#: seconds that a ticket holds
VALID = 7 * 86400
_MOST_BODY = 4096


def read_grants(file: Path, *, limits: Limits = DEFAULT) -> dict[str, tuple[str, ...]]:
    """Device id, or "*", to ids of the updates it may have. Raises ConfigError, NotFoundError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.max_config_file + 1)
    except OSError as error:
        raise from_os_error(error, file) from error
    if len(data) > limits.max_config_file:
        raise ConfigError("the file is too large", file=file, expected=limits.max_config_file)
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}", file=file) from None
    devices = document.get("devices")
    if set(document) != {"devices"} or not isinstance(devices, dict):
        raise ConfigError("it must hold [devices.ID] tables and nothing else", file=file)
    return {name: _updates(name, table, file) for name, table in devices.items()}


def _updates(name: str, table: Any, file: Path) -> tuple[str, ...]:
    updates = table.get("updates") if isinstance(table, dict) else None
    if not isinstance(updates, list) or set(table) != {"updates"}:
        raise ConfigError(f"devices.{name} must be a table with a list of updates", file=file)
    try:
        if name != ANYBODY:
            check_device_id(name)
        return tuple(check_id(str(update)) for update in updates)
    except BsipatchError as error:
        raise ConfigError(f"devices.{name}: {error.detail}", file=file, found=error.found) from None


class Grants:
    """The file of grants, read anew when it changes; a broken new version leaves the old in force.

    Safe for several threads.
    """

    def __init__(self, file: Path) -> None:
        """Raises ConfigError, NotFoundError."""
        self._file = file
        self._lock = threading.Lock()
        self._mark = self._stamp()
        self._granted: Mapping[str, tuple[str, ...]] = read_grants(file)
        self.problem: BsipatchError | None = None

    def of(self, device: str) -> tuple[str, ...] | None:
        """What the device may have; None when it is not known."""
        with self._lock:
            self._refresh()
            found = self._granted.get(device)
            return self._granted.get(ANYBODY) if found is None else found

    def devices(self) -> tuple[str, ...]:
        """Every name in the file."""
        with self._lock:
            return tuple(self._granted)

    def _refresh(self) -> None:
        try:
            mark = self._stamp()
            if mark != self._mark:
                self._granted, self._mark, self.problem = read_grants(self._file), mark, None
        except BsipatchError as error:
            self.problem = error

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._file.stat()
        except OSError as error:
            raise from_os_error(error, self._file) from error
        return (status.st_mtime_ns, status.st_size, status.st_ino)


def make_app(
    grants: Grants,
    keys: Sequence[PrivateKey],
    *,
    clock: Callable[[], int] | None = None,
    valid: int = VALID,
) -> Starlette:
    """The service as an ASGI application. Raises MissingDependencyError, UsageError."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependencyError(
            "the ticket service needs starlette", hint="Install bsipatch[tickets]."
        ) from error
    if valid <= 0:
        raise UsageError("a ticket must hold for a while", found=valid)
    now = clock if clock is not None else lambda: int(time.time())

    def refuse(status: int, code: str, text: str) -> Response:
        return JSONResponse({"error": code, "message": text}, status_code=status)

    def answer(device: str, nonce: str) -> Response:
        updates = grants.of(device)
        if not updates:
            return refuse(403, "not-granted", "nothing is granted to this device")
        envelope = issue(device, nonce, updates, keys, now=now(), valid=valid)
        return Response(
            envelope, media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def ticket(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                return refuse(413, "too-large", f"a request has at most {_MOST_BODY} bytes")
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict) or set(asked) != {"device", "nonce"}:
                return refuse(400, "bad-request", "expected an object with device and nonce")
            device = check_device_id(str(asked["device"]))
            nonce = check_nonce(str(asked["nonce"]))
        except (ValueError, RecursionError):
            return refuse(400, "bad-request", "not JSON")
        except BsipatchError as error:
            return refuse(400, "bad-request", error.message)
        return await run_in_threadpool(answer, device, nonce)

    async def health(request: Request) -> Response:
        problem = grants.problem
        facts = {"ok": problem is None, "problem": problem.message if problem else None}
        return JSONResponse(facts, status_code=200 if problem is None else 500)

    return Starlette(
        routes=[
            Route("/ticket", ticket, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ]
    )


def serve(app: Starlette, host: str, port: int) -> None:
    """Answers until it is interrupted. Raises MissingDependencyError."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError(
            "the ticket service needs uvicorn", hint="Install bsipatch[tickets]."
        ) from error
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
