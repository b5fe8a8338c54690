"""The fuzz targets without a fuzzer: compiled into one shared library and called by name.

``python -m tests.support.fuzz_targets NAME FILE...`` runs a target on files, each named on
standard output before it is tried, so that whoever started it knows which one crashed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

from tests.support.native import CSRC, FLAGS, core_library

FUZZ = CSRC / "fuzz"
CORPUS = Path(__file__).resolve().parents[1] / "fuzz-corpus"


def names() -> list[str]:
    """All targets."""
    return sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.c"))


@lru_cache(maxsize=1)
def library() -> Path:
    """Compiles the targets once per change; needs the core library, which it finds by itself."""
    core = core_library()
    extra = shlex.split(os.environ.get("BSIPATCH_TEST_CFLAGS", ""))
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*shlex.split(compiler), *FLAGS, *extra]
    digest = hashlib.sha256(core.name.encode())
    sources = sorted(FUZZ.glob("*.c"))
    for path in [*sources, *FUZZ.glob("*.h")]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    made = core.with_name(f"fuzz-{digest.hexdigest()[:20]}.so")
    if not made.exists():
        partial = made.with_suffix(f".{os.getpid()}.tmp")
        subprocess.run(
            [*command, "-o", str(partial), *map(str, sources), str(core), "-lpthread"], check=True
        )
        partial.replace(made)
    return made


def main(name: str, files: list[str]) -> None:
    """Runs one target on files."""
    target = getattr(ctypes.CDLL(str(library())), f"fuzz_{name}")
    target.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    for file in files:
        print(file, flush=True)
        data = Path(file).read_bytes()
        target(data, len(data))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
