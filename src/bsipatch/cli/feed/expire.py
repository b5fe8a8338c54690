"""`bsipatch feed expire`: takes updates off the list."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import _passphrase
from .._options import Json
from . import _common


def command(
    feed: _common.Place,
    keys: _common.Keys,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="Updates; none: all whose notice has ended."),
    ] = None,
    channel: _common.Channel = None,
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Take updates off a channel's list without a notice: nobody is offered them any more.

    Devices that have them keep them. Without an ID, the withdrawn ones whose notice has ended.

    Examples:

      bsipatch feed expire

      bsipatch feed expire 0123456789ab --channel developer
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.expire(
            draft, now, names=names or (), channel=_common.channel_name(channel)
        ),
        dry_run=dry_run,
        json=json,
    )
