"""The core's fork-join helper: every piece once, lowest failure, any job count."""

from __future__ import annotations

import os
import subprocess
import textwrap
from typing import Any

import pytest

from tests.support.native import CSRC, load

ffi, lib = load(
    """
    typedef int bspi_task(void *context, size_t index, unsigned worker);
    int bspi_parallel(unsigned jobs, size_t count, bspi_task *task, void *context);
    """
)


def run(jobs: int, count: int, body: Any) -> int:
    callback = ffi.callback("int(void *, size_t, unsigned)", lambda _, i, worker: body(i, worker))
    status: int = lib.bspi_parallel(jobs, count, callback, ffi.NULL)
    return status


@pytest.mark.parametrize("jobs", [0, 1, 2, 3, 8, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 500])
def test_every_piece_runs_once(jobs: int, count: int) -> None:
    seen: list[int] = []
    workers: set[int] = set()

    def body(index: int, worker: int) -> int:
        seen.append(index)
        workers.add(worker)
        return 0

    assert run(jobs, count, body) == 0
    assert sorted(seen) == list(range(count))
    assert all(worker < max(1, min(jobs, 256, max(count, 1))) for worker in workers)


@pytest.mark.parametrize("jobs", [1, 2, 4, 16])
def test_lowest_failure_wins(jobs: int) -> None:
    failing = {13: -22, 14: -23, 40: -10}
    for _ in range(20):
        assert run(jobs, 100, lambda index, _: failing.get(index, 0)) == -22


def test_nothing_starts_after_a_failure() -> None:
    seen: list[int] = []

    def body(index: int, _: int) -> int:
        seen.append(index)
        return -99 if index == 5 else 0

    assert run(1, 1000, body) == -99
    assert seen == list(range(6))


@pytest.mark.slow
def test_fewer_threads_do_the_same_work(tmp_path: Any) -> None:
    """Under an address space too small for more stacks, pthread_create fails; the work is done."""
    program = tmp_path / "few.c"
    program.write_text(
        textwrap.dedent(
            """
            #include "common/threads.h"
            #include <stdio.h>
            #include <sys/resource.h>
            static bsp_status task(void *context, size_t index, unsigned worker) {
                (void)index; (void)worker;
                __atomic_fetch_add((unsigned *)context, 1, __ATOMIC_RELAXED);
                return BSP_OK;
            }
            int main(void) {
                struct rlimit limit = {64u << 20, 64u << 20};
                unsigned done = 0;
                setrlimit(RLIMIT_AS, &limit);
                bsp_status status = bspi_parallel(200, 1000, task, &done);
                printf("%d %u\\n", (int)status, done);
                return 0;
            }
            """
        )
    )
    binary = tmp_path / "few"
    sources = [str(CSRC / "common" / name) for name in ("threads.c",)]
    subprocess.run(
        ["cc", "-std=gnu11", f"-I{CSRC}", "-o", binary, program, *sources, "-lpthread"], check=True
    )
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([binary], capture_output=True, text=True, check=True, env=plain)
    assert done.stdout.split() == ["0", "1000"]
