"""`bsipatch feed supersede`: one update takes the place of another."""

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
    by: Annotated[str, typer.Option("--by", metavar="ID", help="The newer update.")],
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Say that a newer update replaces an older one, for whoever may have the newer one.

    A withdrawn update stays barred on devices until one supersedes it.

    Examples:

      bsipatch feed supersede 0123456789ab --by ba9876543210
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.supersede(draft, name, by),
        dry_run=dry_run,
        json=json,
    )
