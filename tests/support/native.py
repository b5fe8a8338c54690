"""The core's internals for unit tests: all of csrc as one shared library, opened through cffi.

The extension module exports only what it needs; the tests want more.  They compile
the same sources with default visibility into a cache keyed by the sources' digest.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"
FLAGS = ["-std=c11", "-O2", "-g", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wconversion"]


def sources() -> list[Path]:
    return sorted(p for p in CSRC.rglob("*.c") if "fuzz" not in p.parts)


@lru_cache(maxsize=1)
def core_library() -> Path:
    """Compiles csrc once per change and gives the shared library's path.

    BSIPATCH_TEST_CFLAGS adds flags (sanitizers).
    """
    extra = shlex.split(os.environ.get("BSIPATCH_TEST_CFLAGS", ""))
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*shlex.split(compiler), *FLAGS, *extra]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in sorted([*sources(), *CSRC.rglob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    cache = Path(tempfile.gettempdir()) / f"bsipatch-test-core-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    library = cache / f"core-{digest.hexdigest()[:20]}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}.tmp")
        subprocess.run(
            [*command, "-o", str(partial), *map(str, sources()), "-lpthread"], check=True
        )
        partial.replace(library)
    return library


def load(cdef: str) -> tuple[FFI, Any]:
    """An FFI with `cdef` declared and the library opened against it."""
    ffi = FFI()
    ffi.cdef(cdef)
    return ffi, ffi.dlopen(str(core_library()))
