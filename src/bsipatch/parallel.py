"""Threads for calls that run without the GIL, and a way out of them for Ctrl-C.

The calling thread only waits: it reports progress, and when anything is raised in
it (KeyboardInterrupt above all) it stops the workers and waits for them before the
exception goes on, so that no buffer is taken away from under a running call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
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


def join(*threads: threading.Thread) -> None:
    """Waits for the threads whatever happens; further interrupts are swallowed meanwhile."""
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
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

    thread = threading.Thread(target=run, name="bsipatch-call", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(TICK)
            if tick is not None:
                tick()
    except BaseException:
        cancel()
        join(thread)
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
) -> None:
    """Runs task(0) to task(count - 1), begun in order, on `jobs` threads.

    `done(index)` is called here for each finished task, in ascending order, while
    others still run.  The exception of the lowest failing index is raised once no
    task runs any more; what had not begun by then never does.
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
                changed.notify()

    threads: list[threading.Thread] = []
    try:
        for number in range(min(jobs, count)):
            thread = threading.Thread(target=work, name=f"bsipatch-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system refuses more threads: fewer do the work
                if not threads:
                    raise
                break
            threads.append(thread)
        for index in range(count):
            while True:
                with changed:
                    if index in finished or raised:
                        break
                    changed.wait(TICK)
                if tick is not None:
                    tick()
            if raised:
                break
            finished.discard(index)
            if done is not None:
                done(index)
    finally:
        stopped = True
        join(*threads)
    if raised:
        raise raised[min(raised)]
