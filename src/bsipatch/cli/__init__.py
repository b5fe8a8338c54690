"""The command line: `bsipatch COMMAND`, one module for each command.

Only the module of the command that was asked for is imported, so that a short
command does not pay for the others.
"""

from __future__ import annotations

import sys

from . import _signals

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and exits. `argv` is without the program's name."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["-V"]):
        from .. import __version__

        print(f"bsipatch {__version__}")
        sys.exit(0)
    with _signals.catching():
        code = _signals.guarded(lambda: _run(arguments), json="--json" in arguments)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    from ._app import run

    return run(arguments)
