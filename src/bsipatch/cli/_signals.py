"""Ctrl-C and errors: how a command ends when it does not end well.

While a piece of work is under way a signal only sets a flag that the work
polls, so that it stops between two steps and cleans up after itself.  At any
other time the signal raises KeyboardInterrupt as usual.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

INTERRUPTED = 130

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

#: set once a signal came; what polls it is named in `working`
stop = threading.Event()
_work = 0


def _handle(number: int, frame: FrameType | None) -> None:
    stop.set()
    if _work == 0:
        raise KeyboardInterrupt


@contextlib.contextmanager
def catching(*, to_the_end: bool = False) -> Iterator[None]:
    """Installs the handlers for the time of a command, and puts back what was there.

    `to_the_end`: afterwards the process only ends, and signals are ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop.clear()
    old = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
            old[number] = signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler)


@contextlib.contextmanager
def working() -> Iterator[threading.Event]:
    """The work inside polls the given event; signals meanwhile raise nothing."""
    global _work
    _work += 1
    try:
        if stop.is_set():
            raise KeyboardInterrupt
        yield stop
    finally:
        _work -= 1


def stopping(
    progress: Callable[[str, int, int], None], stop: threading.Event
) -> Callable[[str, int, int], None]:
    """`progress`, but raising CancelledError once `stop` is set."""

    def tell(phase: str, done: int, total: int) -> None:
        if stop.is_set():
            from ..errors import CancelledError

            raise CancelledError
        progress(phase, done, total)

    return tell


def guarded(command: Callable[[], int], *, json: bool) -> int:
    """Runs a command and returns its exit code; no error ends in a traceback."""
    try:
        return command()
    except KeyboardInterrupt:
        message = "stopped on request; nothing was changed"
        say_error({"error": "cancelled", "exit_code": INTERRUPTED, "message": message}, json)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader went away (`| head`); keep the interpreter from complaining at exit
        with contextlib.suppress(OSError):
            sys.stdout = None
        return 141
    except Exception as error:
        return _report(error, json)


def _report(error: Exception, json: bool) -> int:
    from ..errors import BsipatchError, InternalError, from_os_error

    if isinstance(error, BsipatchError):
        known = error
    elif isinstance(error, OSError):
        name = error.filename if isinstance(error.filename, str) else None
        known = from_os_error(error, name)
    elif isinstance(error, MemoryError):
        from ..errors import OutOfMemoryError

        known = OutOfMemoryError()
    else:
        import os

        if os.environ.get("BSIPATCH_TRACEBACK"):
            raise error
        known = InternalError(
            f"{type(error).__name__}: {error}",
            hint="Please report it; BSIPATCH_TRACEBACK=1 shows where it happened.",
        )
    say_error({**known.as_dict(), "class": type(known).__name__}, json, text=str(known))
    return known.exit_code


def say_error(facts: dict[str, Any], json: bool, *, text: str | None = None) -> None:
    """One message on stderr; under --json one object on stdout."""
    if json:
        import json as json_module

        print(json_module.dumps(facts | {"ok": False}, sort_keys=True, default=str), flush=True)
    else:
        from ._output import printable

        said = printable(text or facts["message"])
        print(f"bsipatch: {said}", file=sys.stderr, flush=True)
