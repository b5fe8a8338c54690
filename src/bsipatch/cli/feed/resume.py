"""`bsipatch feed resume`: goes on with a rollout."""

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
    """Go on with a paused rollout, each step as far away as it was then.

    Examples:

      bsipatch feed resume 0123456789ab

      bsipatch feed resume 0123456789ab --channel release --dry-run
    """
    with _common.needing_feed():
        from ...publish.feed import edits
    _common.change(
        feed,
        keys,
        passphrase_file,
        take_over,
        lambda draft, now: edits.resume(draft, name, now, channel=channel),
        dry_run=dry_run,
        json=json,
    )
