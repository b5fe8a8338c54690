"""`bsipatch feed check`: the whole feed as a device would see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _output, _signals
from .._options import Json, Threshold
from . import _common


def command(
    feed: _common.Place,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FILE", help="The root that devices trust."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            envvar="BSIPATCH_FEED_KEYS",
            metavar="DIR",
            help="A folder of keys, whose root is trusted when --root is not given.",
        ),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", "-t", metavar="PUB", help="Who must have signed the updates."),
    ] = None,
    threshold: Threshold = 1,
    json: Json = False,
) -> None:
    """Read a feed as devices do: all metadata, every update file, each against its offer.

    Examples:

      bsipatch feed check --feed /srv/feed --root root.json --trust public.pem

      bsipatch feed check --feed https://updates.example.org/feed --root root.json
    """
    from ... import trust as trusting
    from ...errors import FeedError, UsageError, from_os_error

    with _common.needing_feed():
        from ...publish.feed.checks import check_feed
        from ...publish.feed.storage import open_storage
    file = root if root is not None else keys / "root.json" if keys is not None else None
    if file is None:
        raise UsageError("no root to trust is given", hint="Name one with --root.")
    try:
        trusted = file.read_bytes()
    except OSError as error:
        raise from_os_error(error, file) from error
    policy = None
    if trust:
        policy = trusting.Policy([trusting.load_public(path) for path in trust], threshold)
    with _output.progress(json) as bar, _signals.working() as stop:
        tell = _signals.stopping(bar, stop)
        report = check_feed(
            open_storage(feed),
            trusted,
            policy=policy,
            progress=lambda done, total: tell("check", done, total),
        )
    found = [{"where": finding.where, "what": finding.what} for finding in report.findings]
    facts = {
        "offers": report.offers,
        "files": report.payloads,
        "bytes": report.bytes,
        "findings": found,
    }
    lines = [f"{finding.where}: {finding.what}" for finding in report.findings]
    if report.findings:
        wrong = FeedError(
            f"{_output.number(len(lines), 'finding')}, the first: {lines[0]}",
            file=feed,
            hint="Devices would refuse what is named here.",
        )
        _output.fail(json, facts, lines, wrong)
    lines.append(
        f"{_output.number(report.offers, 'offer')}, {_output.number(report.payloads, 'file')}, "
        f"{_output.size(report.bytes)}: all well."
    )
    _output.emit(json, facts, lines)
