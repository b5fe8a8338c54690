"""Threads for calls that run without the GIL, and a way out of them for Ctrl-C.

The calling thread only waits: it reports progress, and when anything is raised in
it (KeyboardInterrupt above all) it stops the workers and waits for them before the
exception goes on, so that no buffer is taken away from under a running call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

#: seconds between two looks at a running call
TICK = 0.05


def job_count(jobs: int | None, most: int) -> int:
    """`jobs`, or one for each processor this process may use; at least 1, at most `most`."""
    if jobs is None:
        try:
            jobs = len(os.sched_getaffinity(0))
        except AttributeError:  # macOS
            jobs = os.cpu_count() or 1
    return max(1, min(jobs, most))


class Worker:
    """A thread that is waited for by an event of its own.

    Thread.join cannot be trusted with interrupts: CPython 3.11 takes a thread whose
    join was interrupted for ended while it still runs.
    """

    def __init__(self, call: Callable[[], None], name: str) -> None:
        """`call` must not raise."""
        self._call = call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"bsipatch-{name}", daemon=True)

    def _run(self) -> None:
        try:
            self._call()
        finally:
            self._ended.set()

    def start(self) -> None:
        """Raises RuntimeError when the system refuses another thread."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the call has returned, after at most so many seconds."""
        return self._ended.wait(seconds)

    def finish(self) -> None:
        """Waits to the end whatever happens; further interrupts are swallowed meanwhile."""
        while not self._ended.is_set():
            try:
                self._ended.wait()
            except KeyboardInterrupt:
                continue


def watch(
    call: Callable[[], T],
    *,
    cancel: Callable[[], None],
    tick: Callable[[], None] | None = None,
) -> T:
    """Runs `call` in a thread and gives its result or raises its exception here.

    `tick` is called here some times a second.  When it, or a signal handler, raises,
    `cancel` is called, the thread is waited for, and the exception goes on.
    """
    results: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            raised.append(error)

    worker = Worker(run, "call")
    worker.start()
    try:
        while not worker.wait(TICK):
            if tick is not None:
                tick()
        if tick is not None:
            tick()
    except BaseException:
        cancel()
        worker.finish()
        raise
    if raised:
        raise raised[0]
    return results[0]


def each(
    count: int,
    jobs: int,
    task: Callable[[int], None],
    *,
    done: Callable[[int], None] | None = None,
    tick: Callable[[], None] | None = None,
    cancel: Callable[[], None] | None = None,
) -> None:
    """Runs task(0) to task(count - 1), begun in order, on `jobs` threads.

    `done(index)` is called here for each finished task, in ascending order, and `tick`
    too, some times a second while others still run: waking this thread for each task
    would take the interpreter from those that work.  The exception of the lowest failing
    index is raised once no task runs any more; what had not begun by then never does.
    `cancel` is called, before the wait for what runs, when this call is about to end with
    an exception.
    """
    changed = threading.Condition()
    finished: set[int] = set()
    raised: dict[int, BaseException] = {}
    next_index = 0
    stopped = False

    def work() -> None:
        nonlocal next_index
        while True:
            with changed:
                if stopped or raised or next_index >= count:
                    return
                index = next_index
                next_index += 1
            try:
                task(index)
            except BaseException as error:
                with changed:
                    raised[index] = error
                    changed.notify()
                return
            with changed:
                finished.add(index)
                if len(finished) == count:
                    changed.notify()

    workers: list[Worker] = []
    ended = False
    try:
        for number in range(min(jobs, count)):
            workers.append(Worker(work, str(number)))
            try:
                workers[-1].start()
            except RuntimeError:  # the system refuses more threads: fewer do the work
                workers.pop()
                if not workers:
                    raise
                break
        told = 0
        all_finished = count == 0
        while not all_finished and not raised:
            with changed:
                if not raised and len(finished) < count:
                    changed.wait(TICK)
                all_finished = len(finished) == count
            if tick is not None:
                tick()
            while done is not None and told in finished:
                done(told)
                told += 1
        ended = not raised
    finally:
        stopped = True
        if cancel is not None and not ended:
            cancel()
        for worker in workers:
            worker.finish()
    if raised:
        raise raised[min(raised)]
