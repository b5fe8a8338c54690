"""Server-sent events: what the service tells, and what other processes changed in the store."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

import msgspec

from ...store import records
from ...store.history import HISTORY
from .. import logs, policy_files, schedule, service_beacon
from ..following import FEED
from ..service import DeviceService
from ..service_state import Event

#: seconds between two looks at the store while somebody follows; a comment keeps the line alive
_LOOK = 2.0
_ALIVE = 15.0
_MOST_STREAMS = 32
_NAMES = (
    HISTORY,
    records.CURRENT,
    records.TRIAL,
    schedule.NAME,
    service_beacon.NAME,
    policy_files.SETTINGS,
    logs.NAME,
    f"{FEED}/metadata",
    f"{FEED}/config.toml",
)


class Watch:
    """Who follows, and what the store looks like from outside. For the loop's thread only."""

    def __init__(self, service: DeviceService) -> None:
        self._root = service.root
        self._streams: set[Stream] = set()

    def close(self) -> None:
        """Ends every stream; in the loop's thread."""
        for stream in tuple(self._streams):
            stream.finish()

    def enter(self, stream: Stream) -> bool:
        """One more; False when there are too many."""
        if len(self._streams) >= _MOST_STREAMS:
            return False
        self._streams.add(stream)
        return True

    def leave(self, stream: Stream) -> None:
        """One less."""
        self._streams.discard(stream)

    def stamp(self) -> tuple[object, ...]:
        """Something else as soon as any process has changed the store."""
        found: list[object] = []
        for name in _NAMES:
            try:
                status = os.lstat(self._root / name)
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


class Stream:
    """One follower. Progress that was not fetched is replaced by what is newer."""

    def __init__(
        self, service: DeviceService, watch: Watch, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._service, self._watch, self._loop = service, watch, loop
        self._waiting: list[Event] = []
        self._there = asyncio.Event()
        self._end: Callable[[], None] | None = None
        self._over = False

    def finish(self) -> None:
        """The server ends: the last line has been sent."""
        self._over = True
        self._there.set()

    def open(self) -> bool:
        """Begins; False when there are too many."""
        if not self._watch.enter(self):
            return False
        self._end = self._service.subscribe(self._told)
        return True

    def close(self) -> None:
        """Ends. Safe to call twice."""
        end, self._end = self._end, None
        if end is not None:
            end()
            self._watch.leave(self)

    def _told(self, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._add, event)

    def _add(self, event: Event) -> None:
        if event.kind != "finished" and self._waiting and self._waiting[-1].kind == event.kind:
            self._waiting.pop()
        self._waiting.append(event)
        self._there.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """The events as text/event-stream, without end."""
        seen, quiet = self._watch.stamp(), 0.0
        yield _line(Event(kind="changed", progress=self._service.progress()))
        while not self._over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._there.wait(), _LOOK)
            self._there.clear()
            events, self._waiting = self._waiting, []
            now = self._watch.stamp()
            if now != seen and not any(event.kind == "changed" for event in events):
                events.append(Event(kind="changed"))
            seen = now
            for event in events:
                yield _line(event)
            quiet = 0.0 if events else quiet + _LOOK
            if quiet >= _ALIVE:
                quiet = 0.0
                yield b": still here\n\n"


def _line(event: Event) -> bytes:
    return b"event: " + event.kind.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
