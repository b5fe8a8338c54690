"""The operation that a device's service has under way: one at a time, its progress, its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from ..errors import StoreBusyError
from .service_beacon import Beacon
from .service_state import Event, Operation, Outcome, Progress
from .service_view import stamp

#: seconds between two events of progress
_INTERVAL = 0.1
#: seconds between two of them for other processes
_SHOWN = 0.5
#: seconds over which the rate is measured
_WINDOW = 5.0
#: after this phase the work is this machine's alone, and lasts as long as it did before
_DOWNLOADING = "downloading"

Work = Callable[[], Outcome]
Failed = Callable[[Operation, str, BaseException], Outcome]
Listener = Callable[[Event], None]


class Running:
    """Safe from several threads."""

    def __init__(self, clock: Callable[[], float], beacon: Beacon) -> None:
        self._clock, self._beacon = clock, beacon
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._progress: Progress | None = None
        self._outcome: Outcome | None = None
        self._thread: threading.Thread | None = None
        self._told = self._shown = 0.0
        self._points: deque[tuple[float, int]] = deque()
        self._expected: float | None = None
        self._local = 0.0
        #: of the operation under way; what works polls it
        self.stop = threading.Event()

    def progress(self) -> Progress | None:
        """Of what is under way."""
        with self._lock:
            return self._progress

    def outcome(self) -> Outcome | None:
        """Of what ended last."""
        with self._lock:
            return self._outcome

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls it with every event until the returned function is called."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def tell(self, event: Event) -> None:
        """Calls every listener. One that fails must not end an installation."""
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            with contextlib.suppress(Exception):
                listener(event)

    def run(self, operation: Operation, update: str, work: Work, failed: Failed) -> Outcome:
        """Does the work here.

        Raises StoreBusyError while another runs, here or elsewhere, and what it raises.
        """
        self._begin(operation, update)
        return self._work(operation, update, work, failed)

    def start(self, operation: Operation, update: str, work: Work, failed: Failed) -> Progress:
        """Does the work in a thread of its own. Raises StoreBusyError while another runs."""
        begun = self._begin(operation, update)

        def body() -> None:
            with contextlib.suppress(BaseException):  # the outcome tells it
                self._work(operation, update, work, failed)

        thread = threading.Thread(target=body, name=f"bsipatch {operation}")
        self._thread = thread
        thread.start()
        return begun

    def cancel(self) -> bool:
        """Asks what is under way to stop."""
        with self._lock:
            if self._progress is None:
                return False
            self.stop.set()
            self._progress = msgspec.structs.replace(self._progress, stopping=True)
            event = Event(kind="progress", progress=self._progress)
        self.tell(event)
        return True

    def wait(self, timeout: float | None) -> bool:
        """For the end of what start() began."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Stops it and waits."""
        self.cancel()
        self.wait(None)

    def expect(self, seconds: float | None) -> None:
        """How long what comes after the download will take; None when nobody knows."""
        with self._lock:
            self._expected = seconds

    def advance(self, phase: str, done: int, total: int) -> None:
        """Told by the work, from any of its threads; bytes."""
        now = time.monotonic()
        with self._lock:
            known = self._progress
            if known is None:
                return
            points = self._points
            if phase != known.phase:
                points.clear()
                self._told = self._shown = 0.0
            points.append((now, done))
            while len(points) > 2 and points[0][0] < now - _WINDOW:
                points.popleft()
            spent, gained = now - points[0][0], done - points[0][1]
            rate = gained / spent if spent > _INTERVAL and gained > 0 else None
            left = (total - done) / rate if rate and total else None
            self._progress = msgspec.structs.replace(
                known,
                phase=phase,
                done=done,
                total=total,
                rate=rate,
                left=left,
                left_all=self._left_all(phase, left, now),
            )
            if now - self._shown >= _SHOWN:
                self._shown = now
                self._beacon.write(self._progress)
            if now - self._told < _INTERVAL and done < total:
                return
            self._told = now
            event = Event(kind="progress", progress=self._progress)
        self.tell(event)

    def _left_all(self, phase: str, left: float | None, now: float) -> float | None:
        """With the lock held."""
        if phase == _DOWNLOADING:
            self._local = 0.0
            return None if left is None or self._expected is None else left + self._expected
        self._local = self._local or now
        if self._expected is None:
            return None
        # One that takes longer than the ones before is not said to be over.
        return max(self._expected - (now - self._local), left or 0.0, 1.0)

    def _begin(self, operation: Operation, update: str) -> Progress:
        with self._lock:
            if self._progress is not None:
                raise StoreBusyError(
                    f"{self._progress.operation} is under way here since {self._progress.began}",
                    hint="Wait for its end, or stop it.",
                )
            begun = Progress(operation=operation, update=update, began=stamp(self._clock()) or "")
            self._beacon.light(begun)
            self.stop = threading.Event()
            self._points.clear()
            self._told = self._shown = 0.0
            self._expected, self._local = None, 0.0
            self._progress = begun
        self.tell(Event(kind="progress", progress=begun))
        return begun

    def _work(self, operation: Operation, update: str, work: Work, failed: Failed) -> Outcome:
        try:
            outcome = work()
        except BaseException as error:
            self._end(failed(operation, update, error))
            raise
        self._end(outcome)
        return outcome

    def _end(self, outcome: Outcome) -> None:
        with self._lock:
            self._progress, self._outcome = None, outcome
            self._beacon.quench()
        self.tell(Event(kind="finished", outcome=outcome))
