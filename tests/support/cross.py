"""C programs around the core for arm64: compiled here, run here or under an emulator.

On an arm64 machine the compiler is $CC and programs run as they are.  Elsewhere
$CROSS_COMPILE (aarch64-linux-gnu- when unset) stands before the compiler's name, and qemu
runs what it makes.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.native import CSRC, core_library, sources

NATIVE = Path(__file__).resolve().parents[1] / "native"
# As the package builds the core: what compilers make of plain loops is to be tried as well.
FLAGS = ["-std=c11", "-O3", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")


class MissingError(Exception):
    """What keeps arm64 programs from being made or run here."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How programs for one kind of processor are compiled and run."""

    compiler: tuple[str, ...]
    runner: tuple[str, ...]

    def run(self, program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end, whatever that is."""
        command = [*self.runner, str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def is_arm64() -> bool:
    """Whether this machine is one itself."""
    return platform.machine() in ("aarch64", "arm64")


def host() -> Machine:
    """This machine."""
    return Machine(tuple(shlex.split(os.environ.get("CC") or "cc")), ())


def arm64() -> Machine:
    """This machine where it is arm64, else an emulated one.

    Raises: MissingError with what is to be installed.
    """
    if is_arm64():
        return host()
    compiler = os.environ.get("CROSS_COMPILE", "aarch64-linux-gnu-") + "gcc"
    if shutil.which(compiler) is None:
        raise MissingError(f"{compiler} (Debian: gcc-aarch64-linux-gnu)")
    emulator = next((name for name in EMULATORS if shutil.which(name)), None)
    if emulator is None:
        raise MissingError(f"{EMULATORS[0]} (Debian: qemu-user-static or qemu-user)")
    # Static: the emulator then needs no libraries of that processor.
    machine = Machine((compiler, "-static"), (emulator,))
    if not _makes_programs(machine):
        raise MissingError(f"a C library for {compiler} (Debian: libc6-dev-arm64-cross)")
    return machine


def _makes_programs(machine: Machine) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "empty.c"), Path(folder, "empty")
        source.write_text("#include <stdlib.h>\nint main(void) { exit(0); }\n")
        command = [*machine.compiler, "-o", str(program), str(source)]
        compiled = subprocess.run(command, capture_output=True, check=False)
        return compiled.returncode == 0 and machine.run(program).returncode == 0


@functools.cache
def _core_objects(machine: Machine) -> tuple[Path, ...]:
    """The core compiled for `machine`, once per change of its sources."""
    command = [*machine.compiler, *FLAGS, "-c"]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in sorted([*sources(), *CSRC.rglob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = core_library().parent / f"cross-{digest.hexdigest()[:20]}"
    names = [path.stem + ".o" for path in sources()]
    assert len(set(names)) == len(names), "two files of the core have one name"
    with (core_library().parent / "cross.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as made:
                subprocess.run([*command, *map(str, sources())], cwd=made, check=True)
                shutil.copytree(made, folder)
    return tuple(folder / name for name in names)


def build(machine: Machine, program: Path, files: Sequence[Path], *flags: str) -> Path:
    """Compiles `files` around the core into `program`.

    Raises: subprocess.CalledProcessError when the compiler refuses.
    """
    # For this machine the other tests have it; arm64 gets it as the package builds it.
    core = _core_objects(machine) if machine.runner or is_arm64() else (core_library(),)
    command = [*machine.compiler, *FLAGS, *flags, "-o", str(program)]
    subprocess.run([*command, *map(str, [*files, *core]), "-lpthread"], check=True)
    return program
