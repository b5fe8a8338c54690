"""Steps back behind everything else on the machine: processor, disk.

Linux keeps these values for each thread, and a new thread takes over its
maker's: call lower() before any thread is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

import msgspec

#: number of the system call ioprio_set, by machine
_IOPRIO_SET = {
    "x86_64": 251,
    "i686": 289,
    "aarch64": 30,
    "riscv64": 30,
    "loongarch64": 30,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}
_WHO_PROCESS = 1
_CLASS_SHIFT = 13
_BEST_EFFORT = 2
_LOWEST = 7
_NICE = 10
#: Darwin's setiopolicy_np: disk, this process, throttled
_DARWIN_POLICY = (0, 0, 3)


class Lowered(msgspec.Struct, frozen=True):
    """What took effect: the nice value, and whether the scheduler and the disk were told."""

    nice: int
    batch: bool
    disk: bool


def lower(nice: int = _NICE) -> Lowered:
    """Gives this process low priority, as far as the system lets it; never raises.

    Not the idle classes: a process that is never let run while it holds the store's
    lock would keep everyone else waiting for as long.
    """
    value = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(value, nice))
        value = max(value, nice)
    batch = False
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            batch = True
    return Lowered(value, batch, _lower_disk())


def _lower_disk() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return bool(libc.setiopolicy_np(*_DARWIN_POLICY) == 0)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None or not sys.platform.startswith("linux"):
        return False
    # A 32-bit program on a 64-bit kernel has other numbers than uname says.
    if sys.maxsize <= 2**32 and os.uname().machine in ("x86_64", "aarch64"):
        return False
    priority = _BEST_EFFORT << _CLASS_SHIFT | _LOWEST
    arguments = (ctypes.c_long(number), ctypes.c_int(_WHO_PROCESS), ctypes.c_int(0))
    return bool(libc.syscall(*arguments, ctypes.c_int(priority)) == 0)
