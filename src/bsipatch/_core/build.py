"""Builds the native core as a cffi module in out-of-line API mode.

Run by setuptools through setup.py.  It needs a C compiler and nothing else; the
result uses Python's limited API, so one build serves every later Python.

BSIPATCH_CFLAGS adds flags for the compiler and the linker (sanitizers).
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"

COMPILE = ["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]
# cffi's own glue neither follows C11's spirit nor our warnings.
GLUE = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-sign-compare"]
LINK = ["-pthread"] if sys.platform == "darwin" else ["-pthread", "-Wl,-z,relro,-z,now"]


def sources() -> list[str]:
    """Every C file of the core, relative to the project as setuptools wants them."""
    found = sorted(path for path in CSRC.rglob("*.c") if "fuzz" not in path.parts)
    return [os.path.relpath(path, ROOT) for path in found]


def make_builder() -> FFI:
    """The cffi builder that setup.py asks for."""
    extra = shlex.split(os.environ.get("BSIPATCH_CFLAGS", ""))
    builder = FFI()
    builder.cdef((HERE / "cdef.h").read_text())
    builder.set_source(
        "bsipatch._core._bsipatch",
        '#include "bsipatch.h"',
        sources=sources(),
        include_dirs=[os.path.relpath(CSRC / "include", ROOT)],
        depends=[os.path.relpath(path, ROOT) for path in sorted(CSRC.rglob("*.h"))],
        extra_compile_args=[*COMPILE, *GLUE, "-pthread", *extra],
        extra_link_args=[*LINK, *extra],
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
        py_limited_api=True,
    )
    return builder


ffibuilder = make_builder()
