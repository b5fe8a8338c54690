"""Which of the programs that an improvement names still run with the tree from before it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .service_state import Process

_PROC = Path("/proc")
#: the kernel keeps this many bytes of a program's name
_COMM = 15
#: seconds by which a start may seem earlier than it was: /proc counts whole ticks
_SLACK = 1.0


def running(names: Iterable[str], since: float, *, proc: Path = _PROC) -> tuple[Process, ...]:
    """Processes of these names that began before `since` (seconds since 1970), by pid.

    Empty where there is no /proc: nobody can know there.  Never raises.
    """
    wanted = set(names)
    if not wanted:
        return ()
    try:
        booted = _booted(proc)
        pids = sorted(int(entry) for entry in os.listdir(proc) if entry.isdecimal())
    except (OSError, ValueError):
        return ()
    found = []
    for pid in pids:
        name = _name(proc / str(pid), wanted)
        began = None if name is None else _began(proc / str(pid), booted)
        if name is not None and began is not None and began < since - _SLACK:
            found.append(Process(name=name, pid=pid))
    return tuple(found)


def restarted(since: float, *, proc: Path = _PROC) -> bool | None:
    """Whether this machine, or container, has started since a moment; None when nobody can know.

    Told by its first process: a container has one of its own, a start of the kernel has not.
    """
    try:
        began = _began(proc / "1", _booted(proc))
    except (OSError, ValueError):
        return None
    return None if began is None else began >= since - _SLACK


def _name(process: Path, wanted: set[str]) -> str | None:
    """Which of the names it goes by: that of its file, or what it calls itself."""
    try:
        program = os.path.basename(os.readlink(process / "exe")).removesuffix(" (deleted)")
        if program in wanted:
            return program
    except OSError:
        pass  # another user's process: only its short name can be seen
    try:
        comm = (process / "comm").read_text("utf-8", "replace").rstrip("\n")
    except OSError:
        return None
    return next((name for name in sorted(wanted) if comm == name[:_COMM]), None)


def _booted(proc: Path) -> float:
    for line in (proc / "stat").read_text("ascii", "replace").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise ValueError("no btime")


def _began(process: Path, booted: float) -> float | None:
    try:
        text = (process / "stat").read_text("utf-8", "replace")
        # the name in brackets may contain anything; field 22 counts from the one after it
        ticks = int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return booted + ticks / os.sysconf("SC_CLK_TCK")
