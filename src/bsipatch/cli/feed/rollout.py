"""`bsipatch feed rollout`: who is offered an update, and from when on."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import _passphrase
from .._options import Json
from . import _common


def command(
    name: _common.Id,
    feed: _common.Place,
    keys: _common.Keys,
    percent: Annotated[
        str, typer.Option("--percent", metavar="P,P,...", help="Steps such as 5,25,100.")
    ],
    every: _common.Every = "24h",
    channel: _common.Channel = None,
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Set the steps of a rollout, beginning now. Who is in stays in.

    Which devices come first follows from the update's id and each device's own id.

    Examples:

      bsipatch feed rollout 0123456789ab --percent 5,25,100 --every 24h

      bsipatch feed rollout 0123456789ab --percent 100
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    steps, between = _common.percents(percent), _common.duration(every)
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.roll_out(
            draft, name, now, percents=steps, every=between, channel=_common.channel_name(channel)
        ),
        dry_run=dry_run,
        json=json,
    )
