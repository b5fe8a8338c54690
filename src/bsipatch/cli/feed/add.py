"""`bsipatch feed add`: offers an update in a channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import _output, _passphrase, _signals
from .._options import ChannelName, Json, Threshold, Trust
from . import _common

if TYPE_CHECKING:
    from ...publish.feed.edits import Draft
    from ...publish.feed.offers import Described
    from ...trust import Policy


def command(
    updates: Annotated[list[Path], typer.Argument(help="Update files.", metavar="UPDATE...")],
    feed: _common.Place,
    keys: _common.Keys,
    trust: Trust,
    channel: Annotated[
        ChannelName, typer.Option("--channel", "-c", help="Where it is offered.")
    ] = ChannelName.developer,
    threshold: Threshold = 1,
    percent: _common.Percent = None,
    every: _common.Every = "24h",
    ticket: Annotated[
        bool, typer.Option("--ticket", help="Only for devices with a ticket that names it.")
    ] = False,
    supersedes: Annotated[
        list[str] | None,
        typer.Option("--supersedes", metavar="ID", help="An update that it replaces."),
    ] = None,
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Offer updates in a channel, to everybody or in stages.

    Each file is verified as a device does, by the keys named with --trust.
    Several files are one publication: say, ways from several baselines.

    Examples:

      bsipatch feed add update.bsi --channel beta --trust public.pem

      bsipatch feed add update.bsi -c release -t public.pem --percent 5,25,100 --every 24h

      bsipatch feed add update.bsi -t public.pem --dry-run
    """
    from ... import trust as trusting

    with _common.needing_feed():
        from ...publish.feed import edits
    policy = trusting.Policy([trusting.load_public(path) for path in trust], threshold)
    steps, between = _common.percents(percent), _common.duration(every)
    with _common.publishing() as hook:
        opened = _common.open_feed(feed, keys, passphrase_file, take_over, hook=hook)
        found = _described(updates, policy, opened.now, json)

        def edit(draft: Draft, now: int) -> Draft:
            for update in found:
                draft = edits.add(
                    draft,
                    update.offer,
                    update.sha256,
                    channel.value,
                    now,
                    percents=steps,
                    every=between,
                    ticket=ticket,
                    supersedes=supersedes or (),
                )
            return draft

        report = opened.edit(
            edit, sources={update.sha256: update.file for update in found}, dry_run=dry_run
        )
    _common.show(
        report, dry_run=dry_run, json=json, more={"ids": [update.offer.id for update in found]}
    )


def _described(updates: list[Path], policy: Policy, now: int, json: bool) -> list[Described]:
    """Every file verified, with a bar."""
    from ...publish.feed.offers import describe

    with _output.progress(json) as bar, _signals.working() as stop:
        tell = _signals.stopping(bar, stop)
        total = sum(path.stat().st_size for path in updates if path.is_file())
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tell("verify", done, total)

        return [describe(path, policy, now, progress=advance) for path in updates]
