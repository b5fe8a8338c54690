"""`bsipatch check-store`: reads everything again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import _feed_sources, _output, _signals
from ._options import Jobs, Json, Store, threads

_SHOWN = 50


def command(
    store: Store,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what drifted; remove what was added.")
    ] = False,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            exists=True,
            help="With --repair: an update file or a folder that holds the right files, "
            "beside the other generations; repeat for several.",
        ),
    ] = None,
    from_feed: Annotated[
        bool,
        typer.Option(
            "--from-feed",
            help="With --repair: what is still wrong then comes from the feed that the store "
            "follows, by as few updates as bring it.",
        ),
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Digest every file of every generation and report what drifted, and how.

    Ends with exit code 33 when anything did. With --repair each rotten file is
    made anew from another generation that holds its content, or from --from,
    verified, and renamed into its place, even while it is live; then everything
    repaired is read again, and 33 means that something could not be put right.
    With --from-feed updates are downloaded for what is left, and only then.

    Examples:

      bsipatch check-store --store /var/lib/bsipatch/webkit

      bsipatch check-store --repair --from WebKit.framework

      bsipatch check-store --repair --from-feed
    """
    from .. import store as stores
    from ..errors import TreeDriftError, UsageError

    if (sources or from_feed) and not repair:
        option = "--from-feed" if from_feed else "--from"
        raise UsageError(f"{option} is of use with --repair alone")
    asked, given = None, tuple(sources or ())

    with (
        stores.Store(store) as opened,
        _output.progress(json) as bar,
        _signals.working() as stop,
    ):
        work = stores.Work(jobs=threads(jobs), progress=bar, stop=stop)

        def check(checked: stores.Store, more: Sequence[Path]) -> stores.CheckReport:
            return stores.check(checked, work=work, repair=repair, sources=[*given, *more])

        report = check(opened, ())
        if from_feed and not report.sound:
            report, asked = _feed_sources.repair(
                opened.root, report, check, progress=bar, stop=stop
            )
    facts = {
        "sound": report.sound,
        "generations": list(report.checked),
        "size": report.size,
        "recovered": list(report.recovered),
        "repaired": [
            {
                "generation": item.generation,
                "path": item.path,
                "what": item.what,
                "source": item.source,
                "blocks": item.blocks,
            }
            for item in report.repaired
        ],
        "drift": [
            {"generation": item.generation, "path": item.path, "reason": item.reason}
            for item in report.drift
        ],
        "feed": None
        if asked is None
        else {
            "fetched": asked.fetched,
            "received": asked.received,
            "problem": asked.problem or None,
        },
    }
    lines = list(report.recovered)
    for fixed in report.repaired:
        blocks = "" if fixed.blocks is None else f", {fixed.blocks} blocks"
        source = f" from {fixed.source}{blocks}" if fixed.source else ""
        lines.append(f"generation {fixed.generation}: {fixed.path}: {fixed.what}; repaired{source}")
    for item in report.drift[:_SHOWN]:
        where = f"{item.path}: " if item.path else ""
        lines.append(f"generation {item.generation}: {where}{item.reason}")
    if len(report.drift) > _SHOWN:
        lines.append(f"and {len(report.drift) - _SHOWN} more; --json lists all")
    if asked is not None and asked.fetched:
        lines.append(f"Fetched for it: {', '.join(asked.fetched)}")
    if asked is not None and asked.problem:
        lines.append(f"From the feed no more could be had: {asked.problem}")
    if report.sound:
        count = len(report.checked)
        lines.append(
            f"{count} generation{'' if count == 1 else 's'} sound, {_output.size(report.size)} read"
        )
    if report.sound:
        _output.emit(json, facts, lines)
        return
    advice = "`bsipatch check-store --repair` puts back what can be had from elsewhere."
    if repair:
        advice = "Name what has it with --from, a tree or an update, or ask the feed: --from-feed."
    wrong = TreeDriftError(
        _output.number(len(report.drift), "finding"), file=opened.root, hint=advice
    )
    _output.fail(json, facts, lines, wrong)
