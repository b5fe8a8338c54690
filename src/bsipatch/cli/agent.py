"""`bsipatch agent`: keeps the device protected while nobody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import _output, _signals
from ._options import Json, Store

if TYPE_CHECKING:
    from pathlib import Path

    from ..device.agent.deciding import Step
    from ..device.schedule import Timing


def command(
    store: Store,
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due now, and end; for timers.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="With --once: ask the feed although it is not due.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            min=1,
            metavar="SECONDS",
            help="Between two checks, give or take a sixth; default: six hours.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="ADDRESS:PORT", help="Answer Prometheus here: 127.0.0.1:9464."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check, fetch, install, try and revert by itself, as the policy says.

    Resident it sleeps until its next check, or until something it waits for has happened, and
    starts a process of its own for each piece of work. With --once it does what is due and
    ends; when nothing is, at once.

    Examples:

      bsipatch agent --store /var/lib/bsipatch/webkit

      bsipatch agent --once --now --store /var/lib/bsipatch/webkit --json
    """
    from ..errors import UsageError

    if once and metrics:
        raise UsageError("--once answers nobody", hint="Leave --metrics out.")
    if now and not once:
        raise UsageError("--now goes with --once", hint="`bsipatch check` asks the feed as well.")
    if once:
        _once(store, every, now, json)
        return
    _stay(store, every, metrics)


def _stay(store: Path, every: float | None, metrics: str | None) -> None:
    """Becomes the resident agent: another program in this process, without the parser's weight."""
    import os
    import sys

    from ..store import Store as Opened

    with Opened(store) as opened:
        root = opened.root
    _needs_feed()
    given = [str(root), "" if every is None else str(every), metrics or ""]
    os.execv(sys.executable, [sys.executable, "-m", "bsipatch.device.agent", *given])  # noqa: S606


def _needs_feed() -> None:
    from importlib.util import find_spec

    from ..errors import MissingDependencyError

    for name in ("tuf", "urllib3"):
        if find_spec(name) is None:
            raise MissingDependencyError(
                f"following a feed needs {name}", hint="pip install 'bsipatch[feed]'"
            )


def _once(store: Path, every: float | None, now: bool, json: bool) -> None:
    import os
    import time

    from ..device.agent import early, single
    from ..device.agent import memo as memos
    from ..store import Store as Opened

    timing = early.timing(every)
    with Opened(store) as opened:
        root = opened.root
    if not now and early.quiet(root, time.time(), timing):
        known = memos.load(root)
        facts = {"steps": [], "waits_for": known.doing, "until": _moment(known.wake)}
        _output.emit(json, facts, [f"Nothing is due; waits for: {known.doing}"])
        return
    lock = single.lock(root)
    try:
        _work(root, timing, now, json)
    finally:
        os.close(lock)


def _work(root: Path, timing: Timing, now: bool, json: bool) -> None:
    from ..device import priority

    _needs_feed()
    from ..device.agent.working import Agent

    steps: list[Step] = []
    priority.lower()
    with _signals.working() as stop, Agent(root, timing=timing, told=steps.append) as agent:
        rest = agent.work(stop, now=now)
        state = agent.service.state(history=0)
    done = [step for step in steps if step.do != "rest"]
    facts = {
        "steps": [{"do": step.do, "update": step.update or None} for step in done],
        "waits_for": rest.why,
        "until": _moment(rest.until),
        "standing": state.standing,
        "display": state.installed.display,
        "build": state.installed.build,
    }
    lines = [f"{step.do} {step.update}".rstrip() for step in done]
    lines += [f"Live: {state.product} {state.installed.display}", f"Waits for: {rest.why}"]
    _output.emit(json, facts, lines)


def _moment(seconds: float) -> str:
    from . import _feed

    return _feed.moment(int(seconds))
