"""`bsipatch feed withdraw`: takes an update back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .. import _passphrase
from .._options import Json
from . import _common


class To(StrEnum):
    """Where devices that have it go back to."""

    previous = "previous"
    baseline = "baseline"


def command(
    name: _common.Id,
    feed: _common.Place,
    keys: _common.Keys,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why: people on devices read this.")
    ],
    revert_installed: Annotated[
        bool, typer.Option("--revert-installed", help="Devices that have it go back.")
    ] = False,
    to: Annotated[To, typer.Option("--to", help="Where they go back to.")] = To.previous,
    notice: Annotated[
        str, typer.Option("--notice", metavar="TIME", help="How long the notice stands.")
    ] = "90d",
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Take an update back, in every channel, with every way to the same result.

    Nobody is offered it any more, and every device learns the reason. An update with another
    result takes its place.

    Examples:

      bsipatch feed withdraw 0123456789ab --reason "Pages stay blank." --revert-installed

      bsipatch feed withdraw 0123456789ab --reason "Superseded in haste." --notice 30d --dry-run
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    stands = _common.duration(notice)
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.withdraw(
            draft,
            name,
            now,
            reason=reason,
            revert_installed=revert_installed,
            to=to.value,
            notice=stands,
        ),
        dry_run=dry_run,
        json=json,
    )
