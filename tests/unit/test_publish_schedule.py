"""Jobs of all sizes on a few threads: order, threads, memory, progress, and how all of it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bsipatch import parallel
from bsipatch.errors import CancelledError, CorruptError
from bsipatch.publish import schedule
from bsipatch.publish.schedule import Task, _Board, run

Progress = Callable[[float], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "TICK", 0.001)


def order(tasks: list[Task], threads: int = 1, memory: int = 0) -> list[tuple[int, int]]:
    begun: list[tuple[int, int]] = []
    run(tasks, lambda i, n, _: begun.append((i, n)), threads=threads, memory=memory)
    return begun


def test_the_largest_is_begun_first_and_equals_in_order() -> None:
    tasks = [Task(size, 1) for size in (3, 9, 1, 9, 0)]
    assert [index for index, _ in order(tasks)] == [1, 3, 0, 2, 4]
    assert order([]) == []


def test_a_large_part_of_the_work_left_gets_several_threads() -> None:
    board = _Board([Task(size, 1) for size in (100, 10, 10, 5)], 4, 0)
    assert [board.claim() for _ in range(4)] == [(0, 3), (1, 1), (2, 1), (3, 1)]
    board.release(0)
    board = _Board([Task(50, 1), Task(50, 1)], 2, 0)
    assert board.claim() == (0, 1)
    board.release(0)
    assert board.claim() == (1, 2)  # alone now


def test_nothing_but_empty_jobs() -> None:
    assert order([Task(0, 0)] * 3, threads=2)[0] == (0, 1)


# --- memory ---------------------------------------------------------------------------------------


def test_what_runs_together_fits_together() -> None:
    tasks = [Task(i, memory) for i, memory in enumerate((5, 3, 8, 2, 7, 1, 4, 20, 6, 3))]
    lock, now, most, seen = threading.Lock(), 0, 0, set()

    def work(index: int, threads: int, progress: Progress) -> None:
        nonlocal now, most
        with lock:
            now += tasks[index].memory
            seen.add(index)
            if index != 7:  # more than the bound: it must run alone
                most = max(most, now)
            else:
                assert now == 20
        threading.Event().wait(0.002)
        with lock:
            now -= tasks[index].memory

    run(tasks, work, threads=4, memory=10)
    assert seen == set(range(10))
    assert most <= 10


def test_small_jobs_run_beside_a_large_one_but_never_keep_it_waiting() -> None:
    # Memory by size: the first runs, the second must wait for it, the others are guests.
    board = _Board([Task(9, 6), Task(8, 7), Task(7, 4), Task(6, 3), Task(5, 1)], 5, 10)
    assert board.claim()[0] == 0
    assert board.claim()[0] == 3  # 4 would not fit beside the second once that runs
    assert board._next() is None  # nor would 1 and 3 together
    board.release(0)
    assert board.claim()[0] == 1
    assert board._next() is None
    board.release(3)
    assert board.claim()[0] == 4
    board.release(1)
    assert board.claim()[0] == 2


# --- progress -------------------------------------------------------------------------------------


def test_progress_counts_what_runs_and_ends_at_the_whole() -> None:
    told: list[tuple[int, int]] = []
    waiting = threading.Event()

    def work(index: int, threads: int, progress: Progress) -> None:
        if index == 0:
            progress(0.5)
            progress(0.2)  # never back
            assert waiting.wait(5)
        else:
            progress(7.0)

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if done == 70:
            waiting.set()

    run([Task(100, 1), Task(20, 1)], work, threads=2, tell=tell)
    assert told[-1] == (120, 120)
    assert (70, 120) in told
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# --- ends -----------------------------------------------------------------------------------------


def until_stopped(index: int, threads: int, progress: Progress) -> None:
    while True:
        progress(0.1)
        threading.Event().wait(0.0005)


def test_the_first_failure_is_told_and_stops_the_others() -> None:
    begun = []

    def work(index: int, threads: int, progress: Progress) -> None:
        begun.append(index)
        if index == 1:
            raise CorruptError("the cause")
        until_stopped(index, threads, progress)

    with pytest.raises(CorruptError, match="the cause"):
        run([Task(9 - i, 1) for i in range(5)], work, threads=2)
    assert sorted(begun) == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, CancelledError])
def test_stopping_from_the_calling_thread_ends_every_job(error: type[BaseException]) -> None:
    def tell(done: int, total: int) -> None:
        if done:
            raise error

    with pytest.raises(error):
        run([Task(100, 1)] * 4, until_stopped, threads=2, tell=tell)
    assert not [t for t in threading.enumerate() if t.name.startswith("bsipatch")]


def test_a_job_that_waits_for_memory_is_stopped_too() -> None:
    def work(index: int, threads: int, progress: Progress) -> None:
        threading.Event().wait(0.01)
        raise CorruptError("the cause")

    with pytest.raises(CorruptError):
        run([Task(2, 9), Task(1, 9)], work, threads=2, memory=10)


def test_the_bound_is_half_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> Callable[[Path], str]:
        return lambda path: text

    monkeypatch.setattr(schedule.os, "sysconf", lambda name: 1000)
    monkeypatch.setattr(Path, "read_text", read("max\n"))
    assert schedule.memory_bound() == 500_000
    monkeypatch.setattr(Path, "read_text", read("4000\n"))
    assert schedule.memory_bound() == 2000

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(schedule.os, "sysconf", unknown)
    monkeypatch.setattr(Path, "read_text", read("max\n"))
    assert schedule.memory_bound() == 0
