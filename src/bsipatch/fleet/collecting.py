"""Takes the reports that devices send, and keeps one file for each device and day.

::

    DIR/2026-03-17/0123456789abcdef0123456789abcdef.json

Whatever else comes is refused: other paths, methods and types, more bytes than a report may
have, reports that break their gate, of other products or other times.  Who sent one is
written nowhere.  A device's newer report of a day replaces the older one; how many files
a day may have is bounded, for anybody can make up devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bsipatch.errors import (
    BsipatchError,
    CorruptError,
    LimitError,
    MissingDependencyError,
    NoSpaceError,
    from_os_error,
)
from bsipatch.fleet import model
from bsipatch.output import OutputFile

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

#: of a folder with one day's reports
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
#: seconds that a report may be older, and newer than our clock, when it comes
_OLDEST, _NEWEST = 2 * 86_400, 2 * 3600
#: seconds that a request may take
_PATIENCE = 10.0


class Folder:
    """Where reports are kept. Safe from several threads.

    products: of which reports are kept; none for all. most: files a day. keep: days after which
    a day's folder is removed, 0 for never.
    """

    def __init__(
        self,
        path: Path,
        *,
        products: frozenset[str] = frozenset(),
        most: int = 1_000_000,
        keep: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises NotFoundError, SystemCallError when it cannot be written to."""
        self._path, self._products, self._most, self._keep = path, products, most, keep
        self._clock = clock
        self._lock = threading.Lock()
        self._day, self._count = "", 0
        with self._lock:
            self._today()

    def put(self, data: bytes) -> bool:
        """Keeps a report; False when a newer one of this device is there.

        Raises CorruptError, LimitError for one that is none, that is not for here or not of
        now; NoSpaceError for one too many.
        """
        report = model.decode(data.strip())
        now = self._clock()
        if self._products and report.product not in self._products:
            raise CorruptError("a report of another product", found=ascii(report.product))
        if not now - _OLDEST <= report.made <= now + _NEWEST:
            raise CorruptError("a report of another time", expected=int(now), found=report.made)
        made = datetime.fromtimestamp(report.made, UTC)
        if report.period != made.strftime("%Y-%m"):
            raise CorruptError("a report whose month is not that of its time", found=report.period)
        with self._lock:
            path = self._today() / f"{report.device}.json"
            before = _made(path)
            if before is not None and before > report.made:
                return False
            if before is None:
                if self._count >= self._most:
                    raise NoSpaceError("as many reports as a day may have", expected=self._most)
                self._count += 1
            try:
                with OutputFile(path, mode=0o644) as out:
                    out.write(model.encode(report))
                    out.commit()
            except OSError as error:
                raise from_os_error(error, path) from error
        return True

    def _today(self) -> Path:
        """Today's folder, which is there. Raises NotFoundError, SystemCallError."""
        day = datetime.fromtimestamp(self._clock(), UTC)
        path = self._path / day.strftime("%Y-%m-%d")
        try:
            if path.name != self._day or not path.is_dir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
                self._count = sum(1 for _ in os.scandir(path))
                self._day = path.name
                self._forget(day)
        except OSError as error:
            raise from_os_error(error, path) from error
        return path

    def _forget(self, today: datetime) -> None:
        if not self._keep:
            return
        oldest = (today - timedelta(days=self._keep)).strftime("%Y-%m-%d")
        for entry in os.scandir(self._path):
            if DAY.fullmatch(entry.name) and entry.name < oldest:
                shutil.rmtree(entry.path, ignore_errors=True)


def _made(path: Path) -> int | None:
    """When the report that is there was made; None when there is none that counts."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        return model.decode(data).made
    except BsipatchError:
        return 0


def application(folder: Folder) -> Starlette:
    """POST /report and GET /health. Raises MissingDependencyError."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependencyError(
            "collecting reports needs starlette", hint="pip install 'bsipatch[tickets]'"
        ) from error

    def refuse(status: int, code: str, text: str) -> Response:
        return JSONResponse({"error": code, "message": text}, status_code=status)

    async def report(request: Request) -> Response:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json" or "content-encoding" in request.headers:
            return refuse(415, "usage", "a report is plain application/json")
        data = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > model.MOST_BYTES:
                        return refuse(413, "limit", f"at most {model.MOST_BYTES} bytes")
        except TimeoutError:
            return refuse(408, "usage", "the report did not come in time")
        except ClientDisconnect:
            return refuse(400, "usage", "the request broke off")
        try:
            kept = await run_in_threadpool(folder.put, bytes(data))
        except (CorruptError, LimitError) as error:
            return refuse(422, error.code, error.message)
        except NoSpaceError:
            return refuse(507, "no-space", "no more reports are taken today")
        except BsipatchError:
            return refuse(500, "internal", "the report could not be kept")
        return JSONResponse({"kept": kept})

    async def health(request: Request) -> Response:
        return JSONResponse({"ok": True})

    app = Starlette(
        routes=[
            Route("/report", report, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ]
    )
    app.state.end = lambda: None
    return app
