"""Many jobs of very different size at once: the largest first, threads and memory shared.

As many jobs run as there are threads.  A job that is a large part of all the work left gets
several threads of its own; the operating system evens out the rest, for one file's work is
parallel only in parts.  What the running jobs are expected to allocate stays below a bound; a
job that expects more than the bound runs alone.  None of this has a say in what a job makes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bsipatch.errors import CancelledError
from bsipatch.parallel import each

__all__ = ["Task", "memory_bound", "run"]


@dataclass(frozen=True, slots=True)
class Task:
    """What a job is expected to take: size, in any unit of work, and bytes of memory."""

    size: int
    memory: int


#: a job's work: its index, its threads, and what it is to call with the share that is done
Work = Callable[[int, int, Callable[[float], None]], None]


def run(
    tasks: Sequence[Task],
    work: Work,
    *,
    threads: int,
    memory: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Does `work(index, threads, progress)` for each task, on several threads.

    memory: bytes that running jobs may expect together, 0 for no bound.
    tell: called here, on this thread, some times a second with the size done and in all.
    The first exception of any job, or one raised here (by `tell`, or by Ctrl-C), ends all:
    `progress` raises CancelledError in the other jobs, no more are begun, and once none runs
    any more it goes on to the caller.
    """
    if not tasks:
        return
    board = _Board(tasks, threads, memory)
    total = sum(task.size for task in tasks)

    def one(number: int) -> None:
        index, share = board.claim()
        try:
            work(index, share, lambda done: board.advance(index, done))
        except BaseException as error:
            board.stop(error)
            raise
        finally:
            board.release(index)

    try:
        each(
            len(tasks),
            threads,
            one,
            tick=None if tell is None else lambda: tell(board.done(), total),
            cancel=board.stop,
        )
    except BaseException:
        # What a job was told to stop for is the cause, not that it stopped.
        if board.cause is not None:
            raise board.cause from None
        raise
    if tell is not None:
        tell(total, total)


class _Board:
    """Which jobs wait, which run, and what they have of threads and memory."""

    def __init__(self, tasks: Sequence[Task], threads: int, memory: int) -> None:
        self._tasks, self._threads, self._bound = tasks, threads, memory
        self._waiting = sorted(range(len(tasks)), key=lambda i: (-tasks[i].size, i))
        self._running: dict[int, float] = {}  # index -> share done
        self._guests: set[int] = set()
        self._finished = 0
        self._left = sum(task.size for task in tasks)
        self._stopped = False
        self._changed = threading.Condition()
        #: the first exception that a job raised
        self.cause: BaseException | None = None

    def claim(self) -> tuple[int, int]:
        """Waits for a job that may begin; its index and its threads. Raises CancelledError."""
        with self._changed:
            while not self._stopped:
                index = self._next()
                if index is not None:
                    self._waiting.remove(index)
                    self._running[index] = 0.0
                    return index, self._share(self._tasks[index].size)
                self._changed.wait()
        raise CancelledError

    def release(self, index: int) -> None:
        """The job has ended, one way or another."""
        with self._changed:
            del self._running[index]
            self._guests.discard(index)
            self._finished += self._tasks[index].size
            self._left -= self._tasks[index].size
            self._changed.notify_all()

    def stop(self, cause: BaseException | None = None) -> None:
        """No job begins any more, and those that run are told to end."""
        with self._changed:
            if not self._stopped:
                self._stopped = True
                self.cause = cause
            self._changed.notify_all()

    def advance(self, index: int, share: float) -> None:
        """A job's progress. Raises CancelledError when it is to end."""
        with self._changed:
            if self._stopped:
                raise CancelledError
            self._running[index] = max(self._running[index], min(share, 1.0))

    def done(self) -> int:
        """Size done, of jobs that have ended and of those that run; it never goes back."""
        with self._changed:
            running = sum(int(self._tasks[i].size * share) for i, share in self._running.items())
            return self._finished + running

    def _share(self, size: int) -> int:
        part = round(self._threads * size / self._left) if self._left else 1
        return max(1, min(part, self._threads))

    def _next(self) -> int | None:
        """The largest waiting job that fits; smaller ones only beside it, never before it.

        A job that does not fit yet lets others begin only while it could run beside them: so
        a stream of small jobs cannot keep a large one waiting.
        """
        head = self._waiting[0]
        used = sum(self._tasks[index].memory for index in self._running)
        if not self._bound or not self._running or used + self._memory(head) <= self._bound:
            return head
        hosted = sum(self._tasks[index].memory for index in self._guests)
        room = min(self._bound - used, self._bound - self._memory(head) - hosted)
        for index in self._waiting[1:]:
            if self._memory(index) <= room:
                self._guests.add(index)
                return index
        return None

    def _memory(self, index: int) -> int:
        return self._tasks[index].memory


def memory_bound() -> int:
    """Half of what this process may have: of the machine's memory, or its control group's."""
    amounts = []
    with suppress(ValueError, OSError):
        amounts.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):  # "max" is no number, and other systems have no such file
        amounts.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min((amount for amount in amounts if amount > 0), default=0) // 2
