"""The fault injector faults.c: compiled once, loaded before everything else, armed from Python."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("faults.c")
_FLAGS = ["-std=c11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC"]


@dataclass(frozen=True)
class Fault:
    """What happens at the Nth call: an errno, or 0 for SIGKILL; `lasts` for calls that write."""

    name: str
    error: int
    lasts: bool = False


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("EIO", errno.EIO),
        Fault("ENOSPC", errno.ENOSPC, lasts=True),
        Fault("EINTR", errno.EINTR),
        Fault("EMFILE", errno.EMFILE),
        Fault("EROFS", errno.EROFS, lasts=True),
        Fault("SIGKILL", 0),
    )
}


def library() -> Path:
    """The shared library, compiled when it is not there yet."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*shlex.split(compiler), *_FLAGS]
    digest = hashlib.sha256(" ".join(command).encode() + _SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"bsipatch-faults-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    target = folder / f"{digest}.so"
    if not target.exists():
        building = folder / f"{digest}.{os.getpid()}.so"
        subprocess.run([*command, "-o", str(building), str(_SOURCE)], check=True)
        building.rename(target)
    return target


def preloaded() -> bool:
    """Whether this process was started with the injector."""
    return hasattr(ctypes.CDLL(None), "bspf_arm")


def restart(module: str, arguments: list[str]) -> None:
    """Starts this process over as `python -m module`, with the injector loaded."""
    environment = {**os.environ, "LD_PRELOAD": str(library())}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def arm(nth: int, fault: Fault) -> None:
    """The nth counted call from now on fails; 0 only counts."""
    ctypes.CDLL(None).bspf_arm(ctypes.c_long(nth), fault.error, int(fault.lasts))


def counted() -> int:
    """Calls since arm()."""
    count = ctypes.CDLL(None).bspf_counted
    count.restype = ctypes.c_long
    return int(count())


def fired() -> str | None:
    """The call that failed, None when none has."""
    name = ctypes.create_string_buffer(32)
    if ctypes.CDLL(None).bspf_fired(name, ctypes.c_size_t(32)):
        return name.value.decode()
    return None
