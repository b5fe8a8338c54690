"""`bsipatch install`: what the feed offers goes live; what it withdrew goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _feed, _output, _signals
from ._options import Jobs, Json, Store, threads


def command(
    store: Store,
    update: Annotated[
        str | None, typer.Argument(help="An update's id; left out for the best.", metavar="[ID]")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: use what check and fetch have brought.")
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Install what the feed offers: the smallest way first, and where it fails the next.

    An improvement that its publisher has withdrawn is taken off first, when the
    notice says so. Any refusal, failure or Ctrl-C leaves the old tree live.

    Examples:

      bsipatch install --store /var/lib/bsipatch/webkit

      bsipatch install WebKit-26.3.1-a-0123456789ab --store STORE --json
    """
    from ..device import policy as policies
    from ..device.agent.early import note_check
    from ..device.logs import Log
    from ..device.telemetry import follow_up

    _forbidden_without_a_feed(store)
    with (
        _output.progress(json) as bar,
        _signals.working() as stop,
        _feed.session(store, jobs=threads(jobs), progress=bar, stop=stop, asked=True) as opened,
    ):
        view = opened.view(offline=offline, stop=stop)
        if not offline:
            note_check(opened.store.root, opened.feed.device_id)
        done = opened.installer.install(view, update)
        if done.plan is None and done.withdrawn is None:
            policies.allow_install(opened.policy)
        follow_up.install(Log(opened.store.root), done)
        live = opened.store.live_path
    facts = {
        "installed": _feed.plan_facts(done.plan),
        "generations": [applied.generation.number for applied in done.applied],
        "withdrawn": _feed.withdrawn_facts(done.withdrawn),
        "fallbacks": _feed.fallback_facts(done.fallbacks),
        "received": done.received,
        "full_size": done.full or None,
        "live": str(live),
        "version": done.live.version,
        "letter": done.live.letter,
        "display": done.live.display,
        "build": done.live.build,
        "feed": _feed.feed_facts(view),
    }
    lines = [*_feed.withdrawn_lines(done.withdrawn), *_feed.fallback_lines(done.fallbacks)]
    if done.plan is None:
        if not lines:
            lines = ["Nothing to install; `bsipatch check` says why."]
    else:
        was = done.applied[0].was
        saved = "" if not done.full else f", a full update has {_output.short_size(done.full)}"
        lines += _output.columns(
            [
                ("Live", f"{done.live.product} {done.live.display}, build {done.live.build}"),
                ("Was", f"{was.display}, build {was.build}"),
                ("Path", str(live)),
                ("Received", f"{_output.size(done.received)}{saved}"),
                ("Time", _output.seconds(sum(applied.seconds for applied in done.applied))),
            ]
        )
    _output.emit(json, facts, lines)


def _forbidden_without_a_feed(store: Path) -> None:
    """What an administrator forbids is forbidden, whether or not there is a feed to ask."""
    from ..device import policy as policies
    from ..device.agent.early import CONFIG
    from ..store import Store as Opened

    with Opened(store) as opened:
        if not (opened.root / CONFIG).exists():
            policies.allow_install(policies.load(opened.root, limits=opened.limits))
