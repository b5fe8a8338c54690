"""The Python side's threads: order, failures, interrupts."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from bsipatch.parallel import each, job_count, watch


@pytest.mark.parametrize("jobs", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_each_runs_all_and_reports_in_order(jobs: int, count: int) -> None:
    ran: list[int] = []
    done: list[int] = []
    each(count, jobs, ran.append, done=done.append)
    assert sorted(ran) == done == list(range(count))


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_each_raises_the_lowest_failure(jobs: int) -> None:
    def task(index: int) -> None:
        if index in (20, 21):
            raise ValueError(index)

    for _ in range(10):
        with pytest.raises(ValueError, match="20"):
            each(50, jobs, task)


def test_each_waits_for_what_runs_before_it_raises() -> None:
    running = threading.Event()
    ended: list[int] = []

    def task(index: int) -> None:
        if index == 0:
            running.set()
            time.sleep(0.1)
            ended.append(index)
        else:
            running.wait()
            raise ValueError

    with pytest.raises(ValueError):
        each(2, 2, task)
    assert ended == [0]


def test_watch_gives_result_and_exception() -> None:
    assert watch(lambda: 5, cancel=lambda: None) == 5

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        watch(fail, cancel=lambda: None)


def test_interrupts_stop_the_call_and_wait_for_it() -> None:
    """Even several in a row: the thread has ended when the exception arrives."""
    stop = threading.Event()
    ended: list[bool] = []

    def call() -> None:
        stop.wait(5)
        time.sleep(0.6)
        ended.append(True)

    def interrupt() -> None:
        for _ in range(4):
            time.sleep(0.08)
            os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        watch(call, cancel=stop.set)
    assert ended == [True]
    assert not interrupter.is_alive()


def test_job_count() -> None:
    assert job_count(None, 1000) >= 1
    assert job_count(0, 10) == 1
    assert job_count(99, 10) == 10


def test_what_runs_is_told_to_end_before_it_is_waited_for() -> None:
    ended = threading.Event()
    told = []

    def cancel() -> None:
        told.append(1)
        ended.set()

    def task(index: int) -> None:
        if index == 1:
            raise ValueError("the cause")
        assert ended.wait(10), "nobody told it to end"

    with pytest.raises(ValueError, match="the cause"):
        each(2, 2, task, cancel=cancel)
    assert told == [1]
    each(2, 2, lambda index: None, cancel=cancel)
    assert told == [1]  # not at a good end
