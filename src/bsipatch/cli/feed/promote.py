"""`bsipatch feed promote`: offers an update in the next channel."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import _passphrase
from .._options import ChannelName, Json
from . import _common


def command(
    name: _common.Id,
    feed: _common.Place,
    keys: _common.Keys,
    to: Annotated[ChannelName, typer.Option("--to", help="Where it is offered as well.")],
    percent: _common.Percent = None,
    every: _common.Every = "24h",
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Offer an update in a further channel: the same file under that channel's key.

    Examples:

      bsipatch feed promote Demo-26.3.1-a-0123456789ab --to release

      bsipatch feed promote 0123456789ab --to release --percent 5,25,100 --every 24h
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    steps, between = _common.percents(percent), _common.duration(every)
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.promote(draft, name, to.value, now, percents=steps, every=between),
        dry_run=dry_run,
        json=json,
    )
