"""`bsipatch feed pause`: lets nobody else have an update."""

from __future__ import annotations

from .. import _passphrase
from .._options import Json
from . import _common


def command(
    name: _common.Id,
    feed: _common.Place,
    keys: _common.Keys,
    channel: _common.Channel = None,
    passphrase_file: _passphrase.File = None,
    take_over: _common.TakeOver = False,
    dry_run: _common.DryRun = False,
    json: Json = False,
) -> None:
    """Stop a rollout where it is. Who has been offered the update keeps it.

    What was still to come is set aside until `bsipatch feed resume`.

    Examples:

      bsipatch feed pause 0123456789ab

      bsipatch feed pause 0123456789ab --channel release --dry-run
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.pause(draft, name, now, channel=channel),
        dry_run=dry_run,
        json=json,
    )
