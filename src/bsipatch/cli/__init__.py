"""The command line: `bsipatch COMMAND`, one module for each command.

Only the module of the command that was asked for is imported, so that a short
command does not pay for the others.
"""

from __future__ import annotations

import gc as garbage  # the name gc is that of a command's module here
import io
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and exits. `argv` is without the program's name.

    Without `argv` the process is ours: until the handlers are in place a signal
    ends it silently, and once the work is done none can spoil the exit code.
    """
    ours = argv is None
    if ours:
        _until_ready()
        # Loading modules makes many objects and no garbage: looking for it costs a tenth.
        garbage.set_threshold(50_000)
        # A name that is no text is shown as its bytes; it ends nothing.
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["-V"]):
        from .. import __version__

        print(f"bsipatch {__version__}")
        sys.exit(0)
    from . import _signals

    with _signals.catching(to_the_end=ours):
        code = _signals.guarded(lambda: _run(arguments), json="--json" in arguments)
    if ours:
        garbage.freeze()  # the end of the process takes everything; no need to search it first
    sys.exit(code)


def _until_ready() -> None:
    # The part of `signal` that is compiled in: loading the other takes milliseconds, in
    # which Ctrl-C would still end in a traceback.
    import _signal as signal  # type: ignore[import-not-found,unused-ignore]

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(arguments: list[str]) -> int:
    from ._app import run

    return run(arguments)
